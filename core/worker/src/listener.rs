//! Hears hints from other processes: something to read, a task to stop, queues that were added.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tasker_engine::pgmq::{self, Wakeup, Wakeups};
use tasker_model::Result;

use crate::process::Process;

/// How long a lost connection is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs until the process stops. While it hears nothing, polling and heartbeats find what it would have heard.
pub(crate) async fn run(process: Arc<Process>) {
    loop {
        // Dropping the listener at any point loses hints only.
        let ended = tokio::select! {
            ended = listen(&process) => ended,
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

async fn listen(process: &Arc<Process>) -> Result<()> {
    let mut wakeups = pgmq::wakeups(&process.engine, &process.queues()).await?;
    // What came before it listened is found by looking.
    serve_again(process, &mut wakeups).await?;
    process.pace.wake();
    loop {
        match wakeups.next().await? {
            Wakeup::Queue(_) => process.pace.wake(),
            Wakeup::Cancel(task) => process.leases.cancel_task(task),
            Wakeup::Queues | Wakeup::Reconnected => {
                serve_again(process, &mut wakeups).await?;
                process.pace.wake();
            }
        }
    }
}

/// Serves queues that appeared since.
async fn serve_again(process: &Process, wakeups: &mut Wakeups) -> Result<()> {
    let options = &process.options;
    let queues =
        process.engine.serve_queues(process.worker_id, &options.kind, &process.handler_ids, &options.queues).await?;
    let known = process.queues();
    let added: Vec<i32> = queues.iter().copied().filter(|id| !known.contains(id)).collect();
    if !added.is_empty() {
        wakeups.add(&process.engine, &added).await?;
        tracing::debug!(?added, "serving more queues");
    }
    *process.queues.write().unwrap_or_else(PoisonError::into_inner) = queues;
    Ok(())
}
