//! Handlers that go on as a task, or wait.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use support::*;
use tasker_engine::{Change, Claimed, Settlement};
use tasker_model::{ErrorKind, Payload};

const KID: &str = "{name: kid, steps: {a: {call: h}, b: {call: h, after: [a]}}}";

fn child(claimed: &Claimed, workflow: &str, input: &str) -> Settlement {
    let spec = Payload::parse(&format!(r#"{{"workflow": "{workflow}", "input": {input}}}"#)).unwrap();
    outcome(&claimed.lease, Change::Child { spec })
}

fn wait(claimed: &Claimed, spec: &str) -> Settlement {
    outcome(&claimed.lease, Change::Wait { spec: Payload::parse(spec).unwrap(), due_in: None })
}

#[tokio::test]
async fn a_handler_may_run_a_task_whose_end_is_its_own() {
    let db = db().await;
    let (_, parent) = db.register("{name: p, steps: {go: {call: h}, end: {call: h, with: {x: go}}}}").await;
    db.register(KID).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(parent, "{}").await;
    let go = hand.claim_one().await;
    hand.settle(&[child(&go, "default.kid", r#"{"n": 1}"#)]).await;
    db.check().await;
    assert_eq!(db.steps(task).await, "ready waiting");
    db.internal().await;
    db.check().await;
    let kid = db.child_of(task, 0).await;
    assert_eq!(db.text("select input::text from tasker.task where task_id = $1", kid).await, r#"{"n": 1}"#);
    let a = hand.claim_unvalidated().await;
    let b = hand.settle_for(&[done(&a.lease, "1")], 1).await.leased.remove(0);
    hand.settle(&[done(&b.lease, r#"{"k": 2}"#)]).await;
    db.internal().await;
    assert_eq!(hand.claim_one().await.results.unwrap().get(), r#"{"0": {"k": 2}}"#);
    assert_eq!(db.events(task).await, "submitted 0:ready 0:held 0:child_started 0:done 1:ready");
    let lost = hand.settle(&[done(&go.lease, "1")]).await;
    assert_eq!(lost.verdicts.len(), 1, "its lease ended with the outcome");
    // In a task that is ending nothing begins.
    let task = db.submit(parent, "{}").await;
    let go = hand.claim(9).await.leased.into_iter().find(|c| c.lease.task_id == task).unwrap();
    db.engine.cancel(task, "tester", "no more").await.unwrap();
    hand.settle(&[child(&go, "default.kid", "{}")]).await;
    assert_eq!(db.task_state(task).await, "cancelled");
    db.check().await;
}

#[tokio::test]
async fn a_handler_may_wait_for_a_signal_or_a_time() {
    let db = db().await;
    let (_, revision) =
        db.register("{name: p, on_failure: continue, steps: {go: {call: h}, end: {call: h, with: {x: go}}}}").await;
    let mut hand = db.hand(&["h"]).await;
    let payload = |text| Payload::parse(text).unwrap();
    // A signal.
    let task = db.submit(revision, "{}").await;
    let unknown = db.engine.signal(task, "ok", &payload("1"), "tester").await.unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::Invalid, "nobody waits for it yet");
    let go = hand.claim_one().await;
    hand.settle(&[wait(&go, r#"{"signal": "ok", "timeout_ms": 60000}"#)]).await;
    db.internal().await;
    db.check().await;
    let taken = db.engine.signal(task, "ok", &payload("5"), "tester").await.unwrap();
    assert_eq!(taken.as_deref(), Some("go"));
    let end = hand.claim_one().await;
    assert_eq!(end.results.unwrap().get(), r#"{"0": 5}"#);
    hand.settle(&[done(&end.lease, "1")]).await;
    assert_eq!(db.task_state(task).await, "complete");
    assert_eq!(db.count("select count(*) from tasker.timer").await, 0);
    // Its time is over, with a default and without.
    for (default, expected) in [(r#", "default": {"a": 1}"#, "done ready"), ("", "failed skipped")] {
        let task = db.submit(revision, "{}").await;
        let go = hand.claim_one().await;
        hand.settle(&[wait(&go, &format!(r#"{{"signal": "ok", "timeout_ms": 60000{default}}}"#))]).await;
        db.let_time_pass().await;
        assert_eq!(db.steps(task).await, expected);
        db.check().await;
        hand.drain().await;
    }
    // A moment, and a cancel of what waits for one, whose timer has fired already.
    let task = db.submit(revision, "{}").await;
    let go = hand.claim_one().await;
    hand.settle(&[wait(&go, r#"{"until": "2090-01-01T00:00:00Z"}"#)]).await;
    db.check().await;
    assert_eq!(
        db.count("select count(*) from tasker.ownerless_steps(tasker.now() + interval '1 hour')").await,
        0,
        "it is no lost step"
    );
    db.let_time_pass().await;
    assert_eq!(db.steps(task).await, "done ready");
    assert_eq!(db.result(task, 0).await.as_deref(), Some("null"));
    hand.drain().await;
    let task = db.submit(revision, "{}").await;
    let go = hand.claim_one().await;
    hand.settle(&[wait(&go, r#"{"until": "2090-01-01T00:00:00Z"}"#)]).await;
    sqlx::query("delete from tasker.timer").execute(&db.pool).await.unwrap();
    db.engine.cancel(task, "tester", "no more").await.unwrap();
    assert_eq!(db.task_state(task).await, "cancelled");
    db.check().await;
}

#[tokio::test]
async fn a_signal_that_was_kept_is_taken_by_a_handler_that_waits_for_it() {
    let db = db().await;
    let (_, revision) = db.register("{name: p, steps: {go: {call: h}, ask: {after: [go], wait: {signal: ok}}}}").await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    assert_eq!(db.engine.signal(task, "ok", &Payload::null(), "tester").await.unwrap(), None, "kept");
    let go = hand.claim_one().await;
    hand.settle(&[wait(&go, r#"{"signal": "ok"}"#)]).await;
    assert_eq!(db.steps(task).await, "done ready");
    db.check().await;
}
