//! Renews the leases of the steps that run, on a thread and a connection of its own: a busy runtime must not cost a lease.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tasker_engine::{BeatAnswer, pgmq};
use tasker_model::{Error, ErrorKind, Result};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::process::Process;

/// How often it is looked at what there is to renew. A look costs nothing.
const LOOK: Duration = Duration::from_secs(1);
/// A worker that has been quiet for this long says so: then a submit inside a transaction wakes it.
const QUIET: Duration = Duration::from_millis(500);

/// Starts the thread. It ends when the process stops; the loops' tracker waits for it.
pub(crate) fn start(process: &Arc<Process>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| cannot(&error))?;
    let (mut ended, end) = oneshot::channel::<()>();
    let beating = Arc::clone(process);
    std::thread::Builder::new()
        .name("tasker-heartbeat".to_owned())
        .spawn(move || {
            // The worker's runtime may end without a drain, and its handlers with it: then their leases must not be renewed.
            runtime.block_on(async {
                tokio::select! {
                    () = run(beating) => {}
                    () = ended.closed() => {}
                }
            });
            // Nobody listens if that was so.
            let _ = ended.send(());
        })
        .map_err(|error| cannot(&error))?;
    process.loops.spawn(async move {
        let _ = end.await;
    });
    Ok(())
}

fn cannot(error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("cannot start the heartbeat's thread: {error}"))
}

async fn run(process: Arc<Process>) {
    let every = process.options.lease / 3;
    let mut conn: Option<PgConnection> = None;
    let mut last: Option<Instant> = None;
    let mut has_said_idle = false;
    loop {
        let now = Instant::now();
        // Who hears no wake-up is not to be woken.
        let is_idle = !process.engine.is_pooled() && process.slots.are_all_free() && process.pace.quiet_for() >= QUIET;
        let is_due = last.is_none_or(|last| now.duration_since(last) >= every)
            || process.leases.has_unshown(now)
            || (is_idle && !has_said_idle);
        if is_due {
            match beat(&process, &mut conn, now, is_idle).await {
                Ok(()) => {
                    last = Some(now);
                    has_said_idle = is_idle;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot send the heartbeat; trying again");
                    conn = None;
                }
            }
        }
        let expired = process.leases.lose_expired(Instant::now());
        if expired > 0 {
            tracing::warn!(
                expired,
                "no heartbeat for a whole lease: these steps are given up, for others may run them"
            );
        }
        // Cancel safe: both may simply be waited for again.
        tokio::select! {
            () = tokio::time::sleep(LOOK.min(every)) => {}
            () = process.stopping.cancelled() => break,
        }
    }
}

async fn beat(process: &Process, conn: &mut Option<PgConnection>, now: Instant, is_idle: bool) -> Result<()> {
    let lease = process.options.lease;
    let beats = process.leases.beats(now);
    // Until the next heartbeat can say otherwise.
    let idle_for = is_idle.then(|| (process.pace.longest_pause() * 2).max(lease / 3 + LOOK + LOOK));
    let call = async {
        let open = match conn {
            Some(open) => open,
            None => conn.insert(process.engine.open().await?),
        };
        pgmq::extend(&process.engine, open, process.worker_id, idle_for, &beats, lease).await
    };
    // A call that hangs must not keep `lose_expired` from being reached.
    let answers = tokio::time::timeout(lease / 3, call)
        .await
        .map_err(|_| Error::new(ErrorKind::Unavailable, "the heartbeat had no answer in time"))??;
    process.leases.renewed(&beats, now + lease);
    for answer in answers {
        match answer {
            BeatAnswer::Lost(at) => {
                if let Some(beat) = beats.get(at) {
                    // Its outcome may have been settled while the heartbeat was on its way; then nothing is held any more.
                    if process.leases.lose(&beat.lease) {
                        tracing::warn!(task.id = %beat.lease.task_id, step.idx = beat.lease.idx, "the lease of a running step was lost");
                    }
                }
            }
            BeatAnswer::Cancel(at) => {
                if let Some(beat) = beats.get(at) {
                    process.leases.cancel(&beat.lease);
                }
            }
        }
    }
    Ok(())
}
