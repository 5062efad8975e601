//! A task's history.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgRow;
use tasker_model::{Payload, Result, TaskId};

use crate::hot::payload;
use crate::{Engine, to_error};

/// The most events that one call answers.
pub const EVENTS_LIMIT: usize = 10_000;

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
pub struct EventRow {
    /// Its number. Numbers do not tell the order of commits: one read later may be smaller.
    pub event_id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// The task.
    pub task_id: TaskId,
    /// What: `submitted, ready, done, retry, failed, held, released, lease_expired, skipped, cancelled, ending, stopping, complete, ...`.
    pub kind: String,
    /// The step; none for an event of the task itself.
    pub step: Option<String>,
    /// The step's number.
    pub idx: Option<i32>,
    /// Which run of the step.
    pub run: Option<i32>,
    /// Which attempt of the run.
    pub attempt: Option<i32>,
    /// The worker that did it.
    pub worker: Option<String>,
    /// The person or program that asked for it.
    pub actor: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// How long the handler ran.
    pub duration_ms: Option<i32>,
    /// What failed.
    pub error: Option<Payload>,
    /// What else is known.
    pub detail: Option<Payload>,
}

impl Engine {
    /// Reads a task's events in the order of (`at`, `event_id`), those after the given place, at most [`EVENTS_LIMIT`].
    ///
    /// To follow a task, read from a little before the last event seen and leave out the numbers seen: a transaction that began earlier
    /// may commit later.
    pub async fn events(&self, task: TaskId, after: Option<(DateTime<Utc>, i64)>) -> Result<Vec<EventRow>> {
        let doing = "reading a task's events";
        let rows = sqlx::query(self.statement(include_str!("events.sql")))
            .bind(task.0)
            .bind(after.map(|(at, _)| at))
            .bind(after.map(|(_, number)| number))
            .bind(i64::try_from(EVENTS_LIMIT).unwrap_or(i64::MAX))
            .fetch_all(self.single())
            .await
            .map_err(|error| to_error(doing, error))?;
        rows.iter().map(|row| event(row, task).map_err(|error| to_error(doing, error))).collect()
    }
}

fn event(row: &PgRow, task_id: TaskId) -> sqlx::Result<EventRow> {
    Ok(EventRow {
        event_id: row.try_get("event_id")?,
        at: row.try_get("at")?,
        task_id,
        kind: row.try_get("kind")?,
        step: row.try_get("step")?,
        idx: row.try_get("idx")?,
        run: row.try_get("run")?,
        attempt: row.try_get("attempt")?,
        worker: row.try_get("worker")?,
        actor: row.try_get("actor")?,
        reason: row.try_get("reason")?,
        duration_ms: row.try_get("duration_ms")?,
        error: payload(row, "error")?,
        detail: payload(row, "detail")?,
    })
}
