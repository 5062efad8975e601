//! Maps and batches as an application writes them.

mod support;

use support::*;
use tasker::prelude::*;
use tasker::testing::TestTasker;
use tasker::{Batch, BatchResult, Batched, Failures, Item, Items, MapItems, Range, StepState};

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Line {
    sku: String,
    quantity: u32,
}

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Cart {
    store: String,
    lines: Vec<Line>,
}

#[tasker::step]
async fn pack(line: Item<Line>, Input(cart): Input<Cart>) -> Result<String, StepError> {
    if line.quantity == 0 {
        return Err(StepError::permanent("nothing to pack").code("EMPTY"));
    }
    Ok(format!("{} x {} from {}", line.quantity, line.sku, cart.store))
}

#[tasker::step]
async fn ship(parcels: Items<Pack>) -> Result<String, StepError> {
    Ok(parcels.join(", "))
}

fn shipping() -> Workflow {
    Workflow::new("shipping").input::<Cart>().step(pack.map("input.lines").max_in_flight(2)).step(ship)
}

fn cart(quantities: &[u32]) -> Cart {
    let line = |(at, quantity): (usize, &u32)| Line { sku: format!("s{at}"), quantity: *quantity };
    Cart { store: "north".to_owned(), lines: quantities.iter().enumerate().map(line).collect() }
}

#[tokio::test]
async fn a_map_runs_its_function_for_each_item() {
    let db = db().await;
    let kit = TestTasker::new(&shipping()).on(&db.pool);
    let run = kit.run(cart(&[1, 2, 3])).await.unwrap();
    assert_eq!(run.result::<String>().unwrap(), "1 x s0 from north, 2 x s1 from north, 3 x s2 from north");
    assert_eq!(run.step("pack[2]").unwrap().value::<String>().unwrap(), "3 x s2 from north");
    assert_eq!(run.step("pack").unwrap().value::<Vec<String>>().unwrap().len(), 3);
    let run = kit.run(cart(&[])).await.unwrap();
    assert_eq!(run.result::<String>().unwrap(), "");
    let run = kit.run(cart(&[1, 0, 3])).await.unwrap();
    assert_eq!(run.status, TaskState::Failed);
    assert_eq!(run.step("pack[1]").unwrap().error.as_ref().unwrap().code.as_deref(), Some("EMPTY"));
    let run = TestTasker::new(&shipping().on_failure(OnFailure::Continue)).on(&db.pool).run(cart(&[1, 0, 3])).await;
    let run = run.unwrap();
    assert_eq!(run.step("pack[2]").unwrap().state, StepState::Done);
    assert_eq!(run.step("pack").unwrap().error.as_ref().unwrap().code.as_deref(), Some("TSK_ITEMS_FAILED"));
    assert_eq!(run.step("ship").unwrap().state, StepState::Skipped);
    db.check().await;
}

#[tokio::test]
async fn one_item_is_run_alone() {
    let kit = TestTasker::new(&shipping());
    let line = Line { sku: "a".to_owned(), quantity: 5 };
    let run = kit.step::<Pack>().input(cart(&[])).item(&line).run().await.unwrap();
    assert_eq!(run.value::<String>().unwrap(), "5 x a from north");
    let without = kit.step::<Pack>().input(cart(&[])).run().await.unwrap();
    assert!(without.error().unwrap().message.contains("for no item"), "{without:?}");
    let wrong = kit.step::<Pack>().input(cart(&[])).item(7).run().await.unwrap();
    assert!(wrong.error().unwrap().message.contains("the item cannot be read"), "{wrong:?}");
}

#[tasker::step]
async fn plan() -> Result<MapItems<u64>, StepError> {
    Ok(MapItems::of("square", 0..2_000))
}

#[tasker::step]
async fn square(number: Item<u64>) -> Result<(u64, String), StepError> {
    Ok((*number * *number, "x".repeat(3_000)))
}

#[tasker::step]
async fn add_up(ctx: Ctx) -> Result<u64, StepError> {
    let mut sum = 0;
    let mut from = 0;
    loop {
        let page: Vec<(u64, String)> = ctx.result("square", from..from + 900).await?;
        if page.is_empty() {
            return Ok(sum);
        }
        from += u32::try_from(page.len()).unwrap_or(u32::MAX);
        sum += page.iter().map(|(square, _)| square).sum::<u64>();
    }
}

#[tokio::test]
async fn results_that_are_too_large_to_be_delivered_are_read_in_pages() {
    let db = db().await;
    let workflow = Workflow::new("squares").step(plan).step(square.map("plan")).step(add_up.after(Square));
    let run = TestTasker::new(&workflow).on(&db.pool).run(serde_json::json!({})).await.unwrap();
    assert_eq!(run.result::<u64>().unwrap(), (0..2_000_u64).map(|n| n * n).sum::<u64>(), "{:?}", run.step("add_up"));
    db.check().await;
}

#[tasker::step]
async fn import(range: Item<Option<Range>>, Input(rows): Input<Rows>, ctx: Ctx) -> Result<Batched<u64>, StepError> {
    let Item(Some(range)) = range else { return Ok(Batched::items(rows.count)) };
    if range.from == 20 && ctx.is_last_attempt() {
        return Err(StepError::permanent("a bad range"));
    }
    Ok(Batched::done(range.to - range.from))
}

#[tasker::step]
async fn total(import: BatchResult<u64>) -> Result<(u64, usize), StepError> {
    assert_eq!(import.items, 35);
    Ok((import.results.iter().sum(), import.failed.len()))
}

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Rows {
    count: u64,
}

#[tokio::test]
async fn a_batch_divides_its_work_and_lists_what_failed() {
    let db = db().await;
    let kit = TestTasker::new(
        &Workflow::new("rows")
            .step(import.batch(Batch::of_size(10).parallel(2).on_failure(Failures::Isolate)).retry(1))
            .step(total),
    )
    .on(&db.pool);
    let run = kit.run(Rows { count: 35 }).await.unwrap();
    assert_eq!(run.result::<(u64, usize)>().unwrap(), (25, 1));
    assert_eq!(run.step("import[2]").unwrap().state, StepState::Failed);
    let alone = kit.step::<Import>().input(Rows { count: 35 }).item(Range { from: 0, to: 10 }).run().await.unwrap();
    assert_eq!(alone.value::<u64>().unwrap(), 10);
    let divided = kit.step::<Import>().input(Rows { count: 35 }).run().await.unwrap();
    assert!(format!("{:?}", divided.change).starts_with("Ranges { items: 35"), "{divided:?}");
    db.check().await;
}
