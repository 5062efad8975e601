//! Events of workflows, from the builder to a subscriber.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::*;
use tasker::prelude::*;
use tasker::testing::TestTasker;
use tasker::{Event, Published};

#[tokio::test]
async fn a_subscriber_is_told_what_the_workflow_publishes() {
    let db = db().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let workflow = Workflow::new("greet")
        .namespace("shop")
        .step_fn("hello", async || 5)
        .event("greeted", Event::success_of("hello"))
        .event("all_done", Event::success());
    let tasker = Tasker::from_pool(db.pool.clone()).workflow(workflow).on("*", "log", move |event: Published| {
        let kept = Arc::clone(&kept);
        async move {
            let result: Option<u8> = event.result()?;
            kept.lock().unwrap().push((event.event.clone(), event.step.clone(), result));
            Ok(())
        }
    });
    let worker = tasker.start().await.unwrap();
    tasker.submit("shop.greet", serde_json::json!({})).await.unwrap();
    for _ in 0..1000 {
        if seen.lock().unwrap().len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut found = seen.lock().unwrap().clone();
    found.sort();
    let greeted = ("shop.greeted".to_owned(), Some("hello".to_owned()), Some(5));
    assert_eq!(found, [("shop.all_done".to_owned(), None, None), greeted]);
    worker.drain(Duration::from_secs(5)).await;
    db.check().await;
}

#[tokio::test]
async fn a_test_sees_what_a_run_published() {
    let db = db().await;
    let workflow = Workflow::new("greet")
        .step_fn("hello", async || 5)
        .event("again", Event::retry_of("hello"))
        .event("greeted", Event::success_of("hello"))
        .event("all_done", Event::success());
    let kit = TestTasker::new(&workflow).on(&db.pool).fail_next("hello", StepError::retryable("busy"));
    let run = kit.run(serde_json::json!({})).await.unwrap();
    let names: Vec<&str> = run.published.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(names, ["default.again", "default.greeted", "default.all_done"]);
    assert_eq!(run.published[0].error.as_ref().unwrap()["message"], "busy");
    assert_eq!((run.published[1].attempt, run.published[1].result::<u8>().unwrap()), (Some(2), 5));
    let kept: i64 = sqlx::query_scalar("select count(*) from tasker.publication").fetch_one(&db.pool).await.unwrap();
    assert_eq!(kept, 0, "rolled back");
}

#[tokio::test]
async fn mistakes_are_told_with_the_workflow() {
    let workflow = Workflow::new("greet")
        .step_fn("hello", async || 5)
        .event("both", Event::failure_of(["hello", "world"]))
        .event("typo", Event::retry_of("helo"))
        .event("typo", Event::success());
    let error = workflow.revision().unwrap_err();
    assert!(error.message.contains("event `both` is of 2 steps"), "{error}");
    assert!(error.message.contains("event `typo` is there twice"), "{error}");
    let error = Workflow::new("greet").step_fn("hello", async || 5).event("typo", Event::retry_of("helo"));
    assert!(error.revision().unwrap_err().message.contains("did you mean `hello`?"));
    let pool = sqlx::PgPool::connect_lazy("postgres://localhost/none").unwrap();
    let take = |_: Published| async { Ok(()) };
    let tasker =
        Tasker::from_pool(pool).on("a.b.c", "log", take).on("*", "Log", take).on("*", "x", take).on("*", "x", take);
    let error = tasker.check().unwrap_err().message;
    for part in ["`b.c` is no event name", "`Log` is no subscription name", "subscriber `x` is there twice"] {
        assert!(error.contains(part), "{error}");
    }
}
