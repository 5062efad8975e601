//! A thousand steps one after the other: each is a commit of its own, so that the disk sets the pace.

use anyhow::Result;

use crate::bench::Bench;
use crate::load;
use crate::workflows::{self, CHAIN};

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let database = bench.server.database("chain1000").await?;
    let tasks = bench.config.size(5, 1);
    let rates = load::one_at_a_time(&database, workflows::chain1000(), CHAIN, tasks).await?;
    bench.drop(database).await?;
    bench.report.samples("chain1000_steps_per_s", &rates);
    bench.report.figure("chain1000_steps_per_s", rates.median());
    Ok(())
}
