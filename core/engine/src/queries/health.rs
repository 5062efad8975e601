//! What `doctor` asks.

use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgListener;
use tasker_model::{Result, TaskId};
use uuid::Uuid;

use crate::{Engine, to_error};

/// How many tasks are looked at for broken invariants, half of them open.
const SAMPLE: i64 = 200;

/// Facts about the server and the installation.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// The server's version, such as `15.18`.
    pub server_version: String,
    /// The same as a number: 150018.
    pub server_version_number: i32,
    /// Connections that the server takes.
    pub max_connections: i64,
    /// Connections that it has now.
    pub connections: i64,
    /// Weeks after this one whose partition of the event table is there.
    pub partitions_ahead: i64,
    /// Whether the event table's default partition holds rows.
    pub default_partition_used: bool,
    /// Whether the database is marked for tests.
    pub test_mode: bool,
}

/// A handler that steps need and no live worker has.
#[derive(Debug, Clone, Serialize)]
pub struct UnservedHandler {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub handler: String,
    /// The workflows whose current revision needs it.
    pub workflows: Vec<String>,
    /// Steps that are held until a worker announces it.
    pub held: i64,
}

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Breach {
    /// Which: `I1` to `I6`.
    pub invariant: String,
    /// The task.
    pub task_id: TaskId,
    /// The step's number.
    pub idx: Option<i32>,
    /// What was found.
    pub detail: String,
}

impl Engine {
    /// Reads the facts. Needs the schema.
    pub async fn facts(&self) -> Result<Facts> {
        let doing = "reading facts about the server";
        let row = sqlx::query(self.statement(include_str!("facts.sql")))
            .fetch_one(self.single())
            .await
            .map_err(|error| to_error(doing, error))?;
        let read = || -> sqlx::Result<Facts> {
            Ok(Facts {
                server_version: row.try_get("server_version")?,
                server_version_number: row.try_get("server_version_number")?,
                max_connections: row.try_get("max_connections")?,
                connections: row.try_get("connections")?,
                partitions_ahead: row.try_get("partitions_ahead")?,
                default_partition_used: row.try_get("default_partition_used")?,
                test_mode: row.try_get("test_mode")?,
            })
        };
        read().map_err(|error| to_error(doing, error))
    }

    /// Lists the handlers that a current revision or a held step needs and no live worker has.
    pub async fn unserved_handlers(&self) -> Result<Vec<UnservedHandler>> {
        let rows: Vec<(String, String, Vec<String>, i64)> =
            sqlx::query_as(self.statement(include_str!("unserved_handlers.sql")))
                .fetch_all(self.single())
                .await
                .map_err(|error| to_error("looking for handlers without a worker", error))?;
        Ok(rows
            .into_iter()
            .map(|(namespace, handler, workflows, held)| UnservedHandler { namespace, handler, workflows, held })
            .collect())
    }

    /// Checks the invariants of up to 200 tasks, the newest open and the newest of all. Reads every queue; takes no locks, so that work
    /// in flight may look like a breach: one that stays when asked again is real.
    pub async fn sample_invariants(&self) -> Result<Vec<Breach>> {
        let doing = "checking the invariants";
        let ids: Vec<Uuid> = sqlx::query_scalar(self.statement(
            "(select task_id from {schema}.task where finished_at is null order by task_id desc limit $1 / 2) \
             union (select task_id from {schema}.task order by task_id desc limit $1 / 2)",
        ))
        .bind(SAMPLE)
        .fetch_all(self.single())
        .await
        .map_err(|error| to_error(doing, error))?;
        let rows: Vec<(String, Uuid, Option<i32>, String)> =
            sqlx::query_as(self.statement(
                "select invariant, task_id, idx, detail from {schema}.check_invariants($1) order by 1, 2, 3",
            ))
            .bind(&ids)
            .fetch_all(self.single())
            .await
            .map_err(|error| to_error(doing, error))?;
        Ok(rows
            .into_iter()
            .map(|(invariant, task, idx, detail)| Breach { invariant, task_id: TaskId(task), idx, detail })
            .collect())
    }

    /// Sends a NOTIFY to itself and measures until it arrives; none where it did not in `patience`, or PgBouncer is between.
    pub async fn notify_round_trip(&self, patience: Duration) -> Result<Option<Duration>> {
        let doing = "measuring NOTIFY";
        if self.is_pooled() {
            return Ok(None);
        }
        let channel = format!("{}_echo_{}", self.schema(), Uuid::new_v4().simple());
        let mut listener = PgListener::connect_with(self.pool()).await.map_err(|error| to_error(doing, error))?;
        listener.listen(&channel).await.map_err(|error| to_error(doing, error))?;
        let sent = Instant::now();
        sqlx::query("select pg_notify($1, '')")
            .bind(&channel)
            .execute(self.single())
            .await
            .map_err(|error| to_error(doing, error))?;
        match tokio::time::timeout(patience, listener.recv()).await {
            Ok(Ok(_)) => Ok(Some(sent.elapsed())),
            Ok(Err(error)) => Err(to_error(doing, error)),
            Err(_) => Ok(None),
        }
    }
}
