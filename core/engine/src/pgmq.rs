//! Messaging over PGMQ, called directly: receive, extend, settle, publish, wake, wakeups, depth.
//!
//! The engine's SQL reads and writes PGMQ's queue tables itself (see `create_queue.sql`); making and dropping queues and their numbers go
//! through PGMQ. A second backend will have these same functions.

use std::time::Duration;

use sqlx::postgres::PgListener;
use sqlx::{Connection as _, PgConnection};
use tasker_model::{Result, TaskId};

use crate::hot::Reply;
use crate::{Beat, BeatAnswer, Caller, Engine, Settlement, to_error};

/// Leases up to `caller.want` steps from the caller's queues, priority bands weighted 8:4:2:1.
pub async fn receive(engine: &Engine, conn: &mut PgConnection, caller: &Caller) -> Result<Reply> {
    let rows = sqlx::query(engine.sql.claim.clone())
        .bind(caller.worker_id)
        .bind(&caller.queues)
        .bind(&caller.handlers)
        .bind(&caller.exclude)
        .bind(i32::try_from(caller.want).unwrap_or(i32::MAX))
        .bind(caller.turn)
        .bind(caller.lease)
        .fetch_all(engine.on(conn))
        .await
        .map_err(|error| to_error("claiming steps", error))?;
    Reply::read(&rows)
}

/// Extends leases and says what this process runs; answers only for those that are lost or told to stop.
pub async fn extend(
    engine: &Engine,
    conn: &mut PgConnection,
    worker_id: i32,
    idle_for: Option<Duration>,
    beats: &[Beat],
    lease: Duration,
) -> Result<Vec<BeatAnswer>> {
    engine.heartbeat_call(conn, worker_id, idle_for, beats, lease).await
}

/// Applies up to 256 outcomes in one commit: deletes their messages, stores results, releases children, hands ready steps to the
/// caller, and then fills the slots that it keeps for the queues, in a commit of its own: a settle that read messages could wait for
/// another settle's, which waits for its own. Every outcome is applied at most once; verdicts name those that were not.
pub async fn settle(
    engine: &Engine,
    conn: &mut PgConnection,
    caller: &Caller,
    outcomes: &[Settlement],
) -> Result<Reply> {
    let mut reply =
        if outcomes.is_empty() { Reply::default() } else { engine.settle_call(conn, caller, outcomes).await? };
    let want = caller.want.saturating_sub(caller.handoff);
    if want > 0 {
        match receive(engine, conn, &Caller { want, ..caller.clone() }).await {
            Ok(read) => reply.absorb(read),
            Err(error) if outcomes.is_empty() => return Err(error),
            // The outcomes are committed. What was leased to nobody comes again.
            Err(error) => tracing::debug!(%error, "reading the queues after a settle"),
        }
    }
    Ok(reply)
}

/// Turns due timers into messages, at most 256; answers the queues that have new ones and when the next timer is due.
pub async fn publish(engine: &Engine, conn: &mut PgConnection) -> Result<Reply> {
    let rows = sqlx::query(engine.sql.pump.clone())
        .bind(256)
        .fetch_all(engine.on(conn))
        .await
        .map_err(|error| to_error("turning due timers into messages", error))?;
    Reply::read(&rows)
}

/// Tells the workers of these queues, in other processes too, that there is something to read. Never inside a hot transaction: NOTIFY
/// holds a database-wide lock through the commit.
pub async fn wake(engine: &Engine, conn: &mut PgConnection, queues: &[i32]) -> Result<()> {
    let (mut channels, mut payloads) = (Vec::with_capacity(queues.len()), Vec::with_capacity(queues.len()));
    for &id in queues {
        // Nobody listens to the internal queue by itself.
        let (channel, payload) = if id == 0 {
            (engine.schema().control_channel(), "internal")
        } else {
            (engine.schema().queue_channel(id), "")
        };
        channels.push(channel);
        payloads.push(payload);
    }
    let sql = if engine.is_pooled() && !conn.is_in_transaction() {
        // The notifier's connection keeps no setting there. A caller's transaction has its own durability.
        "select set_config('synchronous_commit', 'off', true), pg_notify(c, p) from unnest($1::text[], $2::text[]) as u(c, p)"
    } else {
        "select pg_notify(c, p) from unnest($1::text[], $2::text[]) as u(c, p)"
    };
    sqlx::query(sql)
        .bind(&channels)
        .bind(&payloads)
        .execute(engine.on(conn))
        .await
        .map_err(|error| to_error("waking workers", error))
        .map(drop)
}

/// What a listener hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wakeup {
    /// A queue has something to read.
    Queue(i32),
    /// A task was told to stop.
    Cancel(TaskId),
    /// Queues or handlers were added.
    Queues,
    /// The engine's own queue has something to read.
    Internal,
    /// The connection was lost and made anew: anything may have been missed.
    Reconnected,
}

/// Wake-ups as they arrive. A hint: one may be lost, and polling finds what it was about.
#[derive(Debug)]
pub struct Wakeups {
    listener: PgListener,
    prefix: String,
    control: String,
}

/// Listens for the given queues and for control messages, on a connection of its own.
pub async fn wakeups(engine: &Engine, queues: &[i32]) -> Result<Wakeups> {
    let doing = "listening for wake-ups";
    let mut listener = PgListener::connect_with(engine.pool()).await.map_err(|error| to_error(doing, error))?;
    let control = engine.schema().control_channel();
    let mut channels = vec![control.clone()];
    channels.extend(queues.iter().map(|id| engine.schema().queue_channel(*id)));
    listener.listen_all(channels.iter().map(String::as_str)).await.map_err(|error| to_error(doing, error))?;
    Ok(Wakeups { listener, prefix: format!("{}_q", engine.schema()), control })
}

impl Wakeups {
    /// Waits for the next one. Cancel safe. After a lost connection it connects again and says so.
    pub async fn next(&mut self) -> Result<Wakeup> {
        loop {
            let Some(note) =
                self.listener.try_recv().await.map_err(|error| to_error("listening for wake-ups", error))?
            else {
                return Ok(Wakeup::Reconnected);
            };
            let found = if note.channel() == self.control {
                match note.payload().split_once(' ') {
                    Some(("cancel", task)) => task.parse().ok().map(Wakeup::Cancel),
                    _ => match note.payload() {
                        "queues" => Some(Wakeup::Queues),
                        "internal" => Some(Wakeup::Internal),
                        _ => None,
                    },
                }
            } else {
                note.channel().strip_prefix(&self.prefix).and_then(|id| id.parse().ok()).map(Wakeup::Queue)
            };
            if let Some(wakeup) = found {
                return Ok(wakeup);
            }
        }
    }

    /// Listens to further queues too.
    pub async fn add(&mut self, engine: &Engine, queues: &[i32]) -> Result<()> {
        if queues.is_empty() {
            return Ok(());
        }
        let channels: Vec<String> = queues.iter().map(|id| engine.schema().queue_channel(*id)).collect();
        self.listener
            .listen_all(channels.iter().map(String::as_str))
            .await
            .map_err(|error| to_error("listening for wake-ups", error))
    }
}

/// How full a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Messages that may be read now.
    pub visible: i64,
    /// Messages leased to a worker, or due within two seconds.
    pub leased: i64,
    /// The age of the oldest visible one.
    pub oldest: Option<Duration>,
}

/// Counts a queue's messages over its four bands. Reads the queue's tables.
pub async fn depth(engine: &Engine, conn: &mut PgConnection, queue_id: i32) -> Result<Depth> {
    let bands: Vec<String> = (if queue_id == 0 { 1..=1 } else { 0..=3 })
        .map(|band| {
            format!("select vt, enqueued_at from pgmq.\"q_{}{queue_id}_{band}\"", engine.schema().queue_prefix())
        })
        .collect();
    let sql = engine.statement(&format!(
        "select count(*) filter (where m.vt <= n.at), count(*) filter (where m.vt > n.at), \
         (extract(epoch from max(n.at - m.enqueued_at) filter (where m.vt <= n.at)) * 1000)::bigint \
         from (select {{schema}}.now() as at) n left join ({}) m on true",
        bands.join(" union all ")
    ));
    let (visible, leased, oldest_ms): (i64, i64, Option<i64>) = sqlx::query_as(sql)
        .fetch_one(engine.on(conn))
        .await
        .map_err(|error| to_error("counting a queue's messages", error))?;
    Ok(Depth { visible, leased, oldest: oldest_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis) })
}
