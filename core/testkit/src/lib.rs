//! A PostgreSQL for the tests, and in it a database of its own for every test.
//!
//! The server is, first that applies: the one of `TASKER_TEST_DATABASE_URL`, the one of
//! `DATABASE_URL`, one that this process starts and throws away. A test is never skipped for the
//! lack of one: then it panics and says what to do.
//!
//! `with-services COMMAND` starts one server for many test processes, with `--tls`, `--socket`, `--unprivileged` or `--pgbouncer` one that
//! is met in that way. Built with the feature `containers` it takes one in a container where Docker answers.
//!
//! ```no_run
//! # async fn example() {
//! let database = tasker_testkit::database("shop", async |url| {
//!     let pool = sqlx::PgPool::connect(url).await.unwrap();
//!     sqlx::raw_sql("create table item (name text)").execute(&pool).await.unwrap();
//!     pool.close().await;
//! })
//! .await;
//! let pool = database.pool().await;
//! sqlx::query("insert into item values ('tea')").execute(&pool).await.unwrap();
//! # }
//! ```

mod config;
#[cfg(feature = "containers")]
mod container;
mod database;
mod embedded;
mod server;
mod variant;

#[cfg(feature = "containers")]
pub use container::Container;
pub use database::{TestDatabase, database};
pub use embedded::Embedded;
pub use server::{TEST_DATABASE_URL, TEST_PGBOUNCER, given_url, server_url};
pub use variant::Variant;
