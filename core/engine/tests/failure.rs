//! Retries, timers, failures under both policies, cancellation, deadlines, poison.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::time::Duration;

use support::*;
use tasker_engine::{CancelReply, Change, Refusal, Submission, Verdict, pgmq};
use tasker_model::outcome::StepFailure;
use tasker_model::{ErrorKind, Payload, TaskState};

const ONE: &str = "{name: one, steps: {a: {call: h}}}";
/// a -> b -> d, a -> c -> d, and e alone.
const FORK: &str = "
name: fork
steps:
  a: { call: h }
  b: { call: h, after: [a] }
  c: { call: h, after: [a] }
  d: { call: h, after: [b, c] }
  e: { call: h }
";

#[tokio::test]
async fn a_retry_that_is_due_soon_waits_in_the_queue() {
    let db = db().await;
    let (_, revision) = db.register(ONE).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let first = hand.claim_one().await;
    hand.settle(&[retry(&first.lease, Duration::from_millis(300))]).await;
    assert!(hand.claim(1).await.leased.is_empty(), "not yet due");
    db.check().await;
    tokio::time::sleep(Duration::from_millis(350)).await;
    let second = hand.claim_one().await;
    assert_eq!(
        (second.attempt, second.lease.read_ct, second.lease.generation),
        (2, 1, 0),
        "a new message, not a redelivery"
    );
    hand.settle(&[done(&second.lease, "1")]).await;
    assert_eq!(db.events(task).await, "submitted 0:ready 0:retry 0:done complete");
    assert_eq!(
        db.text("select error->>'message' from tasker.event where task_id = $1 and kind = 'retry'", task).await,
        "try again"
    );
    assert_eq!(
        db.text("select coalesce(error::text, 'none') from tasker.step where task_id = $1", task).await,
        "none",
        "a success clears it"
    );
    db.check().await;
}

#[tokio::test]
async fn a_retry_that_is_due_later_is_a_timer() {
    let db = db().await;
    let (_, revision) = db.register(ONE).await;
    let mut hand = db.hand(&["h"]).await;
    db.submit(revision, "{}").await;
    let first = hand.claim_one().await;
    hand.settle(&[retry(&first.lease, Duration::from_mins(1))]).await;
    assert_eq!(db.messages().await, 0, "the queue holds only what may run soon");
    db.check().await;
    let reply = pgmq::publish(&db.engine, &mut hand.conn).await.unwrap();
    let next = reply.next_timer.unwrap();
    assert!((59_000..=60_000).contains(&next.as_millis()), "{next:?}");
    sqlx::query("update tasker.timer set due_at = now()").execute(&db.pool).await.unwrap();
    let reply = pgmq::publish(&db.engine, &mut hand.conn).await.unwrap();
    assert_eq!((reply.left.len(), reply.next_timer), (1, None));
    assert_eq!(hand.claim_one().await.attempt, 2);
    db.check().await;
}

#[tokio::test]
async fn a_task_may_begin_later() {
    let db = db().await;
    let (_, revision) = db.register(ONE).await;
    let mut hand = db.hand(&["h"]).await;
    let mut later = Submission::new(revision, Payload::empty_object());
    later.run_at = Some(sqlx::query_scalar("select now() + interval '1 hour'").fetch_one(&db.pool).await.unwrap());
    db.submit_with(later).await;
    assert_eq!(db.messages().await, 0);
    db.check().await;
    sqlx::query("update tasker.timer set due_at = now()").execute(&db.pool).await.unwrap();
    pgmq::publish(&db.engine, &mut hand.conn).await.unwrap();
    assert_eq!(hand.claim_one().await.attempt, 1);
}

#[tokio::test]
async fn a_timeout_raises_gen_so_that_its_late_success_is_lost() {
    let db = db().await;
    let (_, revision) = db.register(ONE).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let first = hand.claim_one().await;
    let timeout = Change::Retry { error: StepFailure::timeout(Duration::from_secs(1)), delay: Duration::ZERO };
    hand.settle(&[outcome(&first.lease, timeout)]).await;
    assert_eq!(hand.settle(&[done(&first.lease, "1")]).await.verdicts, [(0, Verdict::Lost)]);
    let second = hand.claim_one().await;
    assert_eq!((second.attempt, second.lease.generation), (2, 1));
    hand.settle(&[done(&second.lease, "2")]).await;
    assert_eq!(db.task_state(task).await, "complete");
    db.check().await;
}

#[tokio::test]
async fn fail_fast_lets_running_steps_end_and_cancels_the_rest() {
    let db = db().await;
    let (_, revision) = db.register(FORK).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let roots = hand.claim(2).await.leased;
    let (a, e) = (roots[0].clone(), roots[1].clone());
    let next = hand.settle_for(&[done(&a.lease, "1")], 1).await.leased;
    assert_eq!(next.len(), 1, "b runs, c waits in the queue");
    hand.settle(&[failed(&next[0].lease, "broken")]).await;
    assert_eq!(db.task_state(task).await, "running", "e and c are still to end");
    db.check().await;
    let reply = hand.claim(10).await;
    assert_eq!(reply.refused[0].reason, Refusal::Cancelled, "the claim that reads c cancels it");
    hand.settle(&[cancelled(&reply.refused[0].claimed.lease)]).await;
    let reply = hand.settle(&[done(&e.lease, "5")]).await;
    assert_eq!(reply.finished[0].state, TaskState::Failed);
    assert_eq!(db.text("select string_agg(w.name || ':' || s.state, ' ' order by w.name) from tasker.step s join tasker.task k using (task_id) join tasker.workflow_step w on w.revision_id = k.revision_id and w.idx = s.idx where s.task_id = $1", task).await,
        "a:done b:failed c:cancelled d:cancelled e:done");
    assert_eq!(db.text("select error->>'step' from tasker.task where task_id = $1", task).await, "b");
    assert_eq!(db.messages().await, 0);
    db.check().await;
}

#[tokio::test]
async fn continue_finishes_independent_branches_and_skips_dependents() {
    let db = db().await;
    let (_, revision) = db.register(&format!("on_failure: continue{FORK}")).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let roots = hand.claim(2).await.leased;
    let reply = hand.settle_for(&[failed(&roots[0].lease, "broken")], 10).await;
    assert!(reply.leased.is_empty());
    db.check().await;
    let reply = hand.settle(&[done(&roots[1].lease, "5")]).await;
    assert_eq!(reply.finished[0].state, TaskState::Failed, "one step failed, so the task did");
    assert!(db.steps(task).await.contains("failed") && db.steps(task).await.matches("skipped").count() == 3);
    assert_eq!(db.text("select error->>'step' from tasker.task where task_id = $1", task).await, "a");
    db.check().await;
}

#[tokio::test]
async fn continue_skips_a_join_whose_other_parent_succeeds_later() {
    let db = db().await;
    let (_, revision) = db.register(&format!("on_failure: continue{FORK}")).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let roots = hand.claim(2).await.leased;
    let branches = hand.settle_for(&[done(&roots[0].lease, "1"), done(&roots[1].lease, "5")], 2).await.leased;
    hand.settle(&[failed(&branches[0].lease, "broken")]).await;
    db.check().await;
    // A success never cascades: the join stays waiting and the internal queue owns the task until it is applied.
    let reply = hand.settle(&[done(&branches[1].lease, "1")]).await;
    assert!(reply.finished.is_empty());
    assert!(db.steps(task).await.contains("waiting"));
    db.check().await;
    db.internal().await;
    assert_eq!(db.task_state(task).await, "failed");
    assert_eq!(db.messages().await, 0);
    db.check().await;
}

#[tokio::test]
async fn several_failures_and_successes_of_one_task_may_come_in_one_batch() {
    for policy in ["fail_fast", "continue"] {
        let db = db().await;
        let wide = each(20, |n| format!("  w{n}: {{ call: h, after: [root] }}\n"));
        let (_, revision) =
            db.register(&format!("name: wide\non_failure: {policy}\nsteps:\n  root: {{ call: h }}\n{wide}")).await;
        let mut hand = db.hand(&["h"]).await;
        let task = db.submit(revision, "{}").await;
        let root = hand.claim_one().await;
        let all = hand.settle_for(&[done(&root.lease, "1")], 30).await.leased;
        assert_eq!(all.len(), 20);
        let outcomes: Vec<_> = all
            .iter()
            .enumerate()
            .map(|(n, c)| match n % 3 {
                0 => failed(&c.lease, "broken"),
                1 => done(&c.lease, "1"),
                _ => retry(&c.lease, Duration::ZERO),
            })
            .collect();
        let reply = hand.settle(&outcomes).await;
        assert!(reply.verdicts.is_empty(), "{reply:?}");
        db.check().await;
        // What was to be retried goes on under `continue`; under `fail_fast` the claim finds the task ending.
        let rest = hand.claim(30).await;
        let mut outcomes: Vec<_> = rest.leased.iter().map(|c| done(&c.lease, "1")).collect();
        outcomes.extend(rest.refused.iter().map(|r| cancelled(&r.claimed.lease)));
        assert_eq!((rest.leased.len(), rest.refused.len()), if policy == "continue" { (6, 0) } else { (0, 6) });
        hand.settle(&outcomes).await;
        assert_eq!(db.task_state(task).await, "failed", "{policy}");
        assert_eq!(db.messages().await, 0);
        db.check().await;
    }
}

#[tokio::test]
async fn a_retry_in_an_ending_task_is_final() {
    let db = db().await;
    let (_, revision) = db.register(FORK).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let roots = hand.claim(2).await.leased;
    hand.settle(&[failed(&roots[0].lease, "broken")]).await;
    let reply = hand.settle(&[retry(&roots[1].lease, Duration::ZERO)]).await;
    assert_eq!(reply.finished[0].state, TaskState::Failed);
    assert_eq!(db.steps(task).await.matches("failed").count(), 2);
    db.check().await;
}

#[tokio::test]
async fn cancel_stops_what_waits_and_asks_what_runs() {
    let db = db().await;
    let (_, revision) = db.register(DAG7).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let root = hand.claim_one().await;
    assert_eq!(db.engine.cancel(task, "ann", "wrong order").await.unwrap(), CancelReply::Ending);
    assert_eq!(db.engine.cancel(task, "ann", "again").await.unwrap(), CancelReply::Ending, "idempotent");
    db.check().await;
    let beats = [tasker_engine::Beat { lease: root.lease, running: Duration::from_secs(1) }];
    let answers =
        pgmq::extend(&db.engine, &mut hand.conn, hand.caller.worker_id, None, &beats, Duration::from_secs(30))
            .await
            .unwrap();
    assert_eq!(answers, [tasker_engine::BeatAnswer::Cancel(0)]);
    let reply = hand.settle(&[cancelled(&root.lease)]).await;
    assert_eq!(reply.finished[0].state, TaskState::Cancelled);
    assert_eq!(db.engine.cancel(task, "ann", "too late").await.unwrap(), CancelReply::Ended(TaskState::Cancelled));
    assert_eq!(
        db.text("select actor || ': ' || reason from tasker.event where task_id = $1 and kind = 'ending'", task).await,
        "ann: wrong order"
    );
    db.check().await;
}

#[tokio::test]
async fn cancel_ends_a_task_that_waits_for_a_timer_at_once() {
    let db = db().await;
    let (_, revision) = db.register(ONE).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let first = hand.claim_one().await;
    hand.settle(&[retry(&first.lease, Duration::from_mins(10))]).await;
    assert_eq!(db.engine.cancel(task, "ann", "no more").await.unwrap(), CancelReply::Ended(TaskState::Cancelled));
    assert_eq!(db.count("select count(*) from tasker.timer where kind = 'run'").await, 0);
    db.check().await;
}

#[tokio::test]
async fn what_does_not_stop_within_the_grace_is_cut_off() {
    let db = db().await;
    let (_, revision) = db.register(DAG7).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let root = hand.claim_one().await;
    db.engine.cancel(task, "ann", "stop").await.unwrap();
    sqlx::query("update tasker.timer set due_at = now()").execute(&db.pool).await.unwrap();
    pgmq::publish(&db.engine, &mut hand.conn).await.unwrap();
    db.internal().await;
    assert_eq!(db.task_state(task).await, "cancelled");
    assert_eq!(hand.settle(&[done(&root.lease, "1")]).await.verdicts, [(0, Verdict::Lost)]);
    db.check().await;
}

#[tokio::test]
async fn a_deadline_fails_the_task() {
    let db = db().await;
    let (_, revision) = db.register(DAG7).await;
    let mut hand = db.hand(&["h"]).await;
    let mut submission = Submission::new(revision, Payload::empty_object());
    submission.deadline =
        Some(sqlx::query_scalar("select now() + interval '200 milliseconds'").fetch_one(&db.pool).await.unwrap());
    let by_timer = db.submit_with(submission.clone()).await;
    let running = hand.claim_one().await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    pgmq::publish(&db.engine, &mut hand.conn).await.unwrap();
    db.internal().await;
    db.check().await;
    let reply = hand.settle(&[done(&running.lease, "1")]).await;
    assert_eq!(reply.finished[0].state, TaskState::Failed);
    assert_eq!(
        db.text("select error->>'kind' from tasker.task where task_id = $1", by_timer).await,
        "deadline_exceeded"
    );
    // A claim that comes before the pump sees it too.
    let by_claim = db.submit_with(submission).await;
    let reply = hand.claim(1).await;
    assert_eq!(reply.refused[0].reason, Refusal::Deadline);
    let error = StepFailure::new(ErrorKind::DeadlineExceeded, "too late");
    let reply = hand.settle(&[outcome(&reply.refused[0].claimed.lease, Change::Deadline { error })]).await;
    assert_eq!(reply.finished[0].state, TaskState::Failed);
    assert_eq!(db.task_state(by_claim).await, "failed");
    db.check().await;
}

#[tokio::test]
async fn a_message_delivered_too_often_is_poison() {
    let db = db().await;
    let (_, revision) = db.register(ONE).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    hand.caller.lease = Duration::ZERO;
    for delivery in 1..=6 {
        assert_eq!(hand.claim_one().await.lease.read_ct, delivery);
    }
    let reply = hand.claim(1).await;
    assert_eq!(reply.refused[0].reason, Refusal::Poison);
    let error = StepFailure::new(ErrorKind::Poison, "six deliveries ended with no outcome");
    hand.settle(&[outcome(&reply.refused[0].claimed.lease, Change::Failure { error })]).await;
    assert_eq!(db.task_state(task).await, "failed");
    assert_eq!(db.events(task).await.matches("lease_expired").count(), 6, "each of them left a trace");
    db.check().await;
}

#[tokio::test]
async fn an_input_that_was_never_validated_is_validated_by_the_first_claim() {
    let db = db().await;
    db.register("{name: one, input: {type: object, properties: {n: {type: integer, minimum: 1}}, required: [n]}, steps: {a: {call: h}}}").await;
    let mut hand = db.hand(&["h"]).await;
    for (n, state) in [(1, "complete"), (0, "failed")] {
        let task: uuid::Uuid =
            sqlx::query_scalar("select task_id from tasker.submit('one', jsonb_build_object('n', $1::int))")
                .bind(n)
                .fetch_one(&db.pool)
                .await
                .unwrap();
        let refused = hand.claim(1).await.refused.remove(0);
        assert_eq!(refused.reason, Refusal::Unvalidated);
        let change = if n == 1 {
            Change::Validated
        } else {
            Change::InputInvalid { error: StepFailure::new(ErrorKind::InputInvalid, "n is too small") }
        };
        let reply = hand.settle_for(&[outcome(&refused.claimed.lease, change)], 1).await;
        if n == 1 {
            hand.settle(&[done(&reply.leased[0].lease, "1")]).await;
        } else {
            assert!(reply.leased.is_empty());
        }
        assert_eq!(db.task_state(tasker_model::TaskId(task)).await, state);
    }
    db.check().await;
}

#[tokio::test]
async fn a_paused_task_is_held_by_the_claim_that_reads_it() {
    let db = db().await;
    let (_, revision) = db.register(ONE).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    sqlx::query("update tasker.task set paused = true").execute(&db.pool).await.unwrap();
    let refused = hand.claim(1).await.refused.remove(0);
    assert_eq!(refused.reason, Refusal::Paused);
    hand.settle(&[outcome(&refused.claimed.lease, Change::Paused)]).await;
    assert_eq!(db.text("select reason from tasker.hold where task_id = $1", task).await, "paused");
    assert_eq!(db.messages().await, 0);
    db.check().await;
}

#[tokio::test]
async fn a_cancelled_outcome_that_nobody_asked_for_is_a_release() {
    let db = db().await;
    let (_, revision) = db.register(ONE).await;
    let mut hand = db.hand(&["h"]).await;
    db.submit(revision, "{}").await;
    let first = hand.claim_one().await;
    assert!(hand.settle(&[cancelled(&first.lease)]).await.verdicts.is_empty());
    let second = hand.claim_one().await;
    assert_eq!((second.attempt, second.lease.read_ct), (1, 1));
    db.check().await;
}
