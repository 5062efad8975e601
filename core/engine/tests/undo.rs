//! Undoing what a task did: on failure, on cancel, on demand.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::time::Duration;

use support::*;
use tasker_engine::sweep::RetryPolicies;
use tasker_engine::{CancelReply, Change, Claimed, Submission, pgmq};
use tasker_model::{ErrorKind, Payload, Result, Retry, TaskId, TaskState};

const ORDER: &str = "{name: order, input: {type: object, properties: {n: {type: integer}}}, steps: {
    reserve: {call: h, undo: u}, charge: {call: h, undo: u, retry: {attempts: 3, base: 1ms}, with: {held: reserve, n: input.n}},
    mail: {call: h, after: [charge]}, ship: {call: h, after: [mail]}}}";

impl Db {
    /// Names, states and parents of the undo steps.
    async fn undos(&self, task: TaskId) -> String {
        self.text("select string_agg(format('%s %s %s', name, state, parents), ', ' order by idx) from tasker.step where task_id = $1 and name like 'undo:%'", task)
            .await
    }

    async fn error(&self, task: TaskId) -> serde_json::Value {
        serde_json::from_str(&self.text("select error::text from tasker.task where task_id = $1", task).await).unwrap()
    }
}

impl Hand {
    /// Claims the next step, which must undo that one.
    async fn claim_undo(&mut self, name: &str) -> Claimed {
        let claimed = self.claim_one().await;
        assert_eq!(claimed.step_name.as_deref(), Some(format!("undo:{name}").as_str()));
        claimed
    }

    /// Does so many steps of a chain, with their names' numbers as results.
    async fn do_steps(&mut self, count: usize) {
        for _ in 0..count {
            let claimed = self.claim_one().await;
            self.settle(&[done(&claimed.lease, &format!(r#"{{"step": {}}}"#, claimed.lease.idx))]).await;
        }
    }
}

#[tokio::test]
async fn what_was_done_is_undone_last_first_when_a_step_fails() {
    let db = db().await;
    let (_, revision) = db.register(ORDER).await;
    let mut hand = db.hand(&["h", "u"]).await;
    let task = db.submit(revision, r#"{"n": 3}"#).await;
    hand.do_steps(3).await;
    let ship = hand.claim_one().await;
    let reply = hand.settle(&[failed(&ship.lease, "no carrier")]).await;
    assert!(reply.finished.is_empty() && reply.left == [(0, 1)], "{reply:?}");
    db.check().await;
    db.internal().await;
    assert_eq!(db.undos(task).await, "undo:charge ready {0,1}, undo:reserve waiting {0,4}");
    assert_eq!(db.task_state(task).await, "running");
    db.check().await;
    let charge = hand.claim_undo("charge").await;
    assert_eq!(
        charge.results.as_ref().unwrap().get(),
        r#"{"0": {"step": 0}, "1": {"step": 1}}"#,
        "what it did, and what it was given"
    );
    assert_eq!(charge.input.get(), r#"{"n": 3}"#);
    let reply = hand.settle_for(&[done(&charge.lease, "\"refunded\"")], 1).await;
    let reserve = &reply.leased[0];
    assert_eq!(reserve.step_name.as_deref(), Some("undo:reserve"), "handed off as any step");
    db.check().await;
    let reply = hand.settle(&[done(&reserve.lease, "null")]).await;
    assert_eq!(reply.finished[0].state, TaskState::Failed);
    let error = db.error(task).await;
    assert_eq!((error["step"].as_str(), error["message"].as_str()), (Some("ship"), Some("no carrier")), "its own");
    let events = db.events(task).await;
    assert!(events.ends_with("3:failed ending compensating 4:ready 4:done 5:ready 5:done failed"), "{events}");
    assert_eq!(db.messages().await, 0);
    db.check().await;
}

#[tokio::test]
async fn parallel_branches_are_undone_in_the_reverse_order_of_their_ends() {
    let db = db().await;
    let (_, revision) = db.register("{name: w, steps: {a: {call: h, undo: u}, b: {call: h, undo: u}, c: {call: h, undo: u, after: [a]}, d: {call: h}, end: {call: h, after: [b, c, d]}}}").await;
    let mut hand = db.hand(&["h", "u"]).await;
    let task = db.submit(revision, "{}").await;
    let roots = hand.claim(3).await.leased;
    let name_at = |idx: i32| roots.iter().find(|c| c.lease.idx == idx).unwrap().lease;
    let (revision_of, _) = db.register("{name: w, steps: {a: {call: h, undo: u}, b: {call: h, undo: u}, c: {call: h, undo: u, after: [a]}, d: {call: h}, end: {call: h, after: [b, c, d]}}}").await;
    let idx = |name: &str| revision_of.step_by_name(name).unwrap().idx;
    hand.settle(&[done(&name_at(idx("b")), "1")]).await;
    hand.settle(&[done(&name_at(idx("a")), "1")]).await;
    let c = hand.claim_one().await;
    hand.settle(&[done(&c.lease, "1")]).await;
    hand.settle(&[failed(&name_at(idx("d")), "no")]).await;
    db.internal().await;
    for name in ["c", "a", "b"] {
        let undo = hand.claim_undo(name).await;
        assert!(hand.claim(9).await.leased.is_empty(), "one after the other");
        hand.settle(&[done(&undo.lease, "1")]).await;
        db.check().await;
    }
    assert_eq!(db.task_state(task).await, "failed");
}

#[tokio::test]
async fn an_undo_is_tried_again_by_the_policy_of_its_step() {
    let db = db().await;
    let (_, revision) = db.register(ORDER).await;
    let mut hand = db.hand(&["h", "u"]).await;
    let task = db.submit(revision, "{}").await;
    hand.do_steps(3).await;
    let ship = hand.claim_one().await;
    hand.settle(&[failed(&ship.lease, "no")]).await;
    db.internal().await;
    let undo = hand.claim_undo("charge").await;
    hand.settle(&[retry(&undo.lease, Duration::ZERO)]).await;
    db.check().await;
    let undo = hand.claim_undo("charge").await;
    assert_eq!(undo.attempt, 2);
    // A worker that was told to stop meant the steps before; an undo is given back.
    hand.settle(&[cancelled(&undo.lease)]).await;
    let undo = hand.claim_undo("charge").await;
    assert_eq!(undo.attempt, 2);
    hand.settle(&[done(&undo.lease, "1")]).await;
    // What hangs is timed out, by the same policy.
    let hanging = hand.claim_undo("reserve").await;
    sqlx::query(
        "insert into tasker.lease_view values ($1, $2, $3, $4, now() - interval '1 day', now() + interval '1 hour')",
    )
    .bind(task.0)
    .bind(hanging.lease.idx)
    .bind(hanging.lease.generation)
    .bind(hand.caller.worker_id)
    .execute(&db.pool)
    .await
    .unwrap();
    let (swept, _) = db.engine.sweep(&mut hand.conn, &Policies).await.unwrap().unwrap();
    assert_eq!(swept.timed_out, 1);
    assert_eq!(
        db.text(
            "select concat_ws(' ', attempt, state) from tasker.step where task_id = $1 and name = 'undo:reserve'",
            task
        )
        .await,
        "2 ready"
    );
    db.check().await;
    pgmq::publish(&db.engine, &mut hand.conn).await.unwrap();
    let undo = hand.claim_undo("reserve").await;
    hand.settle(&[done(&undo.lease, "1")]).await;
    assert_eq!(db.task_state(task).await, "failed");
    db.check().await;
}

/// Says which step of the definition is asked for.
struct Policies;

impl RetryPolicies for Policies {
    async fn retry(&self, _: i32, idx: i32) -> Result<Retry> {
        assert_eq!(idx, 0, "the step that it undoes");
        Ok(Retry { base_ms: 1, ..Retry::default() })
    }
}

#[tokio::test]
async fn an_undo_that_fails_for_good_stops_the_others_visibly() {
    let db = db().await;
    let (_, revision) = db.register(ORDER).await;
    let mut hand = db.hand(&["h", "u"]).await;
    for cancel in [false, true] {
        let task = db.submit(revision, "{}").await;
        hand.do_steps(3).await;
        if cancel {
            db.engine.cancel(task, "tester", "no more").await.unwrap();
            let refused = hand.claim(1).await.refused.remove(0).claimed;
            hand.settle(&[cancelled(&refused.lease)]).await;
        } else {
            let ship = hand.claim_one().await;
            hand.settle(&[failed(&ship.lease, "no carrier")]).await;
        }
        db.internal().await;
        let undo = hand.claim_undo("charge").await;
        let reply = hand.settle(&[failed(&undo.lease, "the bank is closed")]).await;
        assert_eq!(reply.finished[0].state, TaskState::Failed);
        assert_eq!(db.undos(task).await, "undo:charge failed {0,1}, undo:reserve skipped {0,4}");
        let error = db.error(task).await;
        assert_eq!(error["kind"], "compensation_failed");
        assert_eq!(error["step"], "undo:charge");
        assert_eq!(error["error"]["message"], "the bank is closed");
        assert_eq!(error["cause"]["kind"], if cancel { "cancelled" } else { "permanent" });
        assert!(hand.claim(1).await.leased.is_empty());
        db.check().await;
    }
}

#[tokio::test]
async fn a_cancelled_task_is_undone_once_its_running_steps_have_stopped() {
    let db = db().await;
    let (_, revision) = db.register(ORDER).await;
    let mut hand = db.hand(&["h", "u"]).await;
    let task = db.submit(revision, "{}").await;
    hand.do_steps(2).await;
    let mail = hand.claim_one().await;
    assert_eq!(db.engine.cancel(task, "tester", "no more").await.unwrap(), CancelReply::Ending);
    db.internal().await;
    assert_eq!(db.undos(task).await, "", "one runs still");
    hand.settle(&[done(&mail.lease, "1")]).await;
    db.internal().await;
    // The last step ended well: `finish` begins to undo, not the settle.
    assert_eq!(db.undos(task).await, "undo:charge ready {0,1}, undo:reserve waiting {0,4}");
    db.check().await;
    let undo = hand.claim_undo("charge").await;
    assert_eq!(
        db.engine.cancel(task, "tester", "again").await.unwrap(),
        CancelReply::Ending,
        "it leaves an undo alone"
    );
    let beat = db.text("select stopping::text from tasker.task where task_id = $1", task).await;
    assert_eq!(beat, "false", "its worker is not told to stop");
    sqlx::query("update tasker.timer set due_at = now() - interval '1 s'").execute(&db.pool).await.unwrap();
    sqlx::query("update tasker.task set deadline = now() - interval '1 s'").execute(&db.pool).await.unwrap();
    pgmq::publish(&db.engine, &mut hand.conn).await.unwrap();
    db.internal().await;
    hand.settle(&[done(&undo.lease, "1")]).await;
    let undo = hand.claim_undo("reserve").await;
    hand.settle(&[done(&undo.lease, "1")]).await;
    assert_eq!(db.task_state(task).await, "cancelled");
    assert_eq!(db.error(task).await["message"], "cancelled: no more");
    db.check().await;
}

#[tokio::test]
async fn a_deadline_undoes_as_well() {
    let db = db().await;
    let (_, revision) = db.register(ORDER).await;
    let mut hand = db.hand(&["h", "u"]).await;
    let deadline = Some(chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::days(36_500));
    let task = db.submit_with(Submission { deadline, ..Submission::new(revision, Payload::empty_object()) }).await;
    hand.do_steps(1).await;
    sqlx::query("update tasker.task set deadline = now() - interval '1 s'").execute(&db.pool).await.unwrap();
    let refused = hand.claim(1).await.refused.remove(0).claimed;
    let error = tasker_model::StepFailure::new(ErrorKind::DeadlineExceeded, "too late");
    hand.settle(&[outcome(&refused.lease, Change::Deadline { error })]).await;
    db.internal().await;
    let undo = hand.claim_undo("reserve").await;
    hand.settle(&[done(&undo.lease, "1")]).await;
    assert_eq!(db.task_state(task).await, "failed");
    assert_eq!(db.error(task).await["kind"], "deadline_exceeded");
    db.check().await;
}

#[tokio::test]
async fn under_continue_the_other_branches_end_first() {
    let db = db().await;
    let (_, revision) = db.register("{name: w, on_failure: continue, steps: {a: {call: h, undo: u}, b: {call: h}, c: {call: h, undo: u, after: [a]}}}").await;
    let mut hand = db.hand(&["h", "u"]).await;
    for is_last in [false, true] {
        let task = db.submit(revision, "{}").await;
        let mut roots = hand.claim(2).await.leased;
        roots.sort_by_key(|c| c.lease.idx);
        let [a, b] = [0, 1].map(|at| roots[at].lease);
        hand.settle(&[done(&a, "1")]).await;
        let c = hand.claim_one().await;
        // The last to end is the one that failed, or one that is done: the soft way.
        let last =
            if is_last { [done(&c.lease, "1"), failed(&b, "no")] } else { [failed(&b, "no"), done(&c.lease, "1")] };
        for outcome in &last {
            assert_eq!(db.undos(task).await, "");
            hand.settle(std::slice::from_ref(outcome)).await;
        }
        assert_eq!(db.task_state(task).await, "running");
        db.check().await;
        db.internal().await;
        db.check().await;
        for name in ["c", "a"] {
            let undo = hand.claim_undo(name).await;
            hand.settle(&[done(&undo.lease, "1")]).await;
        }
        assert_eq!(db.task_state(task).await, "failed");
        assert_eq!(db.error(task).await["step"], "b");
        db.check().await;
    }
    // In one batch with others.
    let tasks = [db.submit(revision, "{}").await, db.submit(revision, "{}").await];
    let roots = hand.claim(4).await.leased;
    let first: Vec<_> =
        roots.iter().map(|c| if c.lease.idx == 0 { done(&c.lease, "1") } else { failed(&c.lease, "no") }).collect();
    hand.settle(&first).await;
    let last: Vec<_> = hand.claim(4).await.leased.iter().map(|c| done(&c.lease, "1")).collect();
    assert_eq!(last.len(), 2);
    let reply = hand.settle(&last).await;
    assert!(reply.finished.is_empty() && reply.left.contains(&(0, 1)), "{reply:?}");
    db.check().await;
    db.internal().await;
    hand.drain().await;
    for task in tasks {
        assert_eq!(db.task_state(task).await, "failed");
        assert_eq!(db.undos(task).await.matches("done").count(), 2);
    }
    db.check().await;
}

#[tokio::test]
async fn a_task_with_nothing_to_undo_just_ends() {
    let db = db().await;
    let (_, revision) = db.register(ORDER).await;
    let mut hand = db.hand(&["h", "u"]).await;
    let failing = db.submit(revision, "{}").await;
    let reserve = hand.claim_one().await;
    hand.settle(&[failed(&reserve.lease, "no")]).await;
    assert_eq!(db.task_state(failing).await, "failed", "at once");
    let complete = db.submit(revision, "{}").await;
    hand.do_steps(4).await;
    assert_eq!(db.task_state(complete).await, "complete");
    // Under continue a success may be the last: the soft way.
    let (_, revision) =
        db.register("{name: w, on_failure: continue, steps: {a: {call: h, undo: u}, b: {call: h}}}").await;
    let task = db.submit(revision, "{}").await;
    let mut roots = hand.claim(2).await.leased;
    roots.sort_by_key(|c| c.lease.idx);
    hand.settle(&[failed(&roots[0].lease, "no")]).await;
    hand.settle(&[done(&roots[1].lease, "1")]).await;
    db.check().await;
    db.internal().await;
    assert_eq!(db.task_state(task).await, "failed");
    assert_eq!(db.undos(task).await, "");
    db.check().await;
}

#[tokio::test]
async fn a_complete_task_is_undone_when_somebody_asks() {
    let db = db().await;
    let (_, revision) = db.register(ORDER).await;
    let (_, plain) = db.register(DAG7).await;
    let mut hand = db.hand(&["h", "u"]).await;
    let task = db.submit(revision, "{}").await;
    let said = async |task, reason| {
        db.engine.compensate(task, "tester", reason).await.map_err(|error| (error.kind, error.message))
    };
    hand.do_steps(4).await;
    assert_eq!(db.task_state(task).await, "complete");
    assert_eq!(said(task, " ").await.unwrap_err().0, ErrorKind::Invalid);
    assert_eq!(said(task, "the customer returned it").await.unwrap(), CancelReply::Ending);
    assert_eq!(said(task, "twice").await.unwrap(), CancelReply::Ending);
    db.check().await;
    db.internal().await;
    for name in ["charge", "reserve"] {
        let undo = hand.claim_undo(name).await;
        hand.settle(&[done(&undo.lease, "1")]).await;
    }
    assert_eq!(db.task_state(task).await, "cancelled");
    assert_eq!(db.error(task).await["message"], "undone: the customer returned it");
    let events = db.events(task).await;
    assert!(events.ends_with("complete reopened compensating 4:ready 4:done 5:ready 5:done cancelled"), "{events}");
    let who = db
        .text("select concat_ws(' ', actor, reason) from tasker.event where task_id = $1 and kind = 'reopened'", task)
        .await;
    assert_eq!(who, "tester the customer returned it");
    let (kind, message) = said(task, "again").await.unwrap_err();
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(message.contains("was undone before it ended as cancelled"), "{message}");
    // One that runs is cancelled, which undoes it.
    let task = db.submit(revision, "{}").await;
    hand.do_steps(1).await;
    assert_eq!(said(task, "stop").await.unwrap(), CancelReply::Ending);
    let refused = hand.claim(1).await.refused.remove(0).claimed;
    hand.settle(&[cancelled(&refused.lease)]).await;
    db.internal().await;
    let undo = hand.claim_undo("reserve").await;
    hand.settle(&[done(&undo.lease, "1")]).await;
    assert_eq!(db.task_state(task).await, "cancelled");
    // What cannot be undone.
    let task = db.submit(plain, "{}").await;
    assert_eq!(said(task, "why").await.unwrap_err().0, ErrorKind::Invalid, "no undo in its workflow");
    assert_eq!(said(TaskId(uuid::Uuid::nil()), "why").await.unwrap_err().0, ErrorKind::NotFound);
    let task = db
        .submit_with(Submission {
            skip: vec!["reserve".to_owned(), "charge".to_owned()],
            ..Submission::new(revision, Payload::empty_object())
        })
        .await;
    hand.drain().await;
    assert_eq!(db.task_state(task).await, "complete");
    let (kind, message) = said(task, "why").await.unwrap_err();
    assert!(kind == ErrorKind::Conflict && message.contains("no step with an undo was done in it"), "{message}");
    assert_eq!(db.task_state(task).await, "complete", "as it was");
    db.check().await;
}

#[tokio::test]
async fn a_child_step_is_undone_and_the_child_undoes_itself() {
    let db = db().await;
    let (_, revision) =
        db.register("{name: p, steps: {go: {child: default.kid, undo: u}, end: {call: h, after: [go]}}}").await;
    db.register("{name: kid, steps: {a: {call: h, undo: u}, b: {call: h, after: [a]}}}").await;
    let mut hand = db.hand(&["h", "u"]).await;
    for is_done in [true, false] {
        let task = db.submit(revision, "{}").await;
        db.internal().await;
        let refused = hand.claim(1).await.refused.remove(0).claimed;
        hand.settle(&[outcome(&refused.lease, Change::Validated)]).await;
        hand.do_steps(1).await;
        if is_done {
            hand.do_steps(1).await;
            db.internal().await;
            let end = hand.claim_one().await;
            hand.settle(&[failed(&end.lease, "no")]).await;
            db.internal().await;
            let undo = hand.claim_undo("go").await;
            assert_eq!(undo.results.unwrap().get(), r#"{"0": {"step": 1}}"#, "the child's output");
            hand.settle(&[done(&undo.lease, "1")]).await;
            assert_eq!(db.task_state(task).await, "failed");
        } else {
            db.engine.cancel(task, "tester", "no more").await.unwrap();
            assert_eq!(db.task_state(task).await, "cancelled");
            db.internal().await;
            let refused = hand.claim(1).await.refused.remove(0).claimed;
            hand.settle(&[cancelled(&refused.lease)]).await;
            db.internal().await;
            let undo = hand.claim_undo("a").await;
            hand.settle(&[done(&undo.lease, "1")]).await;
        }
        assert_eq!(db.count("select count(*) from tasker.task where finished_at is null").await, 0);
        db.check().await;
    }
}

/// Two processes apply what one settle left, while somebody cancels.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn undoing_begins_once() {
    let db = db().await;
    let (_, revision) = db
        .register(
            "{name: w, on_failure: continue, steps: {a: {call: h, undo: u}, b: {call: h}, c: {call: h, after: [a]}}}",
        )
        .await;
    let mut hand = db.hand(&["h", "u"]).await;
    for _ in 0..40 {
        let task = db.submit(revision, "{}").await;
        let roots = hand.claim(2).await.leased;
        let first: Vec<_> =
            roots.iter().map(|c| if c.lease.idx == 0 { done(&c.lease, "1") } else { failed(&c.lease, "no") }).collect();
        hand.settle(&first).await;
        let c = hand.claim_one().await;
        let settled = async {
            hand.settle(&[done(&c.lease, "1")]).await;
            sqlx::query("select tasker.enqueue_internal('finish', array[$1], tasker.now()) from generate_series(1, 3)")
                .bind(task.0)
                .execute(&db.pool)
                .await
                .unwrap();
            tokio::join!(db.internal(), db.internal());
        };
        let ((), cancelled) = tokio::join!(settled, db.engine.cancel(task, "tester", "race"));
        cancelled.unwrap();
        db.internal().await;
        assert!(db.undos(task).await.starts_with("undo:a ready"), "{}", db.undos(task).await);
        let undo = hand.claim_undo("a").await;
        hand.settle(&[done(&undo.lease, "1")]).await;
        assert_ne!(db.task_state(task).await, "running");
    }
    assert_eq!(db.count("select count(*) from tasker.event where kind = 'compensating'").await, 40);
    db.check().await;
}
