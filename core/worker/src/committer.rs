//! Settles outcomes. One call takes all that gathered since the last one, commits once, and brings the next steps.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tasker_engine::{Change, Reply, Settlement, is_data_error, pgmq, retrying};
use tasker_model::{ErrorKind, Result};
use tokio::time::Instant;

use crate::answer::answer;
use crate::outbox::Report;
use crate::outcome::rejected;
use crate::process::Process;
use crate::slots::Permits;

/// The pauses between attempts to reach the database again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A call asks for as many steps as it may make ready and as ended with it, and this many more: it finds work that others left.
const SPARE: usize = 8;

/// Runs until the process stops. Up to four of these share the outbox.
pub(crate) async fn run(process: Arc<Process>) {
    let mut conn: Option<PgConnection> = None;
    let mut pause = FIRST_PAUSE;
    let mut settled = None;
    loop {
        // `take` is cancel safe: it gives a batch at its last await or not at all.
        let batch = tokio::select! {
            batch = process.outbox.take(settled.take()) => batch,
            () = process.stopping.cancelled() => break,
        };
        match settle(&process, &mut conn, batch).await {
            Ok(children) => {
                pause = FIRST_PAUSE;
                settled = Some(children);
            }
            Err(unsettled) => {
                // What becomes of those whose lease runs out meanwhile is for the engine's guard to say.
                process.outbox.put_back(unsettled);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = process.stopping.cancelled() => break,
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Settles a batch and answers how many steps could follow it, or answers it back where the database cannot be reached.
async fn settle(
    process: &Arc<Process>,
    conn: &mut Option<PgConnection>,
    batch: Vec<Report>,
) -> Result<usize, Vec<Report>> {
    let is_relaxed = batch.iter().all(|report| report.is_relaxed);
    let has_started = Instant::now();
    let children: usize = batch.iter().map(|report| report.children).sum();
    let permits = process.reserve(children + batch.len() + SPARE);
    let (settlements, notes): (Vec<Settlement>, Vec<_>) =
        batch.into_iter().map(|r| (r.settlement, (r.is_relaxed, r.children))).unzip();
    process.leases.mark_settling(settlements.iter().map(|s| &s.lease), true);
    let result = call(process, conn, permits, is_relaxed, &settlements).await;
    if let Err(error) = &result
        && error.kind == ErrorKind::Unavailable
    {
        tracing::warn!(%error, outcomes = settlements.len(), "cannot settle; the outcomes wait");
        process.leases.mark_settling(settlements.iter().map(|s| &s.lease), false);
        let with_notes = settlements.into_iter().zip(notes);
        return Err(with_notes
            .map(|(settlement, (is_relaxed, children))| Report { settlement, is_relaxed, children })
            .collect());
    }
    if let Err(error) = result {
        tracing::error!(%error, outcomes = settlements.len(), "these outcomes are given up; their steps run again when their leases end");
    }
    process.leases.remove_all(settlements.iter().map(|s| &s.lease));
    process.pace.worked(true);
    tracing::debug!(
        outcomes = settlements.len(),
        duration_ms = u64::try_from(has_started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "settled"
    );
    Ok(children)
}

/// One settle call. A data error is hunted down to the one outcome that caused it.
async fn call(
    process: &Arc<Process>,
    conn: &mut Option<PgConnection>,
    permits: Option<Permits>,
    is_relaxed: bool,
    settlements: &[Settlement],
) -> Result<()> {
    let caller = process.caller(permits.as_ref(), is_relaxed);
    let since = Instant::now();
    let mut result = once(process, conn, &caller, settlements).await;
    if matches!(&result, Err(error) if error.kind == ErrorKind::Unavailable) {
        // The answer may be what was lost: then the outcomes are found settled, and what was handed off waits for its lease.
        *conn = None;
        result = once(process, conn, &caller, settlements).await;
    }
    match result {
        Ok(reply) => {
            log_verdicts(&reply, settlements);
            process.absorb(reply, permits, since).await;
            Ok(())
        }
        Err(error) if is_data_error(&error) => {
            drop(permits);
            process.pace.wake();
            if let [one] = settlements {
                tracing::error!(%error, task.id = %one.lease.task_id, step.idx = one.lease.idx, "the database refuses an outcome; its step fails");
                if matches!(one.change, Change::Failure { .. } | Change::ItemFailure { .. }) {
                    return Err(error);
                }
                let change = rejected(&format!("the database refuses the result: {error}"));
                let failed = [Settlement { change, ..one.clone() }];
                return Box::pin(call(process, conn, None, false, &failed)).await;
            }
            let (left, right) = settlements.split_at(settlements.len() / 2);
            let first = Box::pin(call(process, conn, None, is_relaxed, left)).await;
            Box::pin(call(process, conn, None, is_relaxed, right)).await?;
            first
        }
        Err(error) => {
            if error.kind == ErrorKind::Unavailable {
                *conn = None;
            }
            Err(error)
        }
    }
}

async fn once(
    process: &Process,
    conn: &mut Option<PgConnection>,
    caller: &tasker_engine::Caller,
    settlements: &[Settlement],
) -> Result<Reply> {
    let open = match conn {
        Some(open) => open,
        None => conn.insert(answer(process.engine.open()).await?),
    };
    retrying!(answer(pgmq::settle(&process.engine, open, caller, settlements)).await)
}

fn log_verdicts(reply: &Reply, settlements: &[Settlement]) {
    for (at, verdict) in &reply.verdicts {
        if let Some(one) = settlements.get(*at) {
            tracing::debug!(task.id = %one.lease.task_id, step.idx = one.lease.idx, ?verdict, "an outcome was not applied");
        }
    }
}
