//! The engine's own queue: work that must not happen under the locks of the transaction that found it necessary.

use std::time::Duration;

use sqlx::{PgConnection, Row};
use tasker_model::{Result, TaskId};

use crate::hot::Reply;
use crate::{Engine, to_error};

/// How long a reader of the internal queue has to apply a message before another one may.
const LEASE: Duration = Duration::from_secs(30);

/// A leased message of the internal queue.
#[derive(Debug, Clone)]
pub struct InternalMessage {
    msg_id: i64,
    read_ct: i32,
    /// `cascade`, `wait`, `deadline` or `grace`.
    pub kind: String,
    /// The task it is about.
    pub task_id: TaskId,
}

impl Engine {
    /// Leases up to `want` internal messages.
    pub async fn take_internal(&self, conn: &mut PgConnection, want: i32) -> Result<Vec<InternalMessage>> {
        let doing = "reading the internal queue";
        let rows = sqlx::query(self.sql.take_internal.clone())
            .bind(want)
            .bind(LEASE)
            .fetch_all(self.on(conn))
            .await
            .map_err(|error| to_error(doing, error))?;
        rows.iter()
            .map(|row| {
                Ok(InternalMessage {
                    msg_id: row.try_get("msg_id")?,
                    read_ct: row.try_get("read_ct")?,
                    kind: row.try_get("kind")?,
                    task_id: TaskId(row.try_get("task_id")?),
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(|error| to_error(doing, error))
    }

    /// Applies one internal message in a transaction of its own; again harmlessly if it was applied before.
    pub async fn apply_internal(&self, conn: &mut PgConnection, message: &InternalMessage) -> Result<Reply> {
        let rows = sqlx::query(self.sql.apply_internal.clone())
            .bind(message.msg_id)
            .bind(message.read_ct)
            .bind(&message.kind)
            .bind(message.task_id.0)
            .fetch_all(self.on(conn))
            .await
            .map_err(|error| to_error("applying an internal message", error))?;
        Reply::read(&rows)
    }
}
