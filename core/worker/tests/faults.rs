//! Connections that break, and processes that end without a word.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{DAG7, db, handler, json, ok, slots, submit};
use tasker_engine::Submission;
use tasker_worker::Options;

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_are_made_anew_and_every_task_ends() {
    let db = db().await;
    let options = Options { lease: Duration::from_secs(2), ..slots(20) };
    let worker = db
        .worker(
            DAG7,
            options,
            handler(|_| async {
                tokio::time::sleep(Duration::from_millis(3)).await;
                ok("1")
            }),
        )
        .await;
    let revision = worker.revision_id(&"dag7".parse().unwrap()).unwrap();
    let tasks: Vec<_> = (0..200).map(|_| Submission::new(revision, json("{}"))).collect();
    worker.submit(&tasks).await.unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
        )
        .execute(&db.pool)
        .await
        .unwrap();
    }
    db.until("select count(*) from tasker.task where state = 'complete'", 200).await;
    db.close(&worker).await;
}

#[test]
fn a_runtime_that_ends_without_a_drain_lets_go_of_its_leases() {
    let multi_thread = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let yaml = "{ name: w, steps: { a: { call: h } } }";
    let short = || Options { lease: Duration::from_secs(2), ..slots(1) };
    let runtime = multi_thread();
    runtime.block_on(async {
        let db = db().await;
        let url = db.database.url().to_owned();
        // A process of its own, as far as the worker can tell.
        let task = std::thread::spawn(move || {
            let runtime = multi_thread();
            let task = runtime.block_on(async {
                let engine = tasker_engine::Engine::connect(&tasker_engine::Options::new(url)).await.unwrap();
                let begun = Arc::new(tokio::sync::Notify::new());
                let told = Arc::clone(&begun);
                let hang = handler(move |_| {
                    told.notify_one();
                    std::future::pending()
                });
                let all = support::handlers(&[("h", hang)]);
                let worker =
                    tasker_worker::Worker::start(engine, vec![support::compile(yaml)], all, short()).await.unwrap();
                let task = submit(&worker, "w", "{}").await;
                // The place may be the claimer's at this moment: then the step is left in the queue and read from it.
                begun.notified().await;
                task
            });
            runtime.shutdown_timeout(Duration::from_millis(100));
            task
        })
        .join()
        .unwrap();
        let worker = db.worker(yaml, short(), handler(|_| async { ok("1") })).await;
        assert_eq!(db.ended(task).await, "complete");
        assert_eq!(db.events(task, "lease_expired").await, 1);
        db.close(&worker).await;
    });
}
