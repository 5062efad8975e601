//! The shop's books.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use thiserror::Error;

use super::Request;

/// An entry of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub entry_id: i64,
}

/// The books of that month are closed, and stay so.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the books of {} are closed", .0.format("%B %Y"))]
pub struct BookError(NaiveDate);

/// Books a refund in the month in which it was asked for.
///
/// The outer error may be mended by another call, the inner one not.
pub async fn book(connection: &mut PgConnection, request: &Request) -> Result<Result<Entry, BookError>, sqlx::Error> {
    let entry_id = sqlx::query_scalar(
        "insert into ledger_entry (order_id, amount_cents, booked_on)
         select $1, -$2::int8, $3
         where not exists (select from closed_month where month = date_trunc('month', $3)::date)
         returning entry_id",
    )
    .bind(&request.order_id)
    .bind(request.amount_cents)
    .bind(request.requested_on)
    .fetch_optional(connection)
    .await?;
    Ok(entry_id.map(|entry_id| Entry { entry_id }).ok_or(BookError(request.requested_on)))
}

/// Closes the books of the month of this day.
pub async fn close_month(pool: &PgPool, day: NaiveDate) -> Result<(), sqlx::Error> {
    sqlx::query("insert into closed_month (month) values (date_trunc('month', $1::date)::date) on conflict do nothing")
        .bind(day)
        .execute(pool)
        .await
        .map(drop)
}
