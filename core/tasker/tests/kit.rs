//! Whole workflows in a transaction that is rolled back, under a clock that does not wait.
#![expect(clippy::float_cmp, reason = "these numbers are exact")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use support::*;
use tasker::prelude::*;
use tasker::testing::TestTasker;
use tasker::{ErrorKind, StepState};

#[tokio::test]
async fn a_workflow_runs_to_its_end_and_leaves_nothing() {
    let db = db().await;
    let kit = TestTasker::new(&orders()).on(&db.pool);
    let run = kit.run(order(&[1.5, 2.0])).await.unwrap();
    assert_eq!(run.status, TaskState::Complete, "{run:?}");
    assert_eq!(run.result::<String>().unwrap(), "3.5 for 2 lines");
    assert_eq!(run.step("charge_payment").unwrap().value::<Payment>().unwrap().amount, 3.5);
    assert_eq!(run.step("validate_cart").unwrap().attempts, 1);
    assert!(run.history("confirm").contains(&"done"));
    assert_eq!(run.events.last().unwrap().kind, "complete");
    assert!(run.step("confrim").unwrap_err().message.contains("did you mean `confirm`?"));
    assert_eq!(db.count("task").await, 0);
    let again = kit.run(order(&[1.0])).await.unwrap();
    assert_eq!(again.result::<String>().unwrap(), "1 for 1 lines");
    db.check().await;
}

#[tokio::test]
async fn retries_take_no_time() {
    let db = db().await;
    let kit = TestTasker::new(&orders())
        .on(&db.pool)
        .fail_next("charge_payment", StepError::retryable("gateway timed out"))
        .fail_next("charge_payment", StepError::retryable("gateway timed out").retry_after(Duration::from_hours(1)))
        .fail_next("reserve_stock", StepError::retryable("locked"));
    let started = std::time::Instant::now();
    let run = kit.run(order(&[1.0])).await.unwrap();
    assert_eq!(run.status, TaskState::Complete, "{run:?}");
    let charge = run.step("charge_payment").unwrap();
    assert_eq!((charge.attempts, charge.value::<Payment>().unwrap().attempt), (3, 3));
    assert_eq!(run.step("reserve_stock").unwrap().attempts, 2);
    assert_eq!(run.history("charge_payment").iter().filter(|kind| **kind == "retry").count(), 2);
    assert!(run.elapsed >= Duration::from_hours(1) && run.elapsed < Duration::from_secs(3_610), "{:?}", run.elapsed);
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn what_fails_for_good_ends_the_task() {
    let db = db().await;
    let kit = TestTasker::new(&orders()).on(&db.pool);
    let run = kit.run(order(&[])).await.unwrap();
    assert_eq!(run.status, TaskState::Failed);
    let cart = run.step("validate_cart").unwrap();
    assert_eq!((cart.state, cart.attempts), (StepState::Failed, 1));
    assert_eq!(cart.error.as_ref().unwrap().code.as_deref(), Some("EMPTY_CART"));
    assert_eq!(run.step("confirm").unwrap().attempts, 0);
    assert!(run.result::<String>().is_err());

    let mut kit = kit;
    for _ in 0..5 {
        kit = kit.fail_next("charge_payment", StepError::retryable("gateway timed out"));
    }
    let run = kit.run(order(&[1.0])).await.unwrap();
    assert_eq!(run.status, TaskState::Failed, "{run:?}");
    assert_eq!(run.step("charge_payment").unwrap().attempts, 5);

    let error = kit.run(serde_json::json!({"items": "none"})).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InputInvalid);
}

#[tokio::test]
async fn independent_branches_go_on_where_the_workflow_says_so() {
    let db = db().await;
    let workflow = Workflow::new("branches")
        .on_failure(OnFailure::Continue)
        .step_fn("bad", async || -> Result<(), StepError> { Err(StepError::permanent("no")) })
        .step_fn("good", async || 1)
        .step(step_fn("after_bad", async || 2).after("bad"))
        .step(step_fn("after_good", async || 3).after("good"));
    let run = TestTasker::new(&workflow).on(&db.pool).run(serde_json::json!({})).await.unwrap();
    assert_eq!(run.status, TaskState::Failed);
    let states = |name: &str| run.step(name).unwrap().state;
    assert_eq!(states("after_good"), StepState::Done);
    assert_eq!(states("after_bad"), StepState::Skipped);
}

#[tokio::test]
async fn the_run_shares_the_tests_transaction() {
    let db = db().await;
    let calls = Arc::new(AtomicU32::new(0));
    let workflow = Workflow::new("charges").step_fn(
        "charge",
        async |ctx: Ctx, State(calls): State<Arc<AtomicU32>>| -> Result<Settled<f64>, StepError> {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            let task = ctx.input().task.id.to_string();
            ctx.transaction(async |tx| {
                let total: f64 = sqlx::query_scalar("select total from orders").fetch_one(&mut *tx).await?;
                sqlx::query("insert into charge values ($1, $2)").bind(task).bind(total).execute(&mut *tx).await?;
                if call == 0 {
                    return Err(StepError::retryable("gateway timed out"));
                }
                Ok(total)
            })
            .await
        },
    );
    let mut tx = db.pool.begin().await.unwrap();
    sqlx::query("insert into orders (total) values (9.5)").execute(&mut *tx).await.unwrap();
    let kit = TestTasker::new(&workflow).with_state(Arc::clone(&calls)).on(&db.pool);
    let run = kit.run_in(&mut tx, serde_json::json!({})).await.unwrap();
    assert_eq!(run.result::<f64>().unwrap(), 9.5, "{run:?}");
    assert_eq!(run.step("charge").unwrap().attempts, 2);
    // The failed attempt's row went with its savepoint; the other one is here and nowhere else.
    let charges: i64 = sqlx::query_scalar("select count(*) from charge").fetch_one(&mut *tx).await.unwrap();
    assert_eq!(charges, 1);
    assert_eq!(db.count("charge").await, 0);
    tx.rollback().await.unwrap();
    assert_eq!(db.count("orders").await + db.count("task").await, 0);

    let mut conn = db.pool.acquire().await.unwrap();
    let error = kit.run_in(&mut conn, serde_json::json!({})).await.unwrap_err();
    assert!(error.message.contains("no transaction"), "{error}");
    drop(conn);
    assert_eq!(db.count("task").await, 0);
}

#[tokio::test]
async fn a_step_of_another_program_needs_a_function_in_its_place() {
    let db = db().await;
    let workflow = Workflow::from_yaml(
        "name: mixed\nsteps:\n  cart: { call: validate_cart }\n  ship: { call: python.ship, with: { total: cart } }\n",
        "mixed.yaml",
    )
    .unwrap();
    let kit = TestTasker::new(&workflow).handler(validate_cart).on(&db.pool);
    let error = kit.run(order(&[2.0])).await.unwrap_err();
    assert!(error.message.contains("python.ship") && error.message.contains("override_step"), "{error}");
    let run = kit
        .override_step("ship", async |ctx: Ctx| ctx.arguments().unwrap()["total"].to::<f64>().unwrap())
        .run(order(&[2.0]))
        .await
        .unwrap();
    assert_eq!(run.result::<f64>().unwrap(), 2.0, "{run:?}");
}

#[tokio::test]
async fn a_skipped_step_gives_null() {
    let db = db().await;
    let workflow = orders().step(step_fn(
        "count",
        async |lines: OptionalDep<ReserveStock>, total: Dep<ValidateCart>| match *lines {
            Some(lines) => format!("{lines} lines"),
            None => format!("unknown lines for {}", *total),
        },
    ));
    let kit = TestTasker::new(&workflow).on(&db.pool);
    let counted = kit.run(order(&[1.0])).await.unwrap();
    assert_eq!(counted.step("count").unwrap().value::<String>().unwrap(), "1 lines");
    let skipped = kit.skip(ReserveStock).run(order(&[1.0])).await.unwrap();
    assert_eq!(skipped.step("reserve_stock").unwrap().state, StepState::Skipped);
    assert_eq!(skipped.step("count").unwrap().value::<String>().unwrap(), "unknown lines for 1");
    // `confirm` takes the number itself, and null is none: it fails and says why.
    let confirm = skipped.step("confirm").unwrap();
    assert_eq!(confirm.state, StepState::Failed);
    let error = confirm.error.as_ref().unwrap();
    assert!(error.message.contains("reserve_stock"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tests_and_a_worker_share_a_database() {
    let db = db().await;
    let tasker = Tasker::connect(&db.database.engine_url()).await.unwrap().workflow(orders());
    let worker = tasker.start().await.unwrap();
    let runs = (0..8).map(|n| {
        let pool = db.pool.clone();
        tokio::spawn(async move {
            let kit = TestTasker::new(&orders()).on(&pool).fail_next("reserve_stock", StepError::retryable("locked"));
            kit.run(order(&[f64::from(n)])).await.unwrap()
        })
    });
    let runs: Vec<_> = runs.collect();
    let real = tasker.submit("orders.order_processing", order(&[100.0]));
    let real = real.await.unwrap();
    for (n, run) in runs.into_iter().enumerate() {
        let run = run.await.unwrap();
        assert_eq!(run.result::<String>().unwrap(), format!("{n} for 1 lines"), "{run:?}");
        assert_eq!(run.step("reserve_stock").unwrap().attempts, 2);
    }
    let done = real.wait_for(Duration::from_secs(20)).await.unwrap();
    assert_eq!(done.result::<String>().unwrap(), "100 for 1 lines");
    assert_eq!(db.count("task").await, 1);
    worker.drain(Duration::from_secs(1)).await;
    db.check().await;
}

#[tokio::test]
async fn a_step_that_takes_too_long_is_stopped_and_tried_again() {
    let db = db().await;
    let workflow = Workflow::new("slow").step(
        step_fn("wait", async |ctx: Ctx| {
            if ctx.attempt() == 1 {
                ctx.cancelled().await;
                tokio::time::sleep(Duration::from_mins(1)).await;
            }
            ctx.idempotency_key().to_owned()
        })
        .timeout(Duration::from_millis(50))
        .retry(2),
    );
    let run = TestTasker::new(&workflow).on(&db.pool).run(serde_json::json!({})).await.unwrap();
    assert_eq!(run.status, TaskState::Complete, "{run:?}");
    assert_eq!(run.result::<String>().unwrap(), format!("{}/wait", run.task_id));
    assert_eq!(run.step("wait").unwrap().attempts, 2);
}

#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Approval {
    approved: bool,
}

#[tasker::step]
async fn pay_back(approval: Approval) -> Result<&'static str, StepError> {
    Ok(if approval.approved { "paid" } else { "kept" })
}

fn refunds() -> Workflow {
    let approval = tasker::Wait::signal("approval").payload::<Approval>().timeout(Duration::from_hours(72));
    Workflow::new("refunds")
        .wait("cool_down", tasker::Wait::time(Duration::from_hours(24 * 365)))
        .wait("approval", approval.or(Approval { approved: false }).after("cool_down"))
        .step(pay_back)
}

#[tokio::test]
async fn waits_take_no_time_and_signals_are_sent_by_the_test() {
    let db = db().await;
    let kit = TestTasker::new(&refunds()).on(&db.pool);
    let run = kit.run(serde_json::json!({})).await.unwrap();
    assert_eq!(run.result::<String>().unwrap(), "kept", "{run:?}");
    // What the test itself takes is not among it.
    assert!(run.elapsed >= Duration::from_hours(24 * 365 + 72) - Duration::from_mins(1), "{:?}", run.elapsed);
    let run = kit.clone().signal("approval", Approval { approved: true }).run(serde_json::json!({})).await.unwrap();
    assert_eq!(run.result::<String>().unwrap(), "paid", "{run:?}");
    let wrong = kit.clone().signal("approval", 5).run(serde_json::json!({})).await.unwrap_err();
    assert!(wrong.message.contains("does not satisfy signal `approval`"), "{}", wrong.message);
    let unknown = kit.signal("aproval", 5).run(serde_json::json!({})).await.unwrap_err();
    assert!(unknown.message.contains("did you mean `approval`?"), "{}", unknown.message);
    db.check().await;
}

#[test]
fn what_a_wait_cannot_be_is_said_with_the_others() {
    let wrong = Workflow::new("wrong")
        .wait("when", tasker::Wait::until("next tuesday"))
        .wait("ever", tasker::Wait::signal("go").or(1))
        .revision()
        .unwrap_err();
    assert!(wrong.message.contains("`next tuesday` is neither a time"), "{}", wrong.message);
    assert!(wrong.message.contains("the default would never be taken"), "{}", wrong.message);
}
