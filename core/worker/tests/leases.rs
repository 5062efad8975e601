//! Leases that heartbeats renew, workers that refuse to start, and a drain that is hurried.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use support::{compile, db, handler, handlers, ok, slots, submit};
use tasker_model::{ErrorKind, Outcome};
use tasker_worker::{Options, Worker};
use tokio::time::Instant;

const ONE: &str = "{ name: w, steps: { a: { call: h } } }";

#[tokio::test(flavor = "multi_thread")]
async fn a_step_longer_than_its_lease_runs_once_and_is_shown() {
    let db = db().await;
    let runs = Arc::new(AtomicU32::new(0));
    let options = || Options { lease: Duration::from_secs(2), ..slots(1) };
    let mut workers = Vec::new();
    for _ in 0..2 {
        let count = Arc::clone(&runs);
        let h = handler(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            async {
                // Blocks its thread: heartbeats do not depend on the handlers' runtime.
                std::thread::sleep(Duration::from_secs(5));
                ok("1")
            }
        });
        workers.push(db.worker(ONE, options(), h).await);
    }
    let task = submit(&workers[0], "w", "{}").await;
    db.until("select count(*) from tasker.lease_view", 1).await;
    assert_eq!(db.ended(task).await, "complete");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(db.events(task, "lease_expired").await, 0);
    for worker in &workers {
        db.close(worker).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_drain_without_grace_ends_the_first_ones() {
    let db = db().await;
    let h = handler(|ctx| async move {
        ctx.cancelled().await;
        Outcome::Cancelled
    });
    let worker = db.worker(ONE, slots(1), h).await;
    let task = submit(&worker, "w", "{}").await;
    let start = Instant::now();
    let first = tokio::spawn({
        let worker = worker.clone();
        async move { worker.drain(Duration::from_mins(10)).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!first.is_finished());
    worker.drain(Duration::ZERO).await;
    first.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(8));
    // Stopped without having been asked to by a cancellation: it goes back and is not an attempt.
    assert_eq!(db.state(task).await, "running");
    assert_eq!(db.events(task, "released").await, 1);
    db.hold_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_another_kind_is_refused_and_leaves_no_live_row() {
    let db = db().await;
    let worker = db.worker(ONE, slots(1), handler(|_| async { ok("1") })).await;
    let ruby = Options { kind: "ruby".to_owned(), ..slots(1) };
    let all = handlers(&[("h", handler(|_| async { ok("1") }))]);
    let error = Worker::start(db.engine.clone(), vec![compile(ONE)], all, ruby).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    db.until("select count(*) from tasker.worker where stopped_at is null", 1).await;
    db.close(&worker).await;
}
