//! Hears hints from other processes: something to read, a task to stop, queues that were added.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tasker_engine::deliveries::DELIVERIES;
use tasker_engine::pgmq::{self, Wakeup};
use tasker_model::Result;

use crate::process::Process;

/// How often queues that appeared are looked for where PgBouncer is between and nothing can be heard.
const LOOK: Duration = Duration::from_secs(5);
/// How long a lost connection is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs until the process stops. While it hears nothing, polling and heartbeats find what it would have heard.
pub(crate) async fn run(process: Arc<Process>) {
    loop {
        // Dropping the listener at any point loses hints only.
        let ended = tokio::select! {
            ended = hear(&process) => ended,
            () = process.stopping.cancelled() => break,
        };
        if let Err(error) = ended {
            tracing::warn!(%error, "cannot listen for wake-ups; polling goes on");
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = process.stopping.cancelled() => break,
        }
    }
}

async fn hear(process: &Arc<Process>) -> Result<()> {
    if !process.engine.is_pooled() {
        return listen(process).await;
    }
    loop {
        tokio::time::sleep(LOOK).await;
        if !serve_again(process).await?.is_empty() {
            process.pace.wake();
        }
    }
}

async fn listen(process: &Arc<Process>) -> Result<()> {
    let mut wakeups = pgmq::wakeups(&process.engine, &process.queues()).await?;
    wakeups.add(&process.engine, &[DELIVERIES]).await?;
    // What came before it listened is found by looking.
    wakeups.add(&process.engine, &serve_again(process).await?).await?;
    process.pace.wake();
    loop {
        match wakeups.next().await? {
            Wakeup::Queue(DELIVERIES) => process.relay.wake(),
            Wakeup::Queue(_) => process.pace.wake(),
            Wakeup::Cancel(task) => process.leases.cancel_task(task),
            Wakeup::Internal => process.pace.internal(),
            Wakeup::Queues | Wakeup::Reconnected => {
                wakeups.add(&process.engine, &serve_again(process).await?).await?;
                process.pace.wake();
            }
        }
    }
}

/// Serves queues that appeared since, and answers them.
async fn serve_again(process: &Process) -> Result<Vec<i32>> {
    let options = &process.options;
    let queues =
        process.engine.serve_queues(process.worker_id, &options.kind, &process.handler_ids, &options.queues).await?;
    let known = process.queues();
    let added: Vec<i32> = queues.iter().copied().filter(|id| !known.contains(id)).collect();
    if !added.is_empty() {
        tracing::debug!(?added, "serving more queues");
    }
    *process.queues.write().unwrap_or_else(PoisonError::into_inner) = queues;
    Ok(added)
}
