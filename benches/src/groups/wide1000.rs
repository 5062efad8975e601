//! One step, a thousand beside each other, one that waits for all of them: one such task at a time.

use anyhow::Result;

use crate::bench::Bench;
use crate::load;
use crate::workflows::{self, WIDE};

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let database = bench.server.database("wide1000").await?;
    let tasks = bench.config.size(15, 2);
    let rates = load::one_at_a_time(&database, workflows::wide1000(), WIDE, tasks).await?;
    bench.drop(database).await?;
    bench.report.samples("wide1000_steps_per_s", &rates);
    bench.report.figure("wide1000_steps_per_s", rates.median());
    Ok(())
}
