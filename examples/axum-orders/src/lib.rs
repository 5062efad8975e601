//! The orders behind HTTP: `POST /orders` takes one, `GET /orders/{id}` tells how far it is.

mod config;
mod error;
mod routes;
mod serve;

pub use config::address;
pub use routes::app;
pub use serve::serve;
