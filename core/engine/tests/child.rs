//! Steps that are tasks of their own, and handlers that wait or run a task.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::time::Duration;

use support::*;
use tasker_engine::{Change, Submission, pgmq};
use tasker_model::limits::CHILD_DEPTH;
use tasker_model::{Payload, Priority, TaskId};

const PARENT: &str = "{name: parent, input: {type: object, properties: {n: {type: integer}}}, steps: {first: {call: h}, ship: {child: default.kid, with: {order: first.order, n: input.n}}, last: {call: h, with: {shipped: ship}}}}";
const KID: &str = "{name: kid, steps: {a: {call: h}, b: {call: h, after: [a]}}}";

impl Db {
    async fn step_error(&self, task: TaskId) -> String {
        self.text("select coalesce(error->>'code', error->>'kind') || ': ' || (error->>'message') from tasker.step where task_id = $1 and state = 'failed' order by idx limit 1", task)
            .await
    }
}

#[tokio::test]
async fn a_childs_output_is_the_steps_result() {
    let db = db().await;
    let (_, parent) = db.register(PARENT).await;
    db.register(KID).await;
    let mut hand = db.hand(&["h"]).await;
    let submission = Submission {
        correlation_id: Some("c-1".to_owned()),
        trace: Some(Payload::parse(r#"{"traceparent": "t"}"#).unwrap()),
        priority: Some(Priority::High),
        ..Submission::new(parent, Payload::parse(r#"{"n": 7}"#).unwrap())
    };
    let task = db.submit_with(submission).await;
    let first = hand.claim_one().await;
    hand.settle(&[done(&first.lease, r#"{"order": {"id": 1.50}}"#)]).await;
    db.internal().await;
    assert_eq!(db.steps(task).await, "done ready waiting");
    db.check().await;
    let kid = db.child_of(task, 1).await;
    let said = "select concat_ws(' ', input::text, priority, correlation_id, trace->>'traceparent', depth, validated) from tasker.task where task_id = $1";
    assert_eq!(db.text(said, kid).await, r#"{"n": 7, "order": {"id": 1.50}} 2 c-1 t 1 f"#);
    assert_eq!(
        db.text("select actor from tasker.event where task_id = $1 and kind = 'submitted'", kid).await,
        task.to_string()
    );
    let a = hand.claim_unvalidated().await;
    assert_eq!(a.lease.task_id, kid);
    let b = hand.settle_for(&[done(&a.lease, "1")], 1).await.leased.remove(0);
    let reply = hand.settle(&[done(&b.lease, r#"{"label": "x"}"#)]).await;
    assert_eq!(reply.left, [(0, 1)], "the process is told to look at the internal queue");
    assert_eq!(db.steps(task).await, "done ready waiting", "by a message, not in the child's transaction");
    db.internal().await;
    assert_eq!(db.result(task, 1).await.as_deref(), Some(r#"{"label": "x"}"#));
    let last = hand.claim_one().await;
    assert_eq!(last.results.unwrap().get(), r#"{"1": {"label": "x"}}"#);
    hand.settle(&[done(&last.lease, "1")]).await;
    assert_eq!(db.task_state(task).await, "complete");
    assert_eq!(
        db.events(task).await,
        "submitted 0:ready 0:done 1:ready 1:child_started 1:done 2:ready 2:done complete"
    );
    assert_eq!(db.count("select count(*) from tasker.hold").await, 0);
    db.check().await;
}

#[tokio::test]
async fn several_sinks_give_an_object_and_a_skipped_only_sink_null() {
    let db = db().await;
    let (_, parent) = db.register("{name: p, steps: {two: {child: default.two}, none: {child: default.none}}}").await;
    db.register("{name: two, steps: {a: {call: h}, b: {call: h}, c: {call: h}}}").await;
    let (none, _) =
        db.register("{name: none, steps: {pick: {call: h, routes: [end]}, end: {call: h, after: [pick]}}}").await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(parent, "{}").await;
    db.internal().await;
    let two = db.child_of(task, 1).await;
    loop {
        let reply = hand.claim(10).await;
        let back: Vec<_> = reply.refused.iter().map(|r| outcome(&r.claimed.lease, Change::Validated)).collect();
        let ended = reply.leased.iter().map(|c| {
            if c.lease.task_id == two {
                done(&c.lease, &c.lease.idx.to_string())
            } else {
                outcome(
                    &c.lease,
                    Change::Decision {
                        value: Payload::null(),
                        routes: vec![],
                        unchosen: vec![none.step_by_name("end").unwrap().idx],
                    },
                )
            }
        });
        let all: Vec<_> = back.into_iter().chain(ended).collect();
        if all.is_empty() {
            break;
        }
        hand.settle(&all).await;
    }
    db.internal().await;
    assert_eq!(db.task_state(task).await, "complete");
    assert_eq!(db.result(task, 1).await.as_deref(), Some(r#"{"a": 0, "b": 1, "c": 2}"#));
    assert_eq!(db.result(task, 0).await.as_deref(), Some("null"));
    db.check().await;
}

#[tokio::test]
async fn a_child_that_fails_or_is_cancelled_fails_the_step_and_says_why() {
    let db = db().await;
    let (_, parent) = db.register("{name: p, on_failure: continue, steps: {one: {child: default.kid}, two: {child: default.kid}, after_one: {call: h, after: [one]}}}").await;
    db.register(KID).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(parent, "{}").await;
    db.internal().await;
    let (one, two) = (db.child_of(task, 0).await, db.child_of(task, 1).await);
    db.engine.cancel(two, "tester", "not this one").await.unwrap();
    loop {
        let reply = hand.claim(10).await;
        let back: Vec<_> = reply
            .refused
            .iter()
            .map(|r| {
                outcome(
                    &r.claimed.lease,
                    if r.claimed.lease.task_id == one {
                        Change::Validated
                    } else {
                        Change::Cancelled { error: tasker_model::StepFailure::permanent("ending") }
                    },
                )
            })
            .collect();
        let all: Vec<_> =
            back.into_iter().chain(reply.leased.iter().map(|c| failed(&c.lease, "out of stock"))).collect();
        if all.is_empty() {
            break;
        }
        hand.settle(&all).await;
    }
    db.internal().await;
    assert_eq!(db.task_state(task).await, "failed");
    let errors = db.text("select string_agg(concat_ws(' ', error->>'kind', error->>'code', error->'details'->>'task', error->>'message'), '|' order by idx) from tasker.step where task_id = $1 and state = 'failed'", task).await;
    let expected = format!(
        "permanent TSK_CHILD_FAILED {one} task {one} of workflow default.kid, the child of step `one`, failed: out of stock|\
         permanent TSK_CHILD_CANCELLED {two} task {two} of workflow default.kid, the child of step `two`, was cancelled: cancelled: not this one"
    );
    assert_eq!(errors, expected);
    assert_eq!(
        db.text("select string_agg(skipped_as, ' ') from tasker.step where task_id = $1", task).await,
        "blocked"
    );
    db.check().await;
}

#[tokio::test]
async fn what_cannot_be_started_fails_the_step() {
    let db = db().await;
    db.register(
        "{name: strict, input: {type: object, required: [n], properties: {n: {type: integer}}}, steps: {a: {call: h}}}",
    )
    .await;
    let mut hand = db.hand(&["h"]).await;
    let cases = [
        (
            "{name: unknown, steps: {go: {child: default.nowhere}}}",
            "TSK_UNKNOWN_WORKFLOW: step `go` runs workflow default.nowhere, which is not registered",
        ),
        (
            "{name: missing, steps: {f: {call: h}, go: {child: default.strict, with: {n: f.deep.n}}}}",
            "TSK_NO_VALUE: step `go` takes `n` from `f.deep.n`, which is not there",
        ),
        (
            "{name: wrong, steps: {f: {call: h}, go: {child: default.strict, with: {n: f.text}}}}",
            "TSK_CHILD_INPUT: the input of step `go` is not what workflow default.strict accepts: field \"n\" must be of type integer, not string",
        ),
        (
            "{name: large, steps: {f: {call: h}, g: {call: h}, go: {child: default.strict, with: {a: f, b: g}}}}",
            "TSK_CHILD_INPUT: the input of step `go` for workflow default.strict has 3",
        ),
        (
            "{name: nothing, steps: {go: {child: default.strict, with: {n: input.n}}}}",
            "TSK_NO_VALUE: step `go` takes `n` from `input.n`",
        ),
    ];
    for (yaml, expected) in cases {
        let (_, revision) = db.register(yaml).await;
        let task = db.submit(revision, "{}").await;
        let result =
            if yaml.contains("large") { format!("\"{}\"", "x".repeat(150_000)) } else { r#"{"text": "7"}"#.to_owned() };
        for claimed in hand.claim(5).await.leased {
            hand.settle(&[done(&claimed.lease, &result)]).await;
        }
        db.internal().await;
        assert_eq!(db.task_state(task).await, "failed", "{yaml}");
        let error = db.step_error(task).await;
        assert!(error.starts_with(expected), "{error}");
        db.check().await;
    }
    // Below null everything is null; what may be missing is left out.
    db.register("{name: lax, input: {type: object, properties: {m: {}, n: {}}}, steps: {w: {wait: {for: 1ms}}}}").await;
    let (_, revision) = db.register("{name: nulls, input: {type: object, properties: {m: {type: integer}}}, steps: {f: {call: h}, go: {child: default.lax, with: {n: f.deep.n, m: input.m}}}}").await;
    let task = db.submit(revision, "{}").await;
    let f = hand.claim_one().await;
    hand.settle(&[done(&f.lease, r#"{"deep": null}"#)]).await;
    db.internal().await;
    let kid = db.child_of(task, 1).await;
    assert_eq!(db.text("select input::text from tasker.task where task_id = $1", kid).await, r#"{"n": null}"#);
    db.let_time_pass().await;
    assert_eq!(db.task_state(task).await, "complete");
    db.check().await;
}

#[tokio::test]
async fn a_workflow_that_runs_itself_ends_at_the_deepest_level() {
    let db = db().await;
    let (_, revision) = db.register("{name: again, steps: {go: {child: default.again}}}").await;
    let task = db.submit(revision, "{}").await;
    db.internal().await;
    assert_eq!(db.task_state(task).await, "failed");
    assert_eq!(db.count("select count(*) from tasker.task").await, i64::from(CHILD_DEPTH) + 1);
    assert_eq!(db.count("select max(depth)::bigint from tasker.task").await, i64::from(CHILD_DEPTH));
    let deepest = db.count("select count(*) from tasker.step where error->>'code' = 'TSK_CHILD_DEPTH'").await;
    assert_eq!(deepest, 1);
    assert_eq!(
        db.count("select count(*) from tasker.step where error->>'code' = 'TSK_CHILD_FAILED'").await,
        i64::from(CHILD_DEPTH)
    );
    db.check().await;
}

#[tokio::test]
async fn a_child_of_a_child_gives_its_output_to_the_top() {
    let db = db().await;
    let (_, top) = db.register("{name: top, steps: {go: {child: default.mid}, end: {call: h, with: {x: go}}}}").await;
    db.register("{name: mid, steps: {go: {child: default.kid, with: {}}}}").await;
    db.register(KID).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(top, "{}").await;
    db.internal().await;
    let mid = db.child_of(task, 0).await;
    let kid = db.child_of(mid, 0).await;
    assert_eq!(db.text("select depth::text from tasker.task where task_id = $1", kid).await, "2");
    let a = hand.claim_unvalidated().await;
    let b = hand.settle_for(&[done(&a.lease, "1")], 1).await.leased.remove(0);
    hand.settle(&[done(&b.lease, "5")]).await;
    db.internal().await;
    assert_eq!(hand.claim_one().await.results.unwrap().get(), r#"{"0": 5}"#);
    db.check().await;
}

#[tokio::test]
async fn the_end_of_a_parent_cancels_its_children() {
    let db = db().await;
    let (_, top) = db.register("{name: top, steps: {go: {child: default.mid}, other: {call: h}}}").await;
    db.register("{name: mid, steps: {go: {child: default.kid}}}").await;
    db.register(KID).await;
    let mut hand = db.hand(&["h"]).await;
    for how in ["cancel", "failure", "deadline"] {
        let deadline = (how == "deadline").then(|| chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::days(36_500));
        let task = db.submit_with(Submission { deadline, ..Submission::new(top, Payload::empty_object()) }).await;
        db.internal().await;
        let mid = db.child_of(task, 0).await;
        let kid = db.child_of(mid, 0).await;
        let mut reply = hand.claim(9).await;
        let (other, waiting) = (reply.leased.remove(0), reply.refused.remove(0).claimed);
        assert_eq!((other.lease.task_id, waiting.lease.task_id), (task, kid));
        match how {
            "cancel" => drop(db.engine.cancel(task, "tester", "no more").await.unwrap()),
            "failure" => drop(hand.settle(&[failed(&other.lease, "no")]).await),
            _ => {
                sqlx::query("update tasker.task set deadline = now() - interval '1 s' where task_id = $1")
                    .bind(task.0)
                    .execute(&db.pool)
                    .await
                    .unwrap();
                sqlx::query("update tasker.timer set due_at = now() - interval '1 s' where kind = 'deadline'")
                    .execute(&db.pool)
                    .await
                    .unwrap();
                pgmq::publish(&db.engine, &mut hand.conn).await.unwrap();
            }
        }
        db.internal().await;
        hand.settle(&[cancelled(&other.lease), cancelled(&waiting.lease)]).await;
        db.internal().await;
        assert_eq!(db.task_state(task).await, if how == "cancel" { "cancelled" } else { "failed" });
        for child in [mid, kid] {
            assert_eq!(db.task_state(child).await, "cancelled", "{how}");
            let error = db.text("select error->>'message' from tasker.task where task_id = $1", child).await;
            assert!(error.starts_with("cancelled: its parent, task "), "{error}");
        }
        assert_eq!(db.count("select count(*) from tasker.hold").await, 0);
        db.check().await;
    }
}

#[tokio::test]
async fn a_child_that_ends_as_it_is_made_is_heard_of() {
    let db = db().await;
    let (_, parent) = db.register("{name: p, steps: {go: {child: default.at_once}}}").await;
    db.register("{name: at_once, steps: {at: {wait: {until: input.at}}}}").await;
    let task = db.submit(parent, "{}").await;
    db.internal().await;
    assert_eq!(db.task_state(task).await, "failed");
    assert!(db.step_error(task).await.starts_with("TSK_CHILD_FAILED"), "{}", db.step_error(task).await);
    db.check().await;
}

#[tokio::test]
async fn messages_that_are_applied_again_change_nothing() {
    let db = db().await;
    let (_, parent) = db.register("{name: p, steps: {go: {child: default.kid}}}").await;
    db.register(KID).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(parent, "{}").await;
    let again = async |kind: &str| {
        sqlx::query("select tasker.enqueue_internal($1, array[$2], tasker.now()) from generate_series(1, 3)")
            .bind(kind)
            .bind(task.0)
            .execute(&db.pool)
            .await
            .unwrap();
        db.internal().await;
    };
    again("child").await;
    again("child").await;
    again("parent").await;
    assert_eq!(db.count("select count(*) from tasker.task").await, 2, "one child");
    let a = hand.claim_unvalidated().await;
    let b = hand.settle_for(&[done(&a.lease, "1")], 1).await.leased.remove(0);
    hand.settle(&[done(&b.lease, "5")]).await;
    again("parent").await;
    again("parent").await;
    again("finish").await;
    again("cancel_child").await;
    assert_eq!(db.task_state(task).await, "complete");
    assert_eq!(db.events(task).await, "submitted 0:ready 0:child_started 0:done complete");
    db.check().await;
}

#[tokio::test]
async fn an_output_over_the_limit_fails_the_step() {
    let db = db().await;
    let branches = each(20, |n| format!("s{n}: {{call: h}}, "));
    let (_, parent) = db.register("{name: p, steps: {go: {child: default.large}}}").await;
    db.register(&format!("{{name: large, steps: {{{branches}}}}}")).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(parent, "{}").await;
    db.internal().await;
    let large = format!("\"{}\"", "x".repeat(260_000));
    for _ in 0..3 {
        let reply = hand.claim(30).await;
        for refused in reply.refused {
            hand.settle(&[outcome(&refused.claimed.lease, Change::Validated)]).await;
        }
        for claimed in reply.leased {
            hand.settle(&[done(&claimed.lease, &large)]).await;
        }
    }
    db.internal().await;
    assert_eq!(db.task_state(task).await, "failed");
    assert!(db.step_error(task).await.starts_with("context_too_large"), "{}", db.step_error(task).await);
    db.check().await;
}

/// The parent is cancelled while its child is made, and while it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_parents_end_races_its_child() {
    let db = db().await;
    let (_, parent) = db.register("{name: p, steps: {go: {child: default.kid}}}").await;
    db.register("{name: kid, steps: {w: {wait: {signal: go}}}}").await;
    for round in 0..60 {
        let task = db.submit(parent, "{}").await;
        let cancel = async {
            tokio::time::sleep(Duration::from_micros(round % 20 * 100)).await;
            db.engine.cancel(task, "tester", "race").await.unwrap();
        };
        if round % 2 == 0 {
            tokio::join!(db.internal(), db.internal(), cancel);
        } else {
            db.internal().await;
            let kid = db.child_of(task, 0).await;
            let end = async {
                // The cancel may have come first.
                drop(db.engine.signal(kid, "go", &Payload::null(), "tester").await);
                db.internal().await;
            };
            tokio::join!(end, cancel, db.internal());
        }
        db.internal().await;
        let state = db.task_state(task).await;
        assert!(state == "cancelled" || round % 2 == 1 && state == "complete", "{state}");
    }
    assert_eq!(db.count("select count(*) from tasker.task where finished_at is null").await, 0);
    assert_eq!(db.count("select count(*) from tasker.hold").await, 0);
    db.check().await;
}
