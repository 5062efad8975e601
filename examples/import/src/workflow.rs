//! The import as a workflow: ranges of the file side by side, each in small transactions that carry a checkpoint.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tasker::prelude::*;
use tasker::{Batch, BatchResult, Batched, Item, Range};

use crate::{Sales, Summary, count_rows, read_rows};

/// How many rows are written in one transaction.
const SLICE: usize = 250;

/// What to import.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SalesFile {
    /// The file, `customer,amount,day` with a line of headings. Every worker reads it, so it is on a disk that all of them see.
    pub path: PathBuf,
    /// How long to rest after each slice of 250 rows, so that the database has time for others.
    #[serde(default)]
    pub pace_ms: u64,
}

/// Called without a range it says how many rows there are; then once for each range.
#[tasker::step]
async fn import(
    Item(range): Item<Option<Range>>,
    Input(file): Input<SalesFile>,
    State(sales): State<Sales>,
    ctx: Ctx,
) -> Result<Batched<Summary>, StepError> {
    let Some(range) = range else {
        return Ok(Batched::items(count_rows(&file.path).await?));
    };
    let mut summary: Summary = ctx.accumulated()?.unwrap_or_default();
    let mut at: u64 = ctx.cursor()?.unwrap_or(range.from);
    for slice in read_rows(&file.path, at..range.to).await?.chunks(SLICE) {
        at += slice.len() as u64;
        summary.add(slice);
        // The rows and the place after them are committed together, so that whoever goes on from there repeats none and leaves none out.
        let mut tx = sales.pool.begin().await?;
        Sales::insert(&mut tx, slice).await?;
        ctx.checkpoint(at).items(at - range.from).accumulated(&summary).on(&mut tx).await?;
        tx.commit().await?;
        if ctx.must_stop() {
            return Err(StepError::cancelled());
        }
        tokio::time::sleep(Duration::from_millis(file.pace_ms)).await;
    }
    Ok(Batched::done(summary))
}

#[tasker::step]
async fn total(import: BatchResult<Summary>) -> Summary {
    Summary::of(&import.results)
}

#[tasker::step]
async fn report(total: Dep<Total>, path: String, ctx: Ctx) -> Result<Settled<Summary>, StepError> {
    ctx.transaction(async |tx| {
        Sales::report(tx, &path, &total).await?;
        Ok::<_, StepError>(total.0.clone())
    })
    .await
}

/// Imports a file of sales, four ranges at a time, sums them up by day and writes a report.
pub fn import_sales() -> Workflow {
    Workflow::new("import")
        .namespace("sales")
        .input::<SalesFile>()
        .step(import.batch(Batch::of_size(2_500).parallel(4)))
        .step(total)
        .step(report)
}
