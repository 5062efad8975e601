//! Steps that wait: for a time, for a signal, for whichever comes first.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::time::Duration;

use support::*;
use tasker_engine::{Submission, pgmq};
use tasker_model::{ErrorKind, Payload, TaskId};

impl Db {
    async fn signal(&self, task: TaskId, name: &str, payload: &str) -> tasker_model::Result<Option<String>> {
        self.engine.signal(task, name, &Payload::parse(payload).unwrap(), "tester").await
    }
}

const APPROVAL: &str = "{name: refund, steps: {ask: {call: h}, approval: {after: [ask], wait: {signal: approval, payload: {type: object, required: [approved]}, timeout: 3d}}, pay: {call: h, with: {approval: approval}}}}";

#[tokio::test]
async fn a_signal_ends_the_step_that_waits_for_it_with_its_payload() {
    let db = db().await;
    let (_, revision) = db.register(APPROVAL).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let ask = hand.claim_one().await;
    hand.settle(&[done(&ask.lease, "1")]).await;
    db.internal().await;
    assert_eq!(db.steps(task).await, "done ready waiting");
    assert!(hand.claim(1).await.leased.is_empty(), "nothing to run while it waits");
    db.check().await;
    assert_eq!(db.signal(task, "approval", r#"{"approved": true}"#).await.unwrap().as_deref(), Some("approval"));
    let pay = hand.claim_one().await;
    assert_eq!(pay.results.unwrap().get(), r#"{"1": {"approved": true}}"#);
    hand.settle(&[done(&pay.lease, "1")]).await;
    assert_eq!(db.task_state(task).await, "complete");
    assert_eq!(db.count("select count(*) from tasker.timer").await, 0, "its time limit is gone with it");
    db.check().await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_and_leaves_nothing() {
    let db = db().await;
    let (_, revision) = db.register(APPROVAL).await;
    let _hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let misspelt = db.signal(task, "aproval", "{}").await.unwrap_err();
    assert_eq!(misspelt.kind, ErrorKind::Invalid);
    assert!(misspelt.message.contains("did you mean `approval`?"), "{}", misspelt.message);
    let wrong = db.signal(task, "approval", "{}").await.unwrap_err();
    assert_eq!(wrong.kind, ErrorKind::Invalid);
    assert!(wrong.message.contains("\"approved\" is a required property"), "{}", wrong.message);
    let large = format!("{{\"approved\": \"{}\"}}", "x".repeat(300_000));
    assert_eq!(db.signal(task, "approval", &large).await.unwrap_err().kind, ErrorKind::Invalid);
    let nobody = db.signal(TaskId(uuid::Uuid::nil()), "approval", "{}").await.unwrap_err();
    assert_eq!(nobody.kind, ErrorKind::NotFound);
    db.engine.cancel(task, "tester", "no more").await.unwrap();
    let late = db.signal(task, "approval", r#"{"approved": true}"#).await.unwrap_err();
    assert_eq!(late.kind, ErrorKind::Conflict, "{}", late.message);
    assert_eq!(db.count("select count(*) from tasker.signal").await, 0);
}

#[tokio::test]
async fn an_early_signal_is_kept_and_each_is_taken_once() {
    let db = db().await;
    let (_, revision) = db
        .register("{name: two, steps: {ask: {call: h}, one: {after: [ask], wait: {signal: go}}, two: {after: [one], wait: {signal: go}}, last: {call: h, with: {a: one, b: two}}}}")
        .await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    assert_eq!(db.signal(task, "go", "1").await.unwrap(), None, "kept");
    let ask = hand.claim_one().await;
    hand.settle(&[done(&ask.lease, "0")]).await;
    db.internal().await;
    assert_eq!(db.steps(task).await, "done done ready waiting");
    assert_eq!(db.signal(task, "go", "2").await.unwrap().as_deref(), Some("two"));
    let last = hand.claim_one().await;
    assert_eq!(last.results.unwrap().get(), r#"{"1": 1, "2": 2}"#);
    db.check().await;
}

#[tokio::test]
async fn a_signal_that_does_not_come_fails_the_step_or_gives_the_default() {
    let db = db().await;
    let (_, strict) = db.register(APPROVAL).await;
    let (_, lax) = db
        .register("{name: lax, steps: {approval: {wait: {signal: approval, timeout: 1h, default: {approved: false}}}, pay: {call: h, with: {approval: approval}}}}")
        .await;
    let mut hand = db.hand(&["h"]).await;
    let failing = db.submit(strict, "{}").await;
    let ask = hand.claim_one().await;
    hand.settle(&[done(&ask.lease, "1")]).await;
    let going_on = db.submit(lax, "{}").await;
    db.internal().await;
    assert_eq!(db.steps(going_on).await, "ready waiting");
    db.let_time_pass().await;
    assert_eq!(db.task_state(failing).await, "failed");
    let error = db.text("select error->>'kind' from tasker.step where task_id = $1 and idx = 1", failing).await;
    assert_eq!(error, "wait_timeout");
    assert_eq!(db.result(going_on, 0).await.as_deref(), Some(r#"{"approved": false}"#));
    assert_eq!(hand.claim_one().await.lease.task_id, going_on);
    assert_eq!(db.count("select count(*) from tasker.hold").await, 0);
    db.check().await;
}

#[tokio::test]
async fn timers_run_from_a_millisecond_to_years() {
    let db = db().await;
    let (_, revision) = db
        .register("{name: timers, steps: {short: {wait: {for: 1ms}}, long: {wait: {for: 3650d}}, at: {wait: {until: input.at}}, end: {after: [short], call: h}}}")
        .await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, r#"{"at": "2048-02-29T12:00:00+02:00"}"#).await;
    db.internal().await;
    let due = db.text("select string_agg(extract(year from due_at)::text, ' ' order by due_at) from tasker.timer where task_id = $1", task).await;
    assert!(due.ends_with("2048") && due.split(' ').count() == 3, "{due}");
    tokio::time::sleep(Duration::from_millis(5)).await;
    pgmq::publish(&db.engine, &mut hand.conn).await.unwrap();
    db.internal().await;
    let end = hand.claim_one().await;
    hand.settle(&[done(&end.lease, "1")]).await;
    assert_eq!(db.task_state(task).await, "running");
    db.check().await;
    db.engine.cancel(task, "tester", "too long").await.unwrap();
    assert_eq!(db.task_state(task).await, "cancelled", "a step that waits ends at once");
    assert_eq!(db.count("select count(*) from tasker.timer where kind = 'wait'").await, 0);
    db.check().await;
}

#[tokio::test]
async fn a_time_that_cannot_be_read_fails_the_step_and_says_what_was_found() {
    let db = db().await;
    for policy in ["fail_fast", "continue"] {
        let (compiled, revision) = db
            .register(&format!("{{name: until_{policy}, on_failure: {policy}, steps: {{order: {{call: h}}, at: {{wait: {{until: order.due}}}}, next: {{after: [at], call: h}}, other: {{after: [order], wait: {{signal: go}}}}}}}}"))
            .await;
        let mut hand = db.hand(&["h"]).await;
        assert_eq!(compiled.step_by_name("at").unwrap().parents.len(), 1, "the place of a time is an edge");
        let task = db.submit(revision, "{}").await;
        let order = hand.claim_one().await;
        hand.settle(&[done(&order.lease, r#"{"due": "2031-01-01T00:00:00Z"}"#)]).await;
        db.internal().await;
        assert_eq!(db.steps(task).await.matches("ready").count(), 2, "both wait");
        db.engine.cancel(task, "tester", "seen").await.unwrap();
        for due in ["\"tomorrow\"", "\"2030-02-30T00:00:00Z\"", "7", "null"] {
            let task = db.submit(revision, "{}").await;
            let order = hand.claim_one().await;
            hand.settle(&[done(&order.lease, &format!(r#"{{"due": {due}}}"#))]).await;
            db.internal().await;
            let error =
                db.text("select string_agg(error->>'code', ' ') from tasker.step where task_id = $1", task).await;
            assert_eq!(error, "TSK_BAD_TIME", "{due}");
            if policy == "continue" {
                assert_eq!(db.task_state(task).await, "running");
                db.signal(task, "go", "null").await.unwrap();
            }
            assert_eq!(db.task_state(task).await, "failed");
        }
        db.check().await;
    }
}

#[tokio::test]
async fn a_delayed_task_begins_to_wait_when_it_begins() {
    let db = db().await;
    let (_, revision) = db.register("{name: delayed, steps: {pause: {wait: {for: 1h}}}}").await;
    let now = tasker_engine::clock::now(&mut db.engine.open().await.unwrap(), db.engine.schema()).await.unwrap();
    let run_at = now + chrono::TimeDelta::days(1);
    let submission = Submission { run_at: Some(run_at), ..Submission::new(revision, Payload::empty_object()) };
    let task = db.submit_with(submission).await;
    db.internal().await;
    let hours = db
        .text(
            "select round(extract(epoch from due_at - now()) / 3600)::text from tasker.timer where task_id = $1",
            task,
        )
        .await;
    assert_eq!(hours, "25");
    db.check().await;
}

#[tokio::test]
async fn a_wait_in_a_branch_that_was_not_chosen_is_skipped() {
    let db = db().await;
    let (revision, id) = db
        .register("{name: choice, steps: {pick: {call: h, routes: [ask, go]}, ask: {after: [pick], wait: {signal: yes_please}}, go: {after: [pick], call: h}, end: {after: [ask, go], call: h}}}")
        .await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(id, "{}").await;
    let pick = hand.claim_one().await;
    let change = tasker_engine::Change::Decision {
        value: Payload::null(),
        routes: vec!["go".to_owned()],
        unchosen: vec![revision.step_by_name("ask").unwrap().idx],
    };
    hand.settle(&[outcome(&pick.lease, change)]).await;
    hand.drain().await;
    assert_eq!(db.task_state(task).await, "complete");
    db.check().await;
}

/// The signal and the arming of its wait are two transactions that each look for the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_signal_that_races_its_wait_is_never_lost() {
    let db = db().await;
    let (_, revision) =
        db.register("{name: race, steps: {ask: {call: h}, approval: {after: [ask], wait: {signal: go}}, end: {call: h, with: {go: approval}}}}").await;
    let mut hand = db.hand(&["h"]).await;
    for round in 0..150 {
        let task = db.submit(revision, "{}").await;
        let ask = hand.claim_one().await;
        hand.settle(&[done(&ask.lease, "1")]).await;
        let arm = async {
            tokio::time::sleep(Duration::from_micros(round % 30 * 100)).await;
            db.internal().await;
        };
        let ((), sent) = tokio::join!(arm, db.signal(task, "go", "1"));
        sent.unwrap();
        let end = hand.claim_one().await;
        assert_eq!(end.lease.task_id, task);
        hand.settle(&[done(&end.lease, "1")]).await;
    }
    assert_eq!(db.count("select count(*) from tasker.task where state <> 'complete'").await, 0);
    assert_eq!(db.count("select count(*) from tasker.signal where taken_by is null").await, 0);
    db.check().await;
}

#[tokio::test]
async fn a_first_step_waits_as_soon_as_the_task_is_made() {
    let db = db().await;
    let (_, revision) = db
        .register("{name: roots, steps: {approval: {wait: {signal: go}}, at: {wait: {until: input.at}}, end: {call: h, with: {go: approval}}}}")
        .await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, r#"{"at": "2020-01-01T00:00:00Z"}"#).await;
    assert_eq!(db.steps(task).await, "ready ready waiting");
    assert_eq!(db.signal(task, "go", "7").await.unwrap().as_deref(), Some("approval"));
    assert_eq!(hand.claim_one().await.results.unwrap().get(), r#"{"0": 7}"#);
    db.let_time_pass().await;
    assert_eq!(db.steps(task).await, "done done ready");
    let wrong = db.submit(revision, r#"{"at": "soon"}"#).await;
    assert_eq!(db.task_state(wrong).await, "failed", "at once");
    db.check().await;
}
