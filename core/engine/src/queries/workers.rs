//! The workers, as their heartbeats tell.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgRow;
use tasker_model::Result;

use crate::{Engine, to_error};

/// How a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// It sends heartbeats.
    Live,
    /// It was not heard of for three leases.
    Lost,
    /// It stopped, or the sweeper found it gone.
    Stopped,
}

impl WorkerState {
    /// Returns the name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Lost => "lost",
            Self::Stopped => "stopped",
        }
    }
}

/// One worker.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerRow {
    /// Its id.
    pub worker_id: i32,
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: WorkerState,
    /// The runtime of its handlers.
    pub kind: String,
    /// Its host.
    pub host: String,
    /// Its process.
    pub pid: i32,
    /// Its version of Tasker.
    pub version: String,
    /// Its slots.
    pub concurrency: i32,
    /// How many steps it ran at its last heartbeat.
    pub running: i64,
    /// How long its leases last without a heartbeat.
    pub lease_seconds: i32,
    /// Its queues, as `namespace/queue`.
    pub queues: Vec<String>,
    /// Its handlers, as `namespace.handler`.
    pub handlers: Vec<String>,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it was heard of last.
    pub heartbeat_at: DateTime<Utc>,
    /// How long ago that was, by the engine's clock.
    pub heartbeat_age_ms: i64,
    /// When it stopped.
    pub stopped_at: Option<DateTime<Utc>>,
}

impl Engine {
    /// Lists the workers, newest first, at most 1,000; those that stopped only if asked for.
    pub async fn workers(&self, with_stopped: bool) -> Result<Vec<WorkerRow>> {
        let doing = "listing the workers";
        let rows = sqlx::query(self.statement(include_str!("workers.sql")))
            .bind(with_stopped)
            .fetch_all(self.single())
            .await
            .map_err(|error| to_error(doing, error))?;
        rows.iter().map(|row| worker(row).map_err(|error| to_error(doing, error))).collect()
    }
}

fn worker(row: &PgRow) -> sqlx::Result<WorkerRow> {
    let stopped_at: Option<DateTime<Utc>> = row.try_get("stopped_at")?;
    Ok(WorkerRow {
        worker_id: row.try_get("worker_id")?,
        name: row.try_get("name")?,
        state: if stopped_at.is_some() {
            WorkerState::Stopped
        } else if row.try_get("is_lost")? {
            WorkerState::Lost
        } else {
            WorkerState::Live
        },
        kind: row.try_get("kind")?,
        host: row.try_get("host")?,
        pid: row.try_get("pid")?,
        version: row.try_get("version")?,
        concurrency: row.try_get("concurrency")?,
        running: row.try_get("running")?,
        lease_seconds: row.try_get("lease_seconds")?,
        queues: row.try_get("queue_names")?,
        handlers: row.try_get("handler_names")?,
        started_at: row.try_get("started_at")?,
        heartbeat_at: row.try_get("heartbeat_at")?,
        heartbeat_age_ms: row.try_get("heartbeat_age_ms")?,
        stopped_at,
    })
}
