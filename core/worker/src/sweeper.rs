//! Sweeps now and then: one process at a time in the whole database does.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tasker_model::Result;
use tokio::time::Instant;

use crate::process::Process;

const BUSY: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_secs(30);
/// After this long without work the pauses are long.
const QUIET_AFTER: Duration = Duration::from_mins(1);
const DEEPLY: Duration = Duration::from_hours(1);

/// Runs until the process stops.
pub(crate) async fn run(process: Arc<Process>) {
    let mut last_deep = Instant::now();
    loop {
        let pause = if process.pace.quiet_for() >= QUIET_AFTER { QUIET } else { BUSY };
        let pause = pause.mul_f64(rand::rng().random_range(0.8..1.2));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = process.stopping.cancelled() => break,
        }
        let is_deep = last_deep.elapsed() >= DEEPLY;
        if is_deep {
            last_deep = Instant::now();
        }
        // Not cancelled halfway: the lock is the connection's, which goes back to the pool.
        if let Err(error) = sweep(&process, is_deep).await {
            tracing::warn!(%error, "the sweep failed; the next one tries again");
        }
    }
}

async fn sweep(process: &Arc<Process>, is_deep: bool) -> Result<()> {
    let mut conn = process.engine.acquire().await?;
    let since = Instant::now();
    if let Some((swept, replies)) = process.engine.sweep(&mut conn, &process.revisions).await? {
        if swept.workers > 0 || swept.timed_out > 0 {
            tracing::info!(workers = swept.workers, timed_out = swept.timed_out, "swept");
        }
        for reply in replies {
            process.absorb(reply, None, since).await;
        }
    }
    if is_deep {
        process.engine.sweep_deeply(&mut conn).await?;
    }
    Ok(())
}
