//! Child tasks and undo with real functions.

mod support;

use std::time::Duration;

use support::*;
use tasker::prelude::*;
use tasker::testing::TestTasker;
use tasker::{Child, RunChild, StepState, WaitFor};

const SOON: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Booking {
    number: u32,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Trip {
    #[expect(dead_code, reason = "steps take it as a parameter")]
    to: String,
}

#[tasker::step]
async fn book_hotel(to: String) -> Result<Booking, StepError> {
    Ok(Booking { number: u32::try_from(to.len()).unwrap_or_default() })
}

/// The same argument, and what the step gave.
#[tasker::step]
async fn cancel_hotel(to: String, result: Booking) -> Result<String, StepError> {
    Ok(format!("{to} {}", result.number))
}

/// The same by type.
#[tasker::step]
async fn cancel_by_type(booking: Dep<BookHotel>) -> Result<u32, StepError> {
    Ok(booking.number)
}

#[tasker::step]
async fn pay(hotel: Dep<BookHotel>) -> Result<(), StepError> {
    Err(StepError::permanent(format!("no money for {}", hotel.number)).code("NO_MONEY"))
}

fn booking() -> Workflow {
    Workflow::new("booking").input::<Trip>().step(book_hotel.undo(cancel_hotel)).step(pay)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_receives_the_arguments_and_the_result() {
    let db = db().await;
    let workflow = booking();
    let tasker = Tasker::connect(&db.database.engine_url()).await.unwrap().workflow(workflow.clone());
    let worker = tasker.start().await.unwrap();
    let task = tasker.submit(&workflow, serde_json::json!({"to": "Rome"})).await.unwrap();
    let ended = task.wait_for(SOON).await.unwrap();
    assert_eq!((ended.status(), ended.code().as_deref()), (TaskState::Failed, Some("NO_MONEY")));
    let steps = task.steps().await.unwrap();
    let undo = steps.iter().find(|step| step.name == "undo:book_hotel").unwrap();
    assert_eq!(undo.result.as_ref().unwrap().to::<String>().unwrap(), "Rome 4");
    assert_eq!(task.compensate("again").await.unwrap_err().kind, tasker::ErrorKind::Conflict);
    worker.drain(SOON).await;
    db.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kit_undoes_under_a_test_and_lets_an_undo_fail() {
    let db = db().await;
    let kit = TestTasker::new(&booking()).on(&db.pool).fail_next("undo:book_hotel", StepError::retryable("busy"));
    let run = kit.run(serde_json::json!({"to": "Oslo"})).await.unwrap();
    assert_eq!(run.status, TaskState::Failed, "{run:?}");
    assert_eq!(run.step("undo:book_hotel").unwrap().attempts, 2);
    let by_type = Workflow::new("by_type").input::<Trip>().step(book_hotel.undo(cancel_by_type)).step(pay);
    let run = TestTasker::new(&by_type).on(&db.pool).run(serde_json::json!({"to": "Oslo"})).await.unwrap();
    assert_eq!(run.status, TaskState::Failed, "{run:?}");
    assert_eq!(run.step("undo:book_hotel").unwrap().value::<u32>().unwrap(), 4);
    let fake = TestTasker::new(&booking())
        .on(&db.pool)
        .override_step("undo:book_hotel", async || -> Result<(), StepError> { Err(StepError::permanent("closed")) });
    let run = fake.run(serde_json::json!({"to": "Oslo"})).await.unwrap();
    assert_eq!(run.step("undo:book_hotel").unwrap().state, StepState::Failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_and_functions_that_go_on_as_one_or_wait() {
    let db = db().await;
    let shipment = Workflow::new("shipment").step_fn("label", async |ctx: Ctx| ctx.attempt());
    let orders = Workflow::new("orders")
        .step_fn("validate", async || 7_u64)
        .child("shipping", Child::workflow("shipment").with("order", "validate"))
        .step(step_fn("again", async || RunChild::workflow("shipment", &serde_json::json!({}))).after("shipping"))
        .step(
            step_fn("ask", async || WaitFor::signal("yes").timeout(Duration::from_hours(1)).or("nobody"))
                .after("again"),
        )
        .step(step_fn("pause", async || WaitFor::time(Duration::from_hours(24))).after("ask"));
    let kit = TestTasker::new(&orders).with_workflow(&shipment).on(&db.pool);
    let run = kit.run(serde_json::json!({})).await.unwrap();
    assert_eq!(run.status, TaskState::Complete, "{run:?}");
    assert_eq!(run.step("shipping").unwrap().value::<u32>().unwrap(), 1);
    assert_eq!(run.step("again").unwrap().value::<u32>().unwrap(), 1);
    assert_eq!(run.step("ask").unwrap().value::<String>().unwrap(), "nobody");
    assert!(run.elapsed >= Duration::from_mins(24 * 60 + 59), "{:?}", run.elapsed);
    let tasker = Tasker::connect(&db.database.engine_url()).await.unwrap().workflow(shipment).workflow(orders.clone());
    let worker = tasker.start().await.unwrap();
    let task = tasker.submit(&orders, serde_json::json!({})).await.unwrap();
    let end = tokio::time::Instant::now() + SOON;
    while task.signal("yes", &"me").await.is_err() {
        assert!(tokio::time::Instant::now() < end, "it never waited");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let steps = task.steps().await.unwrap();
    let child = steps.iter().find(|step| step.name == "shipping").unwrap().child.clone().unwrap();
    assert_eq!(child.state, TaskState::Complete);
    let parent = tasker.task(child.task_id).detail().await.unwrap().parent.unwrap();
    assert_eq!((parent.task_id, parent.step.as_str()), (task.id(), "shipping"));
    task.cancel("seen").await.unwrap();
    worker.drain(SOON).await;
    db.check().await;
}
