//! Looks into the database when nothing else does: for steps to run, timers that are due, and the engine's own messages.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tasker_engine::{InternalMessage, Reply, pgmq, retrying, to_error};
use tasker_model::Result;
use tokio::time::Instant;

use crate::answer::answer;
use crate::pace::Due;
use crate::process::Process;
use crate::slots::Permits;

/// How many internal messages one look takes.
const INTERNAL: i32 = 64;
/// How long a lost connection is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs until the process stops.
pub(crate) async fn run(process: Arc<Process>) {
    let mut conn: Option<PgConnection> = None;
    loop {
        process.pace.unheard(process.engine.is_pooled() && !process.slots.are_all_free());
        let can_claim = !process.draining.is_cancelled() && process.free_for_claim() > 0;
        // Cancel safe: a permit of the wake-up is kept for the next wait.
        tokio::select! {
            () = process.pace.wait(can_claim) => {}
            () = process.stopping.cancelled() => break,
        }
        let permits = process.reserve(process.free_for_claim());
        let due = process.pace.take_due(permits.is_some());
        if due == Due::default() {
            continue;
        }
        if let Err(error) = look(&process, &mut conn, due, permits).await {
            tracing::warn!(%error, "cannot look for work; trying again");
            conn = None;
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = process.stopping.cancelled() => break,
            }
            // What was due still is.
            process.pace.wake();
            process.pace.internal();
        }
    }
}

/// What one look found.
#[derive(Default)]
struct Found {
    claimed: Option<Reply>,
    pumped: Option<Reply>,
    internal: Vec<InternalMessage>,
}

async fn look(
    process: &Arc<Process>,
    conn: &mut Option<PgConnection>,
    due: Due,
    permits: Option<Permits>,
) -> Result<()> {
    let since = Instant::now();
    let open = match conn {
        Some(open) => open,
        None => conn.insert(answer(process.engine.open()).await?),
    };
    let permits = if due.claim { permits } else { None };
    let found = retrying!(answer(read_together(process, open, due, permits.as_ref())).await)?;
    if let Some(reply) = found.claimed {
        if reply.leased.is_empty() && reply.refused.is_empty() {
            process.pace.read_nothing();
        } else {
            process.pace.worked(true);
        }
        process.absorb(reply, permits, since).await;
    } else {
        drop(permits);
    }
    if let Some(reply) = found.pumped {
        process.absorb(reply, None, since).await;
    }
    for message in &found.internal {
        let reply = retrying!(answer(process.engine.apply_internal(open, message)).await)?;
        tracing::debug!(kind = %message.kind, task.id = %message.task_id, "applied an internal message");
        process.absorb(reply, None, since).await;
    }
    // What was applied may have left more: the start of a child, the end of one, an undo.
    if !found.internal.is_empty() {
        process.pace.internal();
    }
    Ok(())
}

/// One transaction for all that is due: an idle process stays under one a second.
async fn read_together(
    process: &Process,
    conn: &mut PgConnection,
    due: Due,
    permits: Option<&Permits>,
) -> Result<Found> {
    let count = usize::from(due.claim) + usize::from(due.pump) + usize::from(due.internal);
    if count == 1 {
        return read(process, conn, due, permits).await;
    }
    let doing = "looking for work";
    // The rows it locks must not stay locked where this process stands still.
    let begin = "begin; set local idle_in_transaction_session_timeout = '5s'";
    let mut tx = conn.begin_with(begin).await.map_err(|e| to_error(doing, e))?;
    let found = read(process, &mut tx, due, permits).await?;
    tx.commit().await.map_err(|e| to_error(doing, e))?;
    Ok(found)
}

async fn read(process: &Process, conn: &mut PgConnection, due: Due, permits: Option<&Permits>) -> Result<Found> {
    let mut found = Found::default();
    if due.claim {
        let caller = process.caller(permits, false);
        found.claimed = Some(pgmq::receive(&process.engine, conn, &caller).await?);
    }
    if due.pump {
        found.pumped = Some(pgmq::publish(&process.engine, conn).await?);
    }
    if due.internal {
        found.internal = process.engine.take_internal(conn, INTERNAL).await?;
    }
    Ok(found)
}
