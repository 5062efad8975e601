//! What the shop had before it had workflows: plain functions with their own types and errors.

mod gateway;
mod ledger;
mod mail;
mod policy;

pub use gateway::{Gateway, Receipt};
pub use ledger::{BookError, Entry, book, close_month};
pub use mail::send;
pub use policy::{APPROVAL_LIMIT_CENTS, Assessment, RETURN_DAYS, Request, assess};

/// Makes the shop's tables, or brings them up to date.
pub async fn migrate(pool: &sqlx::PgPool) -> Result<(), sqlx::migrate::MigrateError> {
    sqlx::migrate!().run(pool).await
}
