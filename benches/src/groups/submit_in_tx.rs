//! Submits in the application's own transaction, each beside a row of the application: sixteen callers, no worker.

use anyhow::Result;
use tasker::{Tasker, Workflow};

use super::submit::measure;
use crate::bench::Bench;
use crate::workflows;

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let rates = measure(bench, "submit_in_tx", async |tasker: &Tasker, workflow: &Workflow| {
        let mut transaction = tasker.pool().begin().await?;
        sqlx::query("insert into orders (token) values ($1)").bind("tok_4242").execute(&mut *transaction).await?;
        workflow.submit(&mut transaction, workflows::input()).await?;
        transaction.commit().await?;
        Ok(())
    })
    .await?;
    bench.report.samples("submit_in_tx_per_s", &rates);
    bench.report.figure("submit_in_tx_per_s", rates.median());
    Ok(())
}
