//! Leases, timeouts, cancellation, the end of a worker, and the handler's own transaction.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use support::{compile, db, finished, handler, handlers, json, ok, slots, submit};
use tasker_engine::Submission;
use tasker_model::{ErrorKind, Outcome, StepFailure, TaskState};
use tasker_worker::{Handler, Options, StepContext, StopReason, TransactionError, Worker};
use tokio::sync::Notify;

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_over_its_timeout_keeps_its_slot_and_its_late_success_is_lost() {
    let db = db().await;
    let gate = Arc::new(Notify::new());
    let inner = Arc::clone(&gate);
    let worker = db
        .worker(
            "{ name: w, steps: { a: { call: h, timeout: 100ms, retry: { attempts: 2, backoff: none } } } }",
            slots(2),
            handler(move |ctx| {
                let gate = Arc::clone(&inner);
                async move {
                    if ctx.attempt() == 1 {
                        ctx.cancelled().await;
                        gate.notified().await;
                        return ok("\"late\"");
                    }
                    ok("\"second\"")
                }
            }),
        )
        .await;
    let task = submit(&worker, "w", "{}").await;
    assert_eq!(db.ended(task).await, "complete");
    assert_eq!(worker.zombies(), 1);
    // The other one may be reserved for a look at this moment.
    assert!(worker.free_slots() <= 1);
    gate.notify_one();
    while worker.free_slots() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let result: String = sqlx::query_scalar("select result::text from tasker.step where task_id = $1")
        .bind(task.0)
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(result, "\"second\"");
    let kind: String =
        sqlx::query_scalar("select error->>'kind' from tasker.event where task_id = $1 and kind = 'retry'")
            .bind(task.0)
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert_eq!(kind, "timeout");
    db.close(&worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_blocks_its_thread_is_timed_out_as_well() {
    let db = db().await;
    let worker = db
        .worker(
            "{ name: w, steps: { a: { call: h, timeout: 100ms, retry: 1 } } }",
            slots(4),
            handler(|_| async {
                std::thread::sleep(Duration::from_millis(600));
                ok("1")
            }),
        )
        .await;
    let task = submit(&worker, "w", "{}").await;
    assert_eq!(db.ended(task).await, "failed");
    assert_eq!(db.step_error(task, 0, "kind").await, "timeout");
    db.close(&worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_full_of_zombies_drains_itself() {
    let db = db().await;
    let options = Options { drain: Duration::from_millis(100), ..slots(1) };
    let worker = db
        .worker(
            "{ name: w, steps: { a: { call: h, timeout: 50ms, retry: 1 } } }",
            options,
            handler(|_| std::future::pending()),
        )
        .await;
    let task = submit(&worker, "w", "{}").await;
    assert_eq!(db.ended(task).await, "failed");
    tokio::time::timeout(support::PATIENCE, worker.stopped()).await.unwrap();
    assert_eq!(worker.stop_reason(), Some(StopReason::Zombies));
    assert_eq!(StopReason::Zombies.exit_code(), 75);
    db.hold_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_task_raises_the_token_of_its_running_handler() {
    let db = db().await;
    let worker = db
        .worker(
            "{ name: w, steps: { a: { call: h }, b: { call: h, after: [a] } } }",
            slots(2),
            handler(|ctx| async move {
                ctx.cancelled().await;
                Outcome::Cancelled
            }),
        )
        .await;
    let task = submit(&worker, "w", "{}").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    db.engine.cancel(task, "me", "a test").await.unwrap();
    let asked = tokio::time::Instant::now();
    assert_eq!(finished(&worker, task).await, TaskState::Cancelled);
    // By the notification, not by the next heartbeat.
    assert!(asked.elapsed() < Duration::from_secs(3));
    assert_eq!(db.steps(task).await, "cancelled cancelled");
    db.close(&worker).await;
}

/// Whenever the drain comes: a claim or a settle in flight may just be bringing steps, and those go back too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_drain_in_the_middle_of_everything_leaves_no_lease_behind() {
    let db = db().await;
    let yaml = "{ name: w, steps: { a: { call: h }, b: { call: h, after: [a] } } }";
    let quick = || {
        handler(|_| async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            ok("1")
        })
    };
    let mut conn = db.engine.acquire().await.unwrap();
    let revision = db.revision(yaml).await;
    for round in 0..20 {
        let many = vec![tasker_engine::Submission::new(revision, json("{}")); 200];
        db.engine.submit(&mut conn, &many, None, tasker_engine::Root::Anyone).await.unwrap();
        let worker = db.worker(yaml, slots(30), quick()).await;
        tokio::time::sleep(Duration::from_millis(7 * round)).await;
        worker.drain(Duration::from_secs(5)).await;
        for queue in db.engine.queues().await.unwrap() {
            assert_eq!(queue.leased, 0, "round {round}: {queue:?}");
        }
    }
    let last = db.worker(yaml, slots(50), quick()).await;
    db.until("select count(*) from tasker.task where finished_at is null", 0).await;
    db.close(&last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_handlers_and_gives_back_those_that_do_not_end() {
    let db = db().await;
    let first = db
        .worker(
            "{ name: w, steps: { a: { call: h } } }",
            slots(2),
            handler(|ctx| async move {
                if ctx.input().task.input.at(&["quick"]).is_some() {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    return ok("1");
                }
                std::future::pending().await
            }),
        )
        .await;
    let quick = submit(&first, "w", "{\"quick\": true}").await;
    let stuck = submit(&first, "w", "{}").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let drained = first.drain(Duration::from_millis(500)).await;
    assert_eq!(drained.released, 1);
    assert_eq!(first.stop_reason(), Some(StopReason::Drained));
    assert_eq!(db.state(quick).await, "complete");
    assert_eq!(db.state(stuck).await, "running");
    assert_eq!(first.drain(Duration::ZERO).await, drained);

    let second = db
        .worker(
            "{ name: w, steps: { a: { call: h } } }",
            slots(2),
            handler(|ctx| async move {
                // A release is not an attempt.
                assert_eq!(ctx.attempt(), 1);
                ok("1")
            }),
        )
        .await;
    assert_eq!(db.ended(stuck).await, "complete");
    assert_eq!(db.events(stuck, "released").await, 1);
    db.close(&second).await;
}

const SHOP: &str = "{ name: w, steps: { a: { call: h }, b: { call: after, after: [a] } } }";

/// Inserts a row in the step's own transaction, in the moment that the test chooses.
fn inserting(ready: Arc<Notify>, go: Arc<Notify>, commits: Arc<AtomicU32>) -> Arc<dyn Handler> {
    handler(move |ctx: StepContext| {
        let (ready, go, commits) = (Arc::clone(&ready), Arc::clone(&go), Arc::clone(&commits));
        async move {
            ready.notify_one();
            go.notified().await;
            let step = ctx.input().step.id.to_string();
            let settled = ctx
                .transaction(async |tx| {
                    sqlx::query("insert into applied (step) values ($1)").bind(&step).execute(&mut *tx).await?;
                    Ok::<_, sqlx::Error>(7)
                })
                .await;
            match settled {
                Ok(settled) => {
                    commits.fetch_add(1, Ordering::SeqCst);
                    settled.into()
                }
                Err(TransactionError::Work(error)) => Outcome::failure(StepFailure::unexpected(error.to_string())),
                Err(TransactionError::Engine(error)) => {
                    assert_eq!(error.kind, ErrorKind::LeaseLost, "{error}");
                    Outcome::failure(StepFailure::permanent("must not be reported"))
                }
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_holders_of_one_step_only_one_commits_its_rows() {
    let db = db().await;
    sqlx::raw_sql("create table applied (step text)").execute(&db.pool).await.unwrap();
    let commits = Arc::new(AtomicU32::new(0));
    let mut workers = Vec::new();
    let mut gates = Vec::new();
    for _ in 0..2 {
        let (ready, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let all = handlers(&[
            ("h", inserting(Arc::clone(&ready), Arc::clone(&go), Arc::clone(&commits))),
            (
                "after",
                handler(|ctx| async move {
                    assert_eq!(ctx.input().results["a"].get(), "7");
                    ok("2")
                }),
            ),
        ]);
        workers.push(db.worker_of(SHOP, slots(1), all).await);
        gates.push((ready, go));
    }
    let task = submit(&workers[0], "w", "{}").await;
    // Either may be faster; the lease ends by force, again where a heartbeat renewed it, and the other one reads the message.
    let (first, second) = tokio::select! {
        () = gates[0].0.notified() => (0, 1),
        () = gates[1].0.notified() => (1, 0),
    };
    let pause = Duration::from_millis(50);
    while tokio::time::timeout(pause, gates[second].0.notified()).await.is_err() {
        sqlx::query("select pgmq.set_vt('tq1_1', 1, 0)").execute(&db.pool).await.unwrap();
    }
    gates[second].1.notify_one();
    gates[first].1.notify_one();
    assert_eq!(db.ended(task).await, "complete");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let rows: i64 = sqlx::query_scalar("select count(*) from applied").fetch_one(&db.pool).await.unwrap();
    assert_eq!(rows, 1);
    assert_eq!(commits.load(Ordering::SeqCst), 1);
    assert_eq!(db.steps(task).await, "done done");
    for worker in &workers {
        db.close(worker).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_block_rolls_back_and_a_nested_transaction_is_an_error() {
    let db = db().await;
    sqlx::raw_sql("create table applied (step text)").execute(&db.pool).await.unwrap();
    let worker = db
        .worker(
            "{ name: w, steps: { a: { call: h, retry: 1 } } }",
            slots(2),
            handler(|ctx: StepContext| async move {
                let inner = ctx.clone();
                let failed = ctx
                    .transaction(async |tx| {
                        sqlx::query("insert into applied (step) values ('x')").execute(&mut *tx).await.unwrap();
                        let nested = inner.transaction(async |_| Ok::<_, ErrorKind>(1)).await;
                        assert!(matches!(nested, Err(TransactionError::Engine(_))));
                        Err::<i32, _>(ErrorKind::Permanent)
                    })
                    .await;
                assert!(matches!(failed, Err(TransactionError::Work(ErrorKind::Permanent))));
                Outcome::failure(StepFailure::permanent("as the block said"))
            }),
        )
        .await;
    let task = submit(&worker, "w", "{}").await;
    assert_eq!(db.ended(task).await, "failed");
    assert_eq!(db.step_error(task, 0, "message").await, "as the block said");
    db.until("select count(*) from applied", 0).await;
    db.close(&worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_whose_handler_this_worker_has_not_goes_back_unrun() {
    let db = db().await;
    // `other` is announced by a worker that does not live on; its steps lie in the same queue.
    let all = handlers(&[("h", handler(|_| async { ok("1") })), ("other", handler(|_| async { ok("1") }))]);
    let yaml = "{ name: w, steps: { a: { call: h }, b: { call: other } } }";
    let gone = db.worker_of(yaml, slots(1), all).await;
    gone.drain(Duration::from_secs(1)).await;

    let worker = db.worker(yaml, slots(2), handler(|_| async { ok("1") })).await;
    let task = submit(&worker, "w", "{}").await;
    db.until("select count(*) from tasker.event where kind = 'released'", 1).await;
    db.until("select count(*) from tasker.step where state = 'done'", 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(db.events(task, "released").await, 1);

    let both = db.worker_of(yaml, slots(2), handlers(&[("other", handler(|_| async { ok("1") }))])).await;
    assert_eq!(db.ended(task).await, "complete");
    db.close(&worker).await;
    db.close(&both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_raises_the_token_and_its_outcome_is_dropped() {
    let db = db().await;
    let options = Options { lease: Duration::from_secs(2), ..slots(1) };
    let (lost, ready) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, at_work) = (Arc::clone(&lost), Arc::clone(&ready));
    let worker = db
        .worker(
            "{ name: w, steps: { a: { call: h } } }",
            options,
            handler(move |ctx| {
                let (tell, at_work) = (Arc::clone(&tell), Arc::clone(&at_work));
                async move {
                    at_work.notify_one();
                    ctx.cancelled().await;
                    tell.notify_one();
                    Outcome::failure(StepFailure::permanent("must not be reported"))
                }
            }),
        )
        .await;
    let task = submit(&worker, "w", "{}").await;
    ready.notified().await;
    // Another reader took the message: the fence has moved.
    sqlx::query("update pgmq.q_tq1_1 set read_ct = read_ct + 1, vt = now() + interval '1 hour'")
        .execute(&db.pool)
        .await
        .unwrap();
    tokio::time::timeout(support::PATIENCE, lost.notified()).await.unwrap();
    worker.drain(Duration::from_secs(1)).await;
    assert_eq!(db.state(task).await, "running");
    assert_eq!(db.events(task, "failed").await, 0);
    db.hold_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_submitted_elsewhere_is_found_and_a_far_retry_comes_by_timer() {
    let db = db().await;
    let yaml = "{ name: w, steps: { a: { call: h, retry: { attempts: 2, backoff: linear, base: 2500ms } } } }";
    let worker = db
        .worker(
            yaml,
            slots(2),
            handler(|ctx| async move {
                if ctx.attempt() == 1 {
                    return Outcome::failure(StepFailure::unexpected("once"));
                }
                ok("1")
            }),
        )
        .await;
    let revision = db.revision(yaml).await;
    let mut conn = db.engine.acquire().await.unwrap();
    let task = db
        .engine
        .submit(&mut conn, &[Submission::new(revision, json("{}"))], None, tasker_engine::Root::Anyone)
        .await
        .unwrap()
        .submitted[0]
        .task_id;
    assert_eq!(db.ended(task).await, "complete");
    let late_ms: f64 = sqlx::query_scalar(
        "select extract(epoch from d.at - (r.detail->>'due_at')::timestamptz)::float8 * 1000
         from tasker.event r join tasker.event d using (task_id) where r.kind = 'retry' and d.kind = 'done' and r.task_id = $1",
    )
    .bind(task.0)
    .fetch_one(&db.pool)
    .await
    .unwrap();
    assert!(late_ms < 250.0, "{late_ms}");
    db.close(&worker).await;
}

#[tokio::test]
async fn a_worker_needs_the_schema() {
    let database = tasker_testkit::database("tasker_worker_empty", async |_| ()).await;
    let engine = tasker_engine::Engine::connect(&tasker_engine::Options::new(database.url())).await.unwrap();
    let error = Worker::start(engine, vec![compile(SHOP)], handlers(&[]), Options::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("tasker db migrate"), "{error}");
}
