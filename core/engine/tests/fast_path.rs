//! Submit, claim, settle with hand-off: the way of a task that goes well.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::time::Duration;

use support::*;
use tasker_engine::{Caller, Change, Refusal, Root, Submission, Verdict, pgmq};
use tasker_model::{ErrorKind, Payload};

#[tokio::test]
async fn a_dag_runs_to_its_end_and_leaves_nothing_behind() {
    let db = db().await;
    let (_, revision) = db.register(DAG7).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, r#"{"order": 1}"#).await;
    assert_eq!(hand.drain().await, 7);
    assert_eq!(db.task_state(task).await, "complete");
    assert_eq!(db.steps(task).await, "done done done done done done done");
    assert_eq!(db.messages().await, 0);
    assert_eq!(
        db.events(task).await,
        "submitted 0:ready 0:done 1:ready 2:ready 1:done 2:done 3:ready 4:ready 3:done 4:done 5:ready 5:done 6:ready 6:done complete"
    );
    db.check().await;
}

#[tokio::test]
async fn hand_off_gives_ready_children_with_their_parents_results_to_the_caller() {
    let db = db().await;
    let (_, revision) = db.register(DAG7).await;
    let mut hand = db.hand(&["h"]).await;
    db.submit(revision, r#"{"big": 9007199254740993, "price": 1.10}"#).await;
    let root = hand.claim_one().await;
    assert_eq!(root.input.get(), r#"{"big": 9007199254740993, "price": 1.10}"#, "numbers arrive as they were sent");
    assert!(root.results.is_none());
    let reply = hand.settle_for(&[done(&root.lease, "[1, 2]")], 10).await;
    let idx: Vec<_> = reply.leased.iter().map(|c| c.lease.idx).collect();
    assert_eq!(idx, [1, 2]);
    assert_eq!(reply.leased[0].results.as_ref().unwrap().get(), r#"{"0": [1, 2]}"#);
    assert_eq!(reply.leased[0].lease.read_ct, 1, "it is leased already");
    assert!(hand.claim(10).await.leased.is_empty(), "nobody else can read it");
    db.check().await;
}

#[tokio::test]
async fn what_the_caller_cannot_take_is_left_visible_for_others() {
    let db = db().await;
    let (_, revision) = db.register(DAG7).await;
    let mut hand = db.hand(&["h"]).await;
    db.submit(revision, "{}").await;
    let root = hand.claim_one().await;
    let reply = hand.settle_for(&[done(&root.lease, "null")], 1).await;
    assert_eq!(reply.leased.len(), 1);
    assert_eq!(reply.left, [(hand.caller.queues[0], 1)]);
    let mut other = db.hand(&["h"]).await;
    assert_eq!(other.claim(10).await.leased.len(), 1);
    db.check().await;
}

#[tokio::test]
async fn settle_fills_the_remaining_slots_from_the_queue() {
    let db = db().await;
    let (_, revision) = db.register(DAG7).await;
    let mut hand = db.hand(&["h"]).await;
    for _ in 0..3 {
        db.submit(revision, "{}").await;
    }
    let root = hand.claim_one().await;
    let reply = hand.settle_and_read(&[done(&root.lease, "1")], 2, 2).await;
    assert_eq!(reply.leased.len(), 4, "two handed off, two read");
    db.check().await;
}

#[tokio::test]
async fn a_hand_off_needs_the_callers_queue_and_handler() {
    let db = db().await;
    let (_, revision) = db.register("{name: two, steps: {a: {call: one}, b: {call: other, after: [a]}, c: {call: one, queue: far, after: [a]}}}").await;
    let mut hand = db.hand(&["one"]).await;
    let mut other = db.hand(&["other"]).await;
    hand.caller.queues.truncate(1);
    db.submit(revision, "{}").await;
    let root = hand.claim_one().await;
    let reply = hand.settle_for(&[done(&root.lease, "1")], 10).await;
    assert!(reply.leased.is_empty(), "b has another handler, c another queue: {reply:?}");
    assert_eq!(reply.left.len(), 2);
    // A claim reads b all the same, since it is in a queue that this worker serves.
    let reply = hand.claim(10).await;
    assert_eq!(reply.refused[0].reason, Refusal::NoHandler);
    hand.settle(&[outcome(&reply.refused[0].claimed.lease, Change::Release { reason: "no handler" })]).await;
    assert_eq!(other.claim(10).await.leased.len(), 1);
    db.check().await;
}

#[tokio::test]
async fn a_second_settle_is_a_duplicate_and_a_stale_holder_is_lost() {
    let db = db().await;
    let (_, revision) = db.register("{name: one, steps: {a: {call: h}}}").await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    hand.caller.lease = Duration::ZERO;
    let first = hand.claim_one().await;
    let second = hand.claim_one().await;
    assert_eq!(second.lease.read_ct, 2);
    // The first result wins, even a stale holder's; the newer one is told that it lost.
    assert!(hand.settle(&[done(&first.lease, "1")]).await.verdicts.is_empty());
    assert_eq!(hand.settle(&[done(&second.lease, "2")]).await.verdicts, [(0, Verdict::Lost)]);
    assert_eq!(hand.settle(&[done(&first.lease, "1")]).await.verdicts, [(0, Verdict::Duplicate)]);
    assert_eq!(db.text("select result::text from tasker.step where task_id = $1", task).await, "1");
    assert_eq!(
        db.events(task).await,
        "submitted 0:ready 0:lease_expired 0:done complete",
        "the lost lease left a trace"
    );
    assert_eq!(db.messages().await, 0);
    db.check().await;
}

#[tokio::test]
async fn any_other_outcome_of_a_stale_holder_is_refused() {
    let db = db().await;
    let (_, revision) = db.register("{name: one, steps: {a: {call: h}}}").await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    hand.caller.lease = Duration::ZERO;
    let stale = hand.claim_one().await;
    let fresh = hand.claim_one().await;
    for wrong in [
        failed(&stale.lease, "no"),
        retry(&stale.lease, Duration::ZERO),
        outcome(&stale.lease, Change::Release { reason: "drain" }),
    ] {
        assert_eq!(hand.settle(&[wrong]).await.verdicts, [(0, Verdict::Lost)]);
    }
    assert_eq!(db.steps(task).await, "ready");
    assert!(hand.settle(&[done(&fresh.lease, "1")]).await.verdicts.is_empty());
    db.check().await;
}

#[tokio::test]
async fn roots_are_handed_to_the_submitting_worker() {
    let db = db().await;
    let (_, revision) = db.register(DAG7).await;
    let mut hand = db.hand(&["h"]).await;
    let caller = Caller { want: 1, handoff: 1, ..hand.caller.clone() };
    let tasks: Vec<_> = (0..2)
        .map(|n| Submission::new(revision, Payload::from_value(&serde_json::json!({ "n": n })).unwrap()))
        .collect();
    let reply = db.engine.submit(&mut hand.conn, &tasks, None, Root::HandOff(&caller)).await.unwrap();
    assert_eq!((reply.submitted.len(), reply.leased.len(), reply.left.len()), (2, 1, 1));
    let next = hand.settle_and_read(&[done(&reply.leased[0].lease, "1")], 100, 100).await.leased;
    assert_eq!(next.len(), 3, "two children and the other root");
    db.check().await;
}

#[tokio::test]
async fn bands_are_read_eight_to_four_to_two_to_one() {
    let db = db().await;
    let (_, revision) = db.register("{name: one, steps: {a: {call: h}}}").await;
    let mut hand = db.hand(&["h"]).await;
    for priority in [0, 1, 2, 3] {
        for _ in 0..16 {
            let mut submission = Submission::new(revision, Payload::empty_object());
            submission.priority = tasker_model::Priority::from_number(priority);
            db.submit_with(submission).await;
        }
    }
    let count = |reply: &tasker_engine::Reply, band: i16| reply.leased.iter().filter(|c| c.lease.band == band).count();
    let reply = hand.claim(15).await;
    assert_eq!([3, 2, 1, 0].map(|band| count(&reply, band)), [8, 4, 2, 1]);
    // One by one, over fifteen turns: the same shares, so nothing starves.
    let mut bands = [0; 4];
    for turn in 0..15 {
        hand.caller.turn = turn;
        bands[usize::try_from(hand.claim_one().await.lease.band).unwrap()] += 1;
    }
    assert_eq!(bands, [1, 2, 4, 8]);
    // What a band has not, the others get.
    assert_eq!(hand.claim(100).await.leased.len(), 64 - 30);
    db.check().await;
}

#[tokio::test]
async fn a_hand_off_yields_to_a_waiting_message_of_a_higher_band() {
    let db = db().await;
    let (_, revision) = db.register("{name: two, steps: {a: {call: h}, b: {call: h, after: [a]}}}").await;
    let mut hand = db.hand(&["h"]).await;
    db.submit(revision, "{}").await;
    let low = hand.claim_one().await;
    let mut urgent = Submission::new(revision, Payload::empty_object());
    urgent.priority = Some(tasker_model::Priority::High);
    let urgent = db.submit_with(urgent).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(hand.settle_for(&[done(&low.lease, "1")], 1).await.leased.is_empty());
    assert_eq!(hand.claim_one().await.lease.task_id, urgent);
    db.check().await;
}

#[tokio::test]
async fn keys_make_submits_idempotent() {
    let db = db().await;
    let (_, revision) = db.register("{name: one, steps: {a: {call: h}}}").await;
    let mut conn = db.engine.acquire().await.unwrap();
    let keyed = |input: &str| Submission {
        key: Some("order:1".into()),
        ..Submission::new(revision, Payload::parse(input).unwrap())
    };
    let first =
        db.engine.submit(&mut conn, &[keyed(r#"{"a":1,"b":2}"#)], None, Root::Anyone).await.unwrap().submitted[0];
    let again =
        db.engine.submit(&mut conn, &[keyed(r#"{"b": 2, "a": 1}"#)], None, Root::Anyone).await.unwrap().submitted[0];
    assert!(first.created && !again.created);
    assert_eq!(first.task_id, again.task_id);
    let error = db.engine.submit(&mut conn, &[keyed(r#"{"a":2}"#)], None, Root::Anyone).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(error.message.contains(&first.task_id.to_string()), "{error}");
    // Twice in one batch is the same.
    let mut other = keyed(r#"{"c":1}"#);
    other.key = Some("order:2".into());
    let both = db.engine.submit(&mut conn, &[other.clone(), other], None, Root::Anyone).await.unwrap().submitted;
    assert_eq!((both[0].task_id, both[0].created, both[1].created), (both[1].task_id, true, false));
    assert_eq!(db.count("select count(*) from tasker.task").await, 2);
    db.check().await;
}

#[tokio::test]
async fn one_key_from_thirty_callers_makes_one_task() {
    let db = db().await;
    let (_, revision) = db.register("{name: one, steps: {a: {call: h}}}").await;
    let _hand = db.hand(&["h"]).await;
    let submits = (0..30).map(|_| {
        let engine = db.engine.clone();
        async move {
            let submission = Submission { key: Some("k".into()), ..Submission::new(revision, Payload::empty_object()) };
            let mut conn = engine.acquire().await.unwrap();
            engine.submit(&mut conn, &[submission], None, Root::Anyone).await.unwrap().submitted[0]
        }
    });
    let all = futures::future::join_all(submits).await;
    assert_eq!(all.iter().filter(|s| s.created).count(), 1);
    assert!(all.iter().all(|s| s.task_id == all[0].task_id));
    assert_eq!(db.messages().await, 1);
}

#[tokio::test]
async fn a_submit_lives_and_dies_with_the_callers_transaction() {
    let db = db().await;
    let (_, revision) = db.register("{name: one, steps: {a: {call: h}}}").await;
    let mut hand = db.hand(&["h"]).await;
    let mut tx = db.pool.begin().await.unwrap();
    db.engine.submit(&mut tx, &[Submission::new(revision, Payload::empty_object())], None, Root::Anyone).await.unwrap();
    tx.rollback().await.unwrap();
    for table in
        ["select count(*) from tasker.task", "select count(*) from tasker.step", "select count(*) from tasker.event"]
    {
        assert_eq!(db.count(table).await, 0);
    }
    assert_eq!(db.messages().await, 0);
    assert!(hand.claim(1).await.leased.is_empty());
}

#[tokio::test]
async fn skipped_steps_give_their_dependents_null() {
    let db = db().await;
    let (_, revision) = db.register(DAG7).await;
    let mut hand = db.hand(&["h"]).await;
    let mut submission = Submission::new(revision, Payload::empty_object());
    submission.skip = vec!["s0".into(), "s6".into()];
    let task = db.submit_with(submission).await;
    assert_eq!(db.steps(task).await, "skipped ready ready waiting waiting waiting skipped");
    db.check().await;
    let first = hand.claim(10).await.leased;
    assert_eq!(first[0].results.as_ref().unwrap().get(), r#"{"0": null}"#);
    let outcomes: Vec<_> = first.iter().map(|c| done(&c.lease, "1")).collect();
    let next = hand.settle_for(&outcomes, 10).await.leased;
    let outcomes: Vec<_> = next.iter().map(|c| done(&c.lease, "1")).collect();
    let last = hand.settle_for(&outcomes, 10).await.leased;
    assert_eq!(last.len(), 1);
    let reply = hand.settle_for(&[done(&last[0].lease, "1")], 10).await;
    assert_eq!(reply.finished.len(), 1, "s6 was the sink and is skipped: {}", db.steps(task).await);
    db.check().await;
}

#[tokio::test]
async fn a_message_of_an_unknown_handler_is_refused_under_its_lease() {
    let db = db().await;
    let (_, revision) = db.register("{name: one, steps: {a: {call: h}}}").await;
    let _maker = db.hand(&["h"]).await;
    let mut stranger = db.hand(&["h"]).await;
    stranger.caller.handlers = vec![];
    db.submit(revision, "{}").await;
    let reply = stranger.claim(1).await;
    assert_eq!(reply.refused[0].reason, Refusal::NoHandler);
    let released = outcome(&reply.refused[0].claimed.lease, Change::Release { reason: "no handler" });
    assert!(stranger.settle(&[released]).await.verdicts.is_empty());
    stranger.caller.exclude = vec![reply.refused[0].claimed.handler_id];
    assert!(stranger.claim(1).await.refused.is_empty(), "left out of the next claims");
    let mut able = db.hand(&["h"]).await;
    assert_eq!(able.claim_one().await.attempt, 1, "a release is not an attempt");
    db.check().await;
}

#[tokio::test]
async fn one_call_answers_with_four_mebibytes_of_context_at_most() {
    let db = db().await;
    let (_, revision) = db.register("{name: one, steps: {a: {call: h}}}").await;
    let mut hand = db.hand(&["h"]).await;
    let input = format!(r#"{{"x":"{}"}}"#, "x".repeat(250_000));
    for _ in 0..20 {
        db.submit(revision, &input).await;
    }
    let reply = hand.claim(20).await;
    assert_eq!(reply.leased.len(), 16);
    assert!(reply.refused.iter().all(|r| r.reason == Refusal::Overflow));
    let back: Vec<_> =
        reply.refused.iter().map(|r| outcome(&r.claimed.lease, Change::Release { reason: "overflow" })).collect();
    assert!(hand.settle(&back).await.verdicts.is_empty());
    assert_eq!(pgmq::depth(&db.engine, &mut hand.conn, hand.caller.queues[0]).await.unwrap().visible, 4);
    db.check().await;
}
