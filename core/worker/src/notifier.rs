//! Tells workers of other processes that there is something to read. It never notifies inside a hot transaction: NOTIFY takes a lock of
//! the whole database until the commit is on disk. Here the commit waits for no disk, and many hints become one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::{Executor as _, PgConnection};
use tasker_engine::{pgmq, to_error};
use tasker_model::Result;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::answer::answer;
use crate::process::Process;

/// A queue is notified at most this often.
const INTERVAL: Duration = Duration::from_millis(2);
/// While there is always something to tell, everybody who listens is awake already, and each hint costs all of them.
const BUSY_INTERVAL: Duration = Duration::from_millis(10);
const BUSY: Duration = Duration::from_millis(50);
/// How long a lost connection is left alone.
const PAUSE: Duration = Duration::from_millis(500);

/// The queues with something to read. A set: it cannot grow beyond their number.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    queues: Mutex<BTreeSet<i32>>,
    changed: Notify,
}

impl Notes {
    pub(crate) fn add(&self, queue: i32) {
        let is_new = self.queues.lock().unwrap_or_else(PoisonError::into_inner).insert(queue);
        if is_new {
            self.changed.notify_one();
        }
    }

    fn take(&self) -> Vec<i32> {
        std::mem::take(&mut *self.queues.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }
}

/// Runs until the process stops. A hint that cannot be sent is dropped: polling finds what it was about.
pub(crate) async fn run(process: Arc<Process>) {
    let mut conn: Option<PgConnection> = None;
    let mut last: Option<Instant> = None;
    loop {
        // Cancel safe: a permit of `changed` is kept for the next wait.
        tokio::select! {
            () = process.notes.changed.notified() => {}
            () = process.stopping.cancelled() => break,
        }
        let queues = process.notes.take();
        if queues.is_empty() {
            continue;
        }
        let sent = match &mut conn {
            Some(conn) => answer(pgmq::wake(&process.engine, conn, &queues)).await,
            None => match answer(connect(&process)).await {
                Ok(mut made) => {
                    let sent = answer(pgmq::wake(&process.engine, &mut made, &queues)).await;
                    conn = Some(made);
                    sent
                }
                Err(error) => Err(error),
            },
        };
        let pause = if let Err(error) = sent {
            tracing::warn!(%error, "cannot wake other workers; they find the work by polling");
            conn = None;
            PAUSE
        } else if last.replace(Instant::now()).is_some_and(|last| last.elapsed() < BUSY) {
            BUSY_INTERVAL
        } else {
            INTERVAL
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = process.stopping.cancelled() => break,
        }
    }
}

async fn connect(process: &Process) -> Result<PgConnection> {
    let mut conn = process.engine.open().await?;
    if process.engine.is_pooled() {
        // Each call says it for its own transaction.
        return Ok(conn);
    }
    conn.execute("set synchronous_commit = off")
        .await
        .map_err(|error| to_error("preparing the notifier's connection", error))?;
    Ok(conn)
}
