//! Tasks from submit to their end through one worker.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{DAG7, db, handler, handlers, ok, slots, submit};
use tasker_engine::Submission;
use tasker_model::{Outcome, StepFailure};

#[tokio::test(flavor = "multi_thread")]
async fn seven_steps_run_in_the_order_of_their_edges() {
    let db = db().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let worker = db
        .worker(
            DAG7,
            slots(10),
            handler(move |ctx| {
                seen.lock().unwrap().push(ctx.input().step.name.clone());
                assert_eq!(ctx.attempt(), 1);
                async move { ok(&format!("{:?}", ctx.input().step.name)) }
            }),
        )
        .await;
    let task = submit(&worker, "dag7", "{}").await;
    assert_eq!(db.ended(task).await, "complete");
    let order = order.lock().unwrap().clone();
    let at = |name: &str| order.iter().position(|step| step == name).unwrap();
    assert_eq!(order.len(), 7);
    for (before, after) in
        [("s0", "s1"), ("s0", "s2"), ("s1", "s3"), ("s2", "s4"), ("s3", "s5"), ("s4", "s5"), ("s5", "s6")]
    {
        assert!(at(before) < at(after), "{order:?}");
    }
    db.close(&worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_tasks_drain_and_no_step_runs_twice() {
    let db = db().await;
    let runs = Arc::new(Mutex::new(HashMap::<String, u32>::new()));
    let running = Arc::new(AtomicU32::new(0));
    let most = Arc::new(AtomicU32::new(0));
    let (counts, now, peak) = (Arc::clone(&runs), Arc::clone(&running), Arc::clone(&most));
    let worker = db
        .worker(
            DAG7,
            slots(50),
            handler(move |ctx| {
                *counts.lock().unwrap().entry(ctx.input().step.id.to_string()).or_default() += 1;
                let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
                async move {
                    peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    ok("1")
                }
            }),
        )
        .await;
    let revision = worker.revision_id(&"dag7".parse().unwrap()).unwrap();
    let tasks: Vec<_> = (0..500).map(|_| Submission::new(revision, support::json("{}"))).collect();
    for part in tasks.chunks(100) {
        worker.submit(part).await.unwrap();
    }
    db.until("select count(*) from tasker.task where state = 'complete'", 500).await;
    let runs = runs.lock().unwrap().clone();
    assert_eq!(runs.len(), 3500);
    assert!(runs.values().all(|n| *n == 1));
    assert!(most.load(Ordering::SeqCst) <= 50);
    db.close(&worker).await;
}

const ONE: &str = "
name: one
steps:
  a: { call: h, retry: { attempts: 3, backoff: linear, base: 10ms, cap: 10ms } }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_a_failed_attempt_and_the_step_runs_again() {
    let db = db().await;
    let worker = db
        .worker(
            ONE,
            slots(2),
            handler(|ctx| async move {
                assert!(ctx.attempt() >= 2, "the first attempt breaks");
                ok("\"fine\"")
            }),
        )
        .await;
    let task = submit(&worker, "one", "{}").await;
    assert_eq!(db.ended(task).await, "complete");
    let error: String = sqlx::query_scalar(
        "select error->>'class' || ': ' || (error->>'message') from tasker.event where task_id = $1 and kind = 'retry'",
    )
    .bind(task.0)
    .fetch_one(&db.pool)
    .await
    .unwrap();
    assert_eq!(error, "panic: the first attempt breaks");
    db.close(&worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_failures_and_then_a_success() {
    let db = db().await;
    let worker = db
        .worker(
            ONE,
            slots(2),
            handler(|ctx| async move {
                assert_eq!(ctx.is_last_attempt(), ctx.attempt() == 3);
                match ctx.attempt() {
                    3 => ok("3"),
                    n => Outcome::failure(StepFailure::unexpected(format!("no {n}"))),
                }
            }),
        )
        .await;
    let task = submit(&worker, "one", "{}").await;
    assert_eq!(db.ended(task).await, "complete");
    assert_eq!(db.events(task, "retry").await, 2);
    db.close(&worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_run_out() {
    let db = db().await;
    let worker =
        db.worker(ONE, slots(2), handler(|_| async { Outcome::failure(StepFailure::unexpected("always")) })).await;
    let task = submit(&worker, "one", "{}").await;
    assert_eq!(db.ended(task).await, "failed");
    assert_eq!(db.events(task, "retry").await, 2);
    assert_eq!(db.step_error(task, 0, "message").await, "always");
    db.close(&worker).await;
}

/// `bad` fails for good; `good` and `after_good` do not depend on it, `after_bad` and `join` do.
fn branches(policy: &str) -> String {
    format!(
        "
name: branches
on_failure: {policy}
steps:
  bad: {{ call: bad }}
  good: {{ call: slow }}
  after_bad: {{ call: h, after: [bad] }}
  after_good: {{ call: h, after: [good] }}
  join: {{ call: h, after: [after_bad, after_good] }}
"
    )
}

async fn fail_under(policy: &str) -> String {
    let db = db().await;
    let all = handlers(&[
        ("h", handler(|_| async { ok("1") })),
        (
            "slow",
            handler(|_| async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                ok("1")
            }),
        ),
        ("bad", handler(|_| async { Outcome::failure(StepFailure::permanent("declined").code("CARD_DECLINED")) })),
    ]);
    let worker = db.worker_of(&branches(policy), slots(4), all).await;
    let task = submit(&worker, "branches", "{}").await;
    assert_eq!(db.ended(task).await, "failed");
    let steps: String = sqlx::query_scalar(
        "select string_agg(w.name || ' ' || s.state, ', ' order by w.name)
         from tasker.step s join tasker.task k using (task_id)
         join tasker.workflow_step w on w.revision_id = k.revision_id and w.idx = s.idx where s.task_id = $1",
    )
    .bind(task.0)
    .fetch_one(&db.pool)
    .await
    .unwrap();
    db.close(&worker).await;
    steps
}

#[tokio::test(flavor = "multi_thread")]
async fn fail_fast_cancels_what_has_not_begun() {
    assert_eq!(
        fail_under("fail_fast").await,
        "after_bad cancelled, after_good cancelled, bad failed, good done, join cancelled"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn continue_finishes_the_other_branch_and_skips_the_join() {
    assert_eq!(fail_under("continue").await, "after_bad skipped, after_good done, bad failed, good done, join skipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_result_that_the_database_refuses_does_not_harm_the_others() {
    let db = db().await;
    sqlx::raw_sql(
        "create function refuse() returns trigger language plpgsql as $$
         begin raise exception 'refused' using errcode = '22P05'; end $$;
         create trigger refuse before update on tasker.step for each row when (new.result = '\"bad\"') execute function refuse()",
    )
    .execute(&db.pool)
    .await
    .unwrap();
    let barrier = Arc::new(tokio::sync::Barrier::new(256));
    let worker = db
        .worker(
            "{ name: w, steps: { a: { call: h } } }",
            slots(256),
            handler(move |ctx| {
                let barrier = Arc::clone(&barrier);
                async move {
                    barrier.wait().await;
                    Outcome::success(ctx.input().task.input.at(&["value"]).unwrap())
                }
            }),
        )
        .await;
    let revision = worker.revision_id(&"w".parse().unwrap()).unwrap();
    let tasks: Vec<_> = (0..256)
        .map(|n| {
            let value = if n == 77 { "bad" } else { "good" };
            Submission::new(revision, support::json(&format!("{{\"value\": \"{value}\"}}")))
        })
        .collect();
    let submitted = worker.submit(&tasks).await.unwrap();
    db.until("select count(*) from tasker.task where state = 'complete'", 255).await;
    let bad = submitted[77].task_id;
    assert_eq!(db.ended(bad).await, "failed");
    assert_eq!(db.step_error(bad, 0, "kind").await, "result_rejected");
    db.close(&worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_could_not_be_stored_fails_its_step_at_once() {
    let db = db().await;
    let worker = db.worker(ONE, slots(2), handler(|_| async { ok(&format!("\"{}\"", "x".repeat(300 * 1024))) })).await;
    let task = submit(&worker, "one", "{}").await;
    assert_eq!(db.ended(task).await, "failed");
    assert_eq!(db.events(task, "retry").await, 0);
    assert_eq!(db.step_error(task, 0, "kind").await, "result_rejected");
    db.close(&worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_no_batch_cannot_divide_its_work() {
    let db = db().await;
    let worker = db.worker(ONE, slots(2), handler(|_| async { Outcome::Batches { items: 0, cursors: vec![] } })).await;
    let task = submit(&worker, "one", "{}").await;
    assert_eq!(db.ended(task).await, "failed");
    assert_eq!(db.step_error(task, 0, "code").await, tasker_worker::NOT_A_BATCH);
    db.close(&worker).await;
}

const CHECKED: &str = "
name: checked
input:
  type: object
  required: [n]
  properties: { n: { type: integer, minimum: 10 } }
steps:
  a: { call: h }
  b: { call: h, after: [a] }
";

#[tokio::test(flavor = "multi_thread")]
async fn an_input_submitted_in_sql_is_checked_before_any_handler_runs() {
    let db = db().await;
    let runs = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&runs);
    let worker = db
        .worker(
            CHECKED,
            slots(2),
            handler(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                async { ok("1") }
            }),
        )
        .await;
    let mut tasks = Vec::new();
    for n in [5, 50] {
        let id: uuid::Uuid =
            sqlx::query_scalar("select task_id from tasker.submit('checked', jsonb_build_object('n', $1::int))")
                .bind(n)
                .fetch_one(&db.pool)
                .await
                .unwrap();
        tasks.push(tasker_model::TaskId(id));
    }
    assert_eq!(db.ended(tasks[0]).await, "failed");
    assert_eq!(db.step_error(tasks[0], 0, "kind").await, "input_invalid");
    assert_eq!(db.ended(tasks[1]).await, "complete");
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    db.close(&worker).await;
}
