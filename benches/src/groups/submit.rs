//! Submits of seven steps on Tasker's own connections, sixteen callers, no worker.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;
use tasker::{Tasker, Workflow};

use crate::bench::Bench;
use crate::load;
use crate::samples::Samples;
use crate::workflows;

pub(crate) const CALLERS: u32 = 16;
pub(crate) const ROUNDS: usize = 3;

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let rates = measure(bench, "submit", async |tasker: &Tasker, workflow: &Workflow| {
        tasker.submit(workflow, workflows::input()).await?;
        Ok(())
    })
    .await?;
    bench.report.samples("submit_per_s", &rates);
    bench.report.figure("submit_per_s", rates.median());
    Ok(())
}

/// Lets the callers repeat `submit` for some seconds, some times over; answers submits a second.
pub(crate) async fn measure(
    bench: &mut Bench,
    name: &str,
    submit: impl AsyncFn(&Tasker, &Workflow) -> Result<()>,
) -> Result<Samples> {
    let time = Duration::from_secs(bench.config.size(5, 1) as u64);
    let database = bench.server.database(name).await?;
    let workflow = workflows::dag7();
    load::announce(&database, workflows::dag7()).await?;
    let tasker = database.tasker().pool_size(CALLERS).connect().await?;
    let tasker = tasker.workflow(workflow.clone()).with_state(workflows::Runs::default());
    sqlx::query("create table orders (id bigint primary key generated always as identity, token text not null)")
        .execute(tasker.pool())
        .await?;
    let mut rates = Samples::default();
    // The first round makes connections and plans.
    for round in 0..=ROUNDS {
        let begun = Instant::now();
        let callers = (0..CALLERS).map(|_| async {
            let mut submitted = 0_u64;
            while begun.elapsed() < time {
                submit(&tasker, &workflow).await?;
                submitted += 1;
            }
            Ok::<_, anyhow::Error>(submitted)
        });
        let submitted: u64 = try_join_all(callers).await?.into_iter().sum();
        if round > 0 {
            rates.push(submitted as f64 / begun.elapsed().as_secs_f64());
        }
    }
    tasker.pool().close().await;
    bench.drop(database).await?;
    Ok(rates)
}
