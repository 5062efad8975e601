//! A local PostgreSQL under supervision, for `tasker dev` and for the tests.
//!
//! [`Postgres::start`] finds server binaries that are already on the machine, initialises a data
//! directory on first use, runs `postgres` as a child process on 127.0.0.1 and stops it when the
//! value is dropped. On Linux the server also ends when its parent is killed with `kill -9`.
//! Nothing is ever downloaded, and the distribution's own cluster is never touched.
//!
//! PostgreSQL refuses to run as root. A root process therefore runs it as `postgres`, or as
//! `nobody` where that account does not exist.
//!
//! The crate blocks and needs no async runtime. It supports Unix only.

mod account;
mod binaries;
mod config;
mod error;
mod os;
mod place;
mod process;
mod server;
mod start;

pub use error::{Error, ErrorKind, Result};
pub use server::{Options, Postgres};
