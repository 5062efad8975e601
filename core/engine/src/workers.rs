//! Workers as the database knows them: their row, their handlers and queues, their heartbeats.

use std::time::Duration;

use sqlx::{PgConnection, Row};
use tasker_model::Result;

use crate::{Engine, Lease, retrying, to_error};

/// A worker that starts.
#[derive(Debug, Clone)]
pub struct NewWorker {
    /// Its name, for people: host and pid, say.
    pub name: String,
    /// The runtime of its handlers: `rust`, `ruby`, `python`, `bun` or `remote`.
    pub kind: String,
    /// Its host.
    pub host: String,
    /// Its process.
    pub pid: i32,
    /// Its version of Tasker.
    pub version: String,
    /// Its slots.
    pub concurrency: i32,
    /// How long its leases last without a heartbeat.
    pub lease: Duration,
}

/// A handler that a worker announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Its id, which messages carry.
    pub handler_id: i32,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// One lease that a process still holds.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    /// The lease.
    pub lease: Lease,
    /// How long its handler has run.
    pub running: Duration,
}

/// What the engine says of a lease that is not simply extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeatAnswer {
    /// It is another's now, or the step ended: stop, and do not settle. The position in `beats`.
    Lost(usize),
    /// The task was told to stop: raise the handler's cancellation token. The position in `beats`.
    Cancel(usize),
}

impl Engine {
    /// Makes the worker's row; answers its id.
    pub async fn start_worker(&self, worker: &NewWorker) -> Result<i32> {
        sqlx::query_scalar(self.statement("select {schema}.start_worker($1, $2, $3, $4, $5, $6, $7)"))
            .bind(&worker.name)
            .bind(&worker.kind)
            .bind(&worker.host)
            .bind(worker.pid)
            .bind(&worker.version)
            .bind(worker.concurrency)
            .bind(i32::try_from(worker.lease.as_secs().max(1)).unwrap_or(i32::MAX))
            .fetch_one(self.single())
            .await
            .map_err(|error| to_error("starting the worker", error))
    }

    /// Says that the worker stopped. What it still holds comes free as its leases run out.
    pub async fn stop_worker(&self, worker_id: i32) -> Result<()> {
        sqlx::query(self.statement("select {schema}.stop_worker($1)"))
            .bind(worker_id)
            .execute(self.single())
            .await
            .map_err(|error| to_error("stopping the worker", error))
            .map(drop)
    }

    /// Says which handlers, as (namespace, name), a worker of this kind runs; makes their queues and frees steps held for want of them.
    /// Fails with `conflict` where a live worker of another kind serves one of them.
    pub async fn announce(&self, worker_id: i32, kind: &str, handlers: &[(String, String)]) -> Result<Vec<Announced>> {
        let (namespaces, names): (Vec<&str>, Vec<&str>) =
            handlers.iter().map(|(space, name)| (space.as_str(), name.as_str())).unzip();
        let sql = self.statement("select handler_id, namespace, name from {schema}.announce_v1($1, $2, $3, $4)");
        let rows: Vec<(i32, String, String)> = retrying!(
            sqlx::query_as(sql.clone())
                .bind(worker_id)
                .bind(kind)
                .bind(&namespaces)
                .bind(&names)
                .fetch_all(self.single())
                .await
                .map_err(|error| to_error("announcing handlers", error))
        )?;
        Ok(rows.into_iter().map(|(handler_id, namespace, name)| Announced { handler_id, namespace, name }).collect())
    }

    /// Finds the queues that these handlers' steps go to, of the worker's kind, and records that the worker serves them. `only` narrows
    /// them to `namespace` or `namespace/queue`; empty means all. Paused queues are among them.
    pub async fn serve_queues(
        &self,
        worker_id: i32,
        kind: &str,
        handlers: &[i32],
        only: &[String],
    ) -> Result<Vec<i32>> {
        let sql = self.statement(
            "with served as (
               select distinct q.queue_id
               from {schema}.target t join {schema}.queue q on q.queue_id = t.queue_id
               where t.handler_id = any($3) and q.kind = $2
                 and ($4::text[] = '{}' or q.namespace = any($4) or q.namespace || '/' || q.name = any($4))),
             stored as (
               update {schema}.worker w set queues = (select coalesce(array_agg(s.queue_id order by s.queue_id), '{}') from served s)
               where w.worker_id = $1 and w.queues is distinct from (select coalesce(array_agg(s.queue_id order by s.queue_id), '{}') from served s))
             select s.queue_id from served s order by 1",
        );
        sqlx::query_scalar(sql)
            .bind(worker_id)
            .bind(kind)
            .bind(handlers)
            .bind(only)
            .fetch_all(self.single())
            .await
            .map_err(|error| to_error("finding the worker's queues", error))
    }

    pub(crate) async fn heartbeat_call(
        &self,
        conn: &mut PgConnection,
        worker_id: i32,
        idle_for: Option<Duration>,
        beats: &[Beat],
        lease: Duration,
    ) -> Result<Vec<BeatAnswer>> {
        let each = |pick: fn(&Beat) -> i32| beats.iter().map(pick).collect::<Vec<_>>();
        let rows = sqlx::query(self.sql.heartbeat.clone())
            .bind(worker_id)
            .bind(idle_for.map(whole_milliseconds))
            .bind(each(|b| b.lease.queue_id))
            .bind(beats.iter().map(|b| b.lease.band).collect::<Vec<_>>())
            .bind(beats.iter().map(|b| b.lease.msg_id).collect::<Vec<_>>())
            .bind(each(|b| b.lease.read_ct))
            .bind(beats.iter().map(|b| b.lease.task_id.0).collect::<Vec<_>>())
            .bind(each(|b| b.lease.idx))
            .bind(each(|b| b.lease.generation))
            .bind(beats.iter().map(|b| i64::try_from(b.running.as_millis()).unwrap_or(i64::MAX)).collect::<Vec<_>>())
            .bind(lease)
            .fetch_all(self.on(conn))
            .await
            .map_err(|error| to_error("sending the heartbeat", error))?;
        rows.iter()
            .map(|row| {
                let at = usize::try_from(row.try_get::<i32, _>("ord")?).unwrap_or_default().saturating_sub(1);
                Ok(if row.try_get::<&str, _>("answer")? == "cancel" {
                    BeatAnswer::Cancel(at)
                } else {
                    BeatAnswer::Lost(at)
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(|error| to_error("sending the heartbeat", error))
    }
}

/// An interval has no nanoseconds, and a third of a lease does.
fn whole_milliseconds(span: Duration) -> Duration {
    Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}
