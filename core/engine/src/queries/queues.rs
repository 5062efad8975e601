//! The queues and how full they are.

use serde::Serialize;
use tasker_model::Result;

use crate::{Engine, pgmq, to_error};

/// One queue.
#[derive(Debug, Clone, Serialize)]
pub struct QueueRow {
    /// Its id.
    pub queue_id: i32,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The runtime of the handlers whose steps it holds.
    pub kind: String,
    /// Where its messages are: `pgmq`.
    pub backend: String,
    /// Whether it is paused.
    pub paused: bool,
    /// Messages that may be read now.
    pub visible: i64,
    /// Messages leased to a worker, or due within two seconds.
    pub leased: i64,
    /// The age of the oldest visible message.
    pub oldest_ms: Option<u64>,
    /// Live workers that serve it.
    pub workers: i64,
}

impl Engine {
    /// Lists the queues by name, the engine's own one left out. Counts each queue's messages.
    pub async fn queues(&self) -> Result<Vec<QueueRow>> {
        let doing = "listing the queues";
        let mut conn = self.acquire().await?;
        let rows: Vec<(i32, String, String, String, String, bool, i64)> = sqlx::query_as(self.statement(
            "select q.queue_id, q.namespace, q.name, q.kind, q.backend, q.paused, \
             (select count(*) from {schema}.worker w where w.stopped_at is null and q.queue_id = any(w.queues) \
                and w.heartbeat_at > {schema}.now() - 3 * w.lease_seconds * interval '1 second') \
             from {schema}.queue q where q.queue_id > 0 order by q.namespace, q.name, q.kind",
        ))
        .fetch_all(self.on(&mut conn))
        .await
        .map_err(|error| to_error(doing, error))?;
        let mut queues = Vec::with_capacity(rows.len());
        for (queue_id, namespace, name, kind, backend, paused, workers) in rows {
            let depth = pgmq::depth(self, &mut conn, queue_id).await?;
            queues.push(QueueRow {
                queue_id,
                namespace,
                name,
                kind,
                backend,
                paused,
                visible: depth.visible,
                leased: depth.leased,
                oldest_ms: depth.oldest.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
                workers,
            });
        }
        Ok(queues)
    }
}
