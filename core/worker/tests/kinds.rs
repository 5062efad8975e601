//! Steps that are more than one call: decisions and checkpoints.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::*;
use tasker_model::{Checkpoint, Outcome, Payload, StepFailure};
use tasker_worker::{NOT_A_DECISION, StepContext, UNKNOWN_ROUTE};

const GATE: &str = "
name: gate
steps:
  decide: { call: decide, routes: [left, right] }
  left: { call: h, after: [decide] }
  right: { call: h, after: [decide] }
  plain: { call: h }
";

/// Runs GATE with this outcome of the decision; answers the states by idx and the code of the decision's error.
async fn gate(outcome: Outcome) -> (String, String) {
    let db = db().await;
    let decide = handler(move |_| {
        let outcome = outcome.clone();
        async move { outcome }
    });
    let all = handlers(&[("decide", decide), ("h", handler(|_| async { ok("1") }))]);
    let worker = db.worker_of(GATE, slots(4), all).await;
    let task = submit(&worker, "gate", "{}").await;
    db.ended(task).await;
    let told = (db.steps(task).await, db.step_error(task, 0, "code").await);
    db.close(&worker).await;
    told
}

fn decision(steps: &[&str]) -> Outcome {
    Outcome::Decision { steps: steps.iter().map(ToString::to_string).collect(), value: json("null") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_skips_what_it_does_not_name() {
    // decide, plain, left, right
    assert_eq!(gate(decision(&["right", "right"])).await.0, "done done skipped done");
    assert_eq!(gate(decision(&[])).await.0, "done done skipped skipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_cannot_be_carried_out_fails_its_step_by_name() {
    assert_eq!(gate(decision(&["rihgt"])).await.1, UNKNOWN_ROUTE);
    assert_eq!(gate(decision(&["plain"])).await.1, UNKNOWN_ROUTE);
    assert_eq!(gate(ok("1")).await.1, NOT_A_DECISION);
}

const LONG: &str = "name: long\nsteps: { count: { call: h, retry: { attempts: 2, base: 10ms } } }";

/// Counts to ten, a checkpoint after each; `stop` may end the attempt after one.
fn counting(
    seen: Arc<Mutex<Vec<u32>>>,
    stop: impl Fn(&StepContext, u32) -> Option<Outcome> + Send + Sync + 'static,
) -> Arc<dyn tasker_worker::Handler> {
    let stop = Arc::new(stop);
    handler(move |ctx: StepContext| {
        let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
        async move {
            let last = ctx.last_checkpoint();
            let begin: u32 = last.as_ref().map_or(0, |last| last.cursor.to().unwrap());
            let mut sum: u32 = last.and_then(|last| last.accumulated).map_or(0, |sum| sum.to().unwrap());
            for at in begin..10 {
                seen.lock().unwrap().push(at);
                sum += at;
                ctx.checkpoint(at + 1).items(u64::from(at) + 1).accumulated(sum).await.unwrap();
                if let Some(outcome) = stop(&ctx, at) {
                    return outcome;
                }
            }
            Outcome::success(Payload::from_value(&sum).unwrap())
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_goes_on_from_its_checkpoint_after_a_failure() {
    let db = db().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let fail = |ctx: &StepContext, at| {
        (ctx.attempt() == 1 && at == 4).then(|| Outcome::failure(StepFailure::unexpected("no")))
    };
    let worker = db.worker(LONG, slots(2), counting(Arc::clone(&seen), fail)).await;
    let task = submit(&worker, "long", "{}").await;
    assert_eq!(db.ended(task).await, "complete");
    assert_eq!(*seen.lock().unwrap(), (0..10).collect::<Vec<_>>(), "nothing twice, nothing left out");
    let result: String = sqlx::query_scalar("select result::text from tasker.step where task_id = $1")
        .bind(task.0)
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(result, "45");
    assert_eq!(db.events(task, "checkpoint").await, 10);
    db.close(&worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_as_outcome_gives_the_step_back_and_is_no_attempt() {
    let db = db().await;
    let runs = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&runs);
    let yielding = handler(move |ctx: StepContext| {
        let count = Arc::clone(&count);
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            assert_eq!(ctx.attempt(), 1);
            let at: u64 = ctx.last_checkpoint().map_or(0, |last| last.cursor.to().unwrap());
            if at == 7 {
                return ok("7");
            }
            Outcome::Checkpoint { cursor: Payload::from_value(&(at + 1)).unwrap(), items: at + 1, accumulated: None }
        }
    });
    let worker = db.worker(LONG, slots(2), yielding).await;
    let task = submit(&worker, "long", "{}").await;
    assert_eq!(db.ended(task).await, "complete");
    assert_eq!(runs.load(Ordering::SeqCst), 8);
    assert_eq!(db.events(task, "checkpoint").await, 7);
    db.close(&worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_goes_on_from_the_checkpoint_of_one_that_was_drained() {
    let db = db().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let stop = |ctx: &StepContext, _| {
        std::thread::sleep(Duration::from_millis(20));
        ctx.must_stop().then_some(Outcome::Cancelled)
    };
    let first = db.worker(LONG, slots(2), counting(Arc::clone(&seen), stop)).await;
    let task = submit(&first, "long", "{}").await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(db.events(task, "done").await, 0);
    db.close(&first).await;
    let second = db.worker(LONG, slots(2), counting(Arc::clone(&seen), |_, _| None)).await;
    assert_eq!(db.ended(task).await, "complete");
    assert_eq!(*seen.lock().unwrap(), (0..10).collect::<Vec<_>>());
    let attempt: i32 = sqlx::query_scalar("select attempt from tasker.step where task_id = $1")
        .bind(task.0)
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(attempt, 1);
    db.close(&second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_refused_once_the_step_is_no_longer_ours() {
    let db = db().await;
    let told = Arc::new(Mutex::new(None));
    let tell = Arc::clone(&told);
    let pool = db.pool.clone();
    let stealing = handler(move |ctx: StepContext| {
        let (tell, pool) = (Arc::clone(&tell), pool.clone());
        async move {
            if tell.lock().unwrap().is_some() {
                return ok("2");
            }
            ctx.checkpoint("mine").await.unwrap();
            // As if the lease had run out and another worker had it.
            sqlx::query("update pgmq.q_tq1_1 set read_ct = read_ct + 1, vt = now()").execute(&pool).await.unwrap();
            let error = ctx.checkpoint("no longer mine").await.unwrap_err();
            *tell.lock().unwrap() = Some(error.kind);
            ok("1")
        }
    });
    let worker = db.worker(LONG, slots(2), stealing).await;
    let task = submit(&worker, "long", "{}").await;
    assert_eq!(db.ended(task).await, "complete");
    assert_eq!(*told.lock().unwrap(), Some(tasker_model::ErrorKind::LeaseLost));
    let saved: String = sqlx::query_scalar("select checkpoint::text from tasker.step where task_id = $1")
        .bind(task.0)
        .fetch_one(&db.pool)
        .await
        .unwrap();
    let saved: Checkpoint = Payload::parse(&saved).unwrap().to().unwrap();
    assert_eq!(saved.cursor.get(), r#""mine""#);
    db.close(&worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_in_the_applications_transaction_is_saved_with_its_rows_or_not_at_all() {
    let db = db().await;
    sqlx::query("create table public.row_read (n int not null)").execute(&db.pool).await.unwrap();
    let pool = db.pool.clone();
    let reading = handler(move |ctx: StepContext| {
        let pool = pool.clone();
        async move {
            let begin: i32 = ctx.last_checkpoint().map_or(0, |last| last.cursor.to().unwrap());
            for n in begin..6 {
                let mut tx = pool.begin().await.unwrap();
                sqlx::query("insert into public.row_read values ($1)").bind(n).execute(&mut *tx).await.unwrap();
                ctx.checkpoint(n + 1).on(&mut tx).await.unwrap();
                if ctx.attempt() == 1 && n == 3 {
                    tx.rollback().await.unwrap();
                    return Outcome::failure(StepFailure::unexpected("before the commit"));
                }
                tx.commit().await.unwrap();
            }
            ok("6")
        }
    });
    let worker = db.worker(LONG, slots(2), reading).await;
    let task = submit(&worker, "long", "{}").await;
    assert_eq!(db.ended(task).await, "complete");
    let rows: String = sqlx::query_scalar("select string_agg(n::text, ' ' order by n) from public.row_read")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(rows, "0 1 2 3 4 5");
    db.close(&worker).await;
}
