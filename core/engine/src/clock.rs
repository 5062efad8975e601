//! The engine's clock, `{schema}.now()`: the database server's, which only a test session may shift. Workers measure durations with
//! their own monotonic clock and never compare it with this one.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection};
use tasker_model::Result;

use crate::{Schema, to_error};

/// Reads the clock.
pub async fn now(conn: &mut PgConnection, schema: &Schema) -> Result<DateTime<Utc>> {
    sqlx::query_scalar(AssertSqlSafe(schema.fill("select {schema}.now()")))
        .fetch_one(conn)
        .await
        .map_err(|error| to_error("reading the database's clock", error))
}

/// Begins a test session in the current transaction: claims see only what this session submits, and [`shift`] works.
/// Fails with `forbidden` where the database is not marked for tests.
pub async fn begin_test(conn: &mut PgConnection, schema: &Schema) -> Result<()> {
    sqlx::query(AssertSqlSafe(schema.fill("select {schema}.test_begin()")))
        .execute(conn)
        .await
        .map_err(|error| to_error("beginning a test session", error))
        .map(drop)
}

/// Sets the test session's clock this far ahead of the server's, until the transaction ends.
pub async fn shift(conn: &mut PgConnection, ahead: std::time::Duration) -> Result<()> {
    sqlx::query("select set_config('tasker.clock_offset', $1 || ' milliseconds', true)")
        .bind(ahead.as_millis().to_string())
        .execute(conn)
        .await
        .map_err(|error| to_error("moving the test clock", error))
        .map(drop)
}

/// Marks the database as one for tests, or takes the mark off.
pub async fn set_test_mode(conn: &mut PgConnection, schema: &Schema, on: bool) -> Result<()> {
    sqlx::query(AssertSqlSafe(schema.fill(
        "insert into {schema}.setting (key, value) values ('test_mode', $1) on conflict (key) do update set value = excluded.value",
    )))
    .bind(if on { "on" } else { "off" })
    .execute(conn)
    .await
    .map_err(|error| to_error("marking the database for tests", error))
    .map(drop)
}
