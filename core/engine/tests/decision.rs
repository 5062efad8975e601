//! Decisions: which branches live, how a skip spreads, and what a join waits for.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use support::*;
use tasker_engine::{Change, Settlement};
use tasker_model::revision::Revision;
use tasker_model::{Payload, TaskId};

/// decide -> left -> join, decide -> right -> join, decide -> always; join -> end.
const TWO_WAYS: &str = "
name: two_ways
steps:
  decide: { call: h, routes: [left, right] }
  left: { call: h, after: [decide] }
  right: { call: h, after: [decide] }
  always: { call: h, after: [decide] }
  join: { call: h, with: { left: left, right: right } }
  last: { call: h, after: [join] }
";

/// The outcome of a decision for these routes.
fn decide(step: &tasker_engine::Claimed, revision: &Revision, chosen: &[&str]) -> Settlement {
    let decision = &revision.steps[usize::try_from(step.lease.idx).unwrap()];
    let unchosen = decision.routes.iter().filter(|route| !chosen.contains(&route.as_str()));
    outcome(
        &step.lease,
        Change::Decision {
            value: Payload::parse(r#""chosen""#).unwrap(),
            routes: chosen.iter().map(ToString::to_string).collect(),
            unchosen: unchosen.map(|route| revision.step_by_name(route).unwrap().idx).collect(),
        },
    )
}

/// The states by name, as one line.
async fn states(db: &Db, revision: &Revision, task: TaskId) -> String {
    let states = db.steps(task).await;
    let states = states.split(' ').zip(&revision.steps).map(|(state, step)| format!("{}:{state}", step.name));
    states.collect::<Vec<_>>().join(" ")
}

/// Begins a task and decides; what follows is left to the test.
async fn decided(yaml: &str, chosen: &[&str]) -> (Db, Hand, Revision, TaskId) {
    let db = db().await;
    let (revision, id) = db.register(yaml).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(id, "{}").await;
    let step = hand.claim_one().await;
    hand.settle(&[decide(&step, &revision, chosen)]).await;
    db.check().await;
    (db, hand, revision, task)
}

#[tokio::test]
async fn only_the_chosen_branch_runs_and_the_join_waits_for_no_other() {
    let (db, mut hand, revision, task) = decided(TWO_WAYS, &["left"]).await;
    assert_eq!(
        states(&db, &revision, task).await,
        "decide:done always:ready left:ready right:skipped join:waiting last:waiting"
    );
    assert_eq!(hand.drain().await, 4);
    assert_eq!(
        states(&db, &revision, task).await,
        "decide:done always:done left:done right:skipped join:done last:done"
    );
    assert_eq!(db.task_state(task).await, "complete");
    assert_eq!(
        db.text("select detail::text from tasker.event where task_id = $1 and idx = 0 and kind = 'done'", task).await,
        r#"{"routes": ["left"]}"#
    );
    assert_eq!(
        db.text("select skipped_as from tasker.step where task_id = $1 and state = 'skipped'", task).await,
        "decision"
    );
    db.check().await;
}

#[tokio::test]
async fn the_join_has_the_results_of_the_branches_that_live() {
    let (_db, mut hand, _, _) = decided(TWO_WAYS, &["right"]).await;
    let branches = hand.claim(10).await.leased;
    let outcomes: Vec<_> = branches.iter().map(|step| done(&step.lease, "7")).collect();
    let join = hand.settle_for(&outcomes, 10).await.leased.remove(0);
    assert_eq!(join.results.unwrap().get(), r#"{"3": 7}"#);
}

#[tokio::test]
async fn with_none_chosen_everything_behind_the_routes_is_skipped_and_the_task_completes() {
    let (db, mut hand, revision, task) = decided(TWO_WAYS, &[]).await;
    assert_eq!(
        states(&db, &revision, task).await,
        "decide:done always:ready left:skipped right:skipped join:skipped last:skipped"
    );
    assert_eq!(hand.drain().await, 1);
    assert_eq!(db.task_state(task).await, "complete");
    db.check().await;
}

#[tokio::test]
async fn a_task_ends_with_the_decision_where_nothing_else_is_left() {
    let yaml = "{name: gate, steps: {decide: {call: h, routes: [go]}, go: {call: h, after: [decide]}}}";
    let (db, _hand, revision, task) = decided(yaml, &[]).await;
    assert_eq!(states(&db, &revision, task).await, "decide:done go:skipped");
    assert_eq!(db.task_state(task).await, "complete");
    assert_eq!(db.messages().await, 0);
}

#[tokio::test]
async fn a_skip_spreads_through_a_nested_decision() {
    let yaml = "
name: nested
steps:
  outer: { call: h, routes: [inner, other] }
  inner: { call: h, after: [outer], routes: [a, b] }
  other: { call: h, after: [outer] }
  a: { call: h, after: [inner] }
  b: { call: h, after: [inner] }
  join: { call: h, after: [a, b, other] }
";
    let (db, mut hand, revision, task) = decided(yaml, &["other"]).await;
    assert_eq!(
        states(&db, &revision, task).await,
        "outer:done inner:skipped other:ready a:skipped b:skipped join:waiting"
    );
    assert_eq!(hand.drain().await, 2);
    assert_eq!(db.task_state(task).await, "complete");

    let (db, mut hand, revision, task) = decided(yaml, &["inner"]).await;
    let inner = hand.claim_one().await;
    hand.settle(&[decide(&inner, &revision, &["b"])]).await;
    assert_eq!(
        states(&db, &revision, task).await,
        "outer:done inner:done other:skipped a:skipped b:ready join:waiting"
    );
    assert_eq!(hand.drain().await, 2);
    assert_eq!(db.task_state(task).await, "complete");
    db.check().await;
}

#[tokio::test]
async fn a_step_that_two_decisions_may_choose_runs_if_one_does() {
    let yaml = "
name: both
steps:
  one: { call: h, routes: [shared] }
  two: { call: h, routes: [shared] }
  shared: { call: h, after: [one, two] }
";
    for (first, second, runs) in [(true, false, true), (false, true, true), (false, false, false), (true, true, true)] {
        let db = db().await;
        let (revision, id) = db.register(yaml).await;
        let mut hand = db.hand(&["h"]).await;
        let task = db.submit(id, "{}").await;
        let steps = hand.claim(2).await.leased;
        for (step, chooses) in steps.iter().zip([first, second]) {
            let chosen: &[&str] = if chooses { &["shared"] } else { &[] };
            hand.settle(&[decide(step, &revision, chosen)]).await;
            db.check().await;
        }
        assert_eq!(hand.drain().await, usize::from(runs), "{first} {second}");
        assert_eq!(db.task_state(task).await, "complete");
    }
}

#[tokio::test]
async fn many_decisions_and_successes_of_one_task_may_come_in_one_batch() {
    let wide = each(5, |n| {
        format!(
            "  d{n}: {{ call: h, routes: [y{n}, n{n}] }}\n  y{n}: {{ call: h, after: [d{n}] }}\n  n{n}: {{ call: h, after: [d{n}] }}\n"
        )
    });
    let joined = each(5, |n| format!("y{n}, n{n}, "));
    let yaml =
        format!("name: wide\nsteps:\n  plain: {{ call: h }}\n{wide}  join: {{ call: h, after: [{joined}plain] }}\n");
    let db = db().await;
    let (revision, id) = db.register(&yaml).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(id, "{}").await;
    let steps = hand.claim(10).await.leased;
    assert_eq!(steps.len(), 6);
    let outcomes: Vec<_> = steps
        .iter()
        .map(|step| {
            let name = &revision.steps[usize::try_from(step.lease.idx).unwrap()].name;
            match name.strip_prefix('d') {
                Some("4") => decide(step, &revision, &[]),
                Some(n) => decide(step, &revision, &[&format!("y{n}")]),
                None => done(&step.lease, "1"),
            }
        })
        .collect();
    let next = hand.settle_for(&outcomes, 10).await.leased;
    assert_eq!(next.len(), 4);
    db.check().await;
    let outcomes: Vec<_> = next.iter().map(|step| done(&step.lease, "1")).collect();
    assert_eq!(hand.settle_for(&outcomes, 10).await.leased.len(), 1, "the join");
    assert_eq!(db.task_state(task).await, "running");
}

#[tokio::test]
async fn in_a_task_that_is_ending_nothing_is_chosen_any_more() {
    let db = db().await;
    let (revision, id) = db.register(TWO_WAYS).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(id, "{}").await;
    let step = hand.claim_one().await;
    db.engine.cancel(task, "somebody", "no longer needed").await.unwrap();
    hand.settle(&[decide(&step, &revision, &["left"])]).await;
    assert_eq!(
        states(&db, &revision, task).await,
        "decide:done always:cancelled left:cancelled right:cancelled join:cancelled last:cancelled"
    );
    assert_eq!(db.task_state(task).await, "cancelled");
    db.check().await;
}

#[tokio::test]
async fn a_decision_that_comes_twice_is_applied_once() {
    let (db, mut hand, revision, task) = decided(TWO_WAYS, &["left"]).await;
    let again = db.text(
        "select array_length(array_agg(1), 1)::text from tasker.event where task_id = $1 and idx = 0 and kind = 'done'",
        task,
    );
    assert_eq!(again.await, "1");
    let mut late = hand.claim_one().await;
    late.lease.idx = 0;
    let reply = hand.settle(&[decide(&late, &revision, &["right"])]).await;
    assert_eq!(reply.verdicts.len(), 1);
    assert!(states(&db, &revision, task).await.contains("right:skipped"));
}
