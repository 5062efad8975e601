//! The engine's clock, `{schema}.now()`: the database server's, which only a test session may shift. Workers measure durations with
//! their own monotonic clock and never compare it with this one.
//!
//! These statements take the simple protocol: one round trip, and no prepared statement that PgBouncer could lose.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tasker_model::Result;

use crate::{Schema, to_error};

/// Reads the clock.
pub async fn now(conn: &mut PgConnection, schema: &Schema) -> Result<DateTime<Utc>> {
    sqlx::raw_sql(AssertSqlSafe(schema.fill("select {schema}.now() as now")))
        .fetch_one(conn)
        .await
        .and_then(|row| row.try_get("now"))
        .map_err(|error| to_error("reading the database's clock", error))
}

/// Begins a test session in the current transaction: claims see only what this session submits, and [`shift`] works.
/// Fails with `forbidden` where the database is not marked for tests.
pub async fn begin_test(conn: &mut PgConnection, schema: &Schema) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(schema.fill("select {schema}.test_begin()")))
        .execute(conn)
        .await
        .map_err(|error| to_error("beginning a test session", error))
        .map(drop)
}

/// Sets the test session's clock this far ahead of the server's, until the transaction ends.
pub async fn shift(conn: &mut PgConnection, ahead: std::time::Duration) -> Result<()> {
    let ahead = ahead.as_millis();
    sqlx::raw_sql(AssertSqlSafe(format!("select set_config('tasker.clock_offset', '{ahead} milliseconds', true)")))
        .execute(conn)
        .await
        .map_err(|error| to_error("moving the test clock", error))
        .map(drop)
}

/// Marks the database as one for tests, or takes the mark off.
pub async fn set_test_mode(conn: &mut PgConnection, schema: &Schema, on: bool) -> Result<()> {
    let mode = if on { "on" } else { "off" };
    sqlx::raw_sql(AssertSqlSafe(schema.fill(&format!(
        "insert into {{schema}}.setting (key, value) values ('test_mode', '{mode}') on conflict (key) do update set value = excluded.value",
    ))))
    .execute(conn)
    .await
    .map_err(|error| to_error("marking the database for tests", error))
    .map(drop)
}
