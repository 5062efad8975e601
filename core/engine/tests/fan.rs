//! Maps and batches: steps that run many times at once.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::*;
use tasker_engine::{Change, Claimed, Lease, Settlement};
use tasker_model::{Payload, StepFailure, TaskId};

const MAP: &str = "{name: lines, steps: {plan: {call: h}, each: {call: h, map: plan.lines, max_in_flight: 3}, sum: {call: h, with: {all: each}}}}";
const BATCH: &str =
    "{name: rows, steps: {load: {call: h, batch: {size: 10, parallel: 2}}, sum: {call: h, with: {all: load}}}}";

fn ranges(lease: &Lease, items: u64, ranges: &Value) -> Settlement {
    outcome(lease, Change::Ranges { items, ranges: Payload::from_value(ranges).unwrap() })
}

fn item_failed(lease: &Lease, message: &str) -> Settlement {
    outcome(lease, Change::ItemFailure { error: StepFailure::permanent(message) })
}

fn name(claimed: &Claimed) -> &str {
    claimed.step_name.as_deref().unwrap_or_default()
}

fn results(claimed: &Claimed) -> Value {
    claimed.results.as_ref().unwrap().to().unwrap()
}

impl Db {
    /// A task of MAP whose first step gave this list.
    async fn mapped(&self, hand: &mut Hand, yaml: &str, list: &Value) -> TaskId {
        let (_, revision) = self.register(yaml).await;
        let task = self.submit(revision, "{}").await;
        let plan = hand.claim_one().await;
        hand.settle(&[done(&plan.lease, &json!({ "lines": list }).to_string())]).await;
        self.internal().await;
        task
    }

    async fn error(&self, task: TaskId, step: &str) -> Value {
        sqlx::query_scalar(
            "select s.error from tasker.step s join tasker.task k using (task_id) \
             left join tasker.workflow_step w on w.revision_id = k.revision_id and w.idx = s.idx \
             where s.task_id = $1 and coalesce(s.name, w.name) = $2",
        )
        .bind(task.0)
        .bind(step)
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }
}

#[tokio::test]
async fn a_map_runs_each_item_with_at_most_so_many_in_flight_and_collects_in_order() {
    let db = db().await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.mapped(&mut hand, MAP, &json!([10, 11, 12, 13, 14, 15, 16])).await;
    let mut leased = hand.claim(100).await.leased;
    leased.sort_by_key(|claimed| claimed.lease.idx);
    assert_eq!(leased.iter().map(name).collect::<Vec<_>>(), ["each[0]", "each[1]", "each[2]"]);
    assert_eq!(leased[1].item.as_ref().unwrap().get(), "11");
    assert_eq!(
        results(&leased[0]),
        json!({ "0": { "lines": [10, 11, 12, 13, 14, 15, 16] } }),
        "an item sees what its map sees"
    );
    db.check().await;
    // The last ones first: the order of the results is that of the list.
    let mut most = leased.len();
    while let Some(claimed) = leased.pop() {
        let item: i64 = claimed.item.as_ref().unwrap().to().unwrap();
        let reply = hand.settle_for(&[done(&claimed.lease, &(item * 2).to_string())], 10).await;
        leased.extend(reply.leased);
        most = most.max(leased.len());
        db.check().await;
    }
    assert_eq!(most, 3);
    db.internal().await;
    let sum = hand.claim_one().await;
    assert_eq!(results(&sum), json!({ "1": [20, 22, 24, 26, 28, 30, 32] }));
    hand.settle(&[done(&sum.lease, "1")]).await;
    assert_eq!(db.task_state(task).await, "complete");
    assert_eq!(db.count("select count(*) from tasker.fan_item").await, 0);
    assert_eq!(db.count("select count(*) from tasker.step where name like 'each[%'").await, 7);
    db.check().await;
}

#[tokio::test]
async fn a_map_over_nothing_is_done_with_an_empty_list() {
    let db = db().await;
    let mut hand = db.hand(&["h"]).await;
    for nothing in [json!([]), json!(null)] {
        let task = db.mapped(&mut hand, MAP, &nothing).await;
        let sum = hand.claim_one().await;
        assert_eq!(results(&sum), json!({ "1": [] }));
        hand.settle(&[done(&sum.lease, "1")]).await;
        assert_eq!(db.task_state(task).await, "complete");
        db.check().await;
    }
}

#[tokio::test]
async fn a_map_over_what_is_no_list_fails() {
    let db = db().await;
    let mut hand = db.hand(&["h"]).await;
    for wrong in [json!({ "a": 1 }), json!("text"), json!(5)] {
        let task = db.mapped(&mut hand, MAP, &wrong).await;
        assert_eq!(db.task_state(task).await, "failed");
        assert_eq!(db.error(task, "each").await["code"], "TSK_NOT_A_LIST");
        db.check().await;
    }
    let task = db.mapped(&mut hand, &MAP.replace("plan.lines", "plan.line"), &json!([1])).await;
    assert!(db.error(task, "each").await["message"].as_str().unwrap().contains("nothing"));
    db.check().await;
}

#[tokio::test]
async fn a_map_over_the_input_begins_at_once_and_keeps_the_delay() {
    let db = db().await;
    let mut hand = db.hand(&["h"]).await;
    let yaml = "{name: lines, steps: {one: {call: h}, each: {call: h, map: input.lines}}}";
    let (_, revision) = db.register(yaml).await;
    let task = db.submit(revision, r#"{"lines": [1, 2, 3]}"#).await;
    assert_eq!(hand.drain().await, 4);
    db.internal().await;
    assert_eq!(db.task_state(task).await, "complete");
    let mut later = tasker_engine::Submission::new(revision, Payload::parse(r#"{"lines": [1]}"#).unwrap());
    later.run_at = Some(sqlx::query_scalar("select now() + interval '1 hour'").fetch_one(&db.pool).await.unwrap());
    let later = db.submit_with(later).await;
    assert!(hand.claim(10).await.leased.is_empty(), "nothing of a delayed task may run");
    assert_eq!(db.steps(later).await, "waiting ready ready");
    db.check().await;
    // Left out at the submit: its dependents run, as those of any skipped step.
    let mut without = tasker_engine::Submission::new(revision, Payload::parse(r#"{"lines": [1]}"#).unwrap());
    without.skip = vec!["each".into()];
    let without = db.submit_with(without).await;
    hand.drain().await;
    assert_eq!(db.task_state(without).await, "complete");
}

#[tokio::test]
async fn an_items_failure_ends_the_task_or_only_its_map() {
    let db = db().await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.mapped(&mut hand, MAP, &json!([1, 2, 3, 4, 5, 6])).await;
    let leased = hand.claim(10).await.leased;
    hand.settle(&[failed(&leased[0].lease, "no"), done(&leased[1].lease, "1")]).await;
    assert!(hand.claim(10).await.leased.is_empty(), "no more items begin");
    hand.settle(&[done(&leased[2].lease, "1")]).await;
    assert_eq!(db.task_state(task).await, "failed");
    assert_eq!(db.count("select count(*) from tasker.fan_item").await, 0);
    db.check().await;

    let yaml = MAP.replace("name: lines", "name: go_on, on_failure: continue");
    let task = db.mapped(&mut hand, &yaml, &json!([1, 2, 3, 4, 5, 6])).await;
    let mut ran = 0;
    loop {
        let leased = hand.claim(10).await.leased;
        if leased.is_empty() {
            break;
        }
        for claimed in leased {
            ran += 1;
            let bad = [2, 3].contains(&claimed.item.as_ref().unwrap().to::<i64>().unwrap());
            let outcome = if bad { item_failed(&claimed.lease, "not this one") } else { done(&claimed.lease, "1") };
            hand.settle(&[outcome]).await;
            db.check().await;
        }
    }
    assert_eq!(ran, 6, "the others run");
    db.internal().await;
    assert_eq!(db.task_state(task).await, "failed");
    let error = db.error(task, "each").await;
    assert_eq!(error["code"], "TSK_ITEMS_FAILED");
    assert_eq!(error["message"], "2 of the 6 items of step `each` failed; the first is `each[1]`: not this one");
    assert!(db.steps(task).await.starts_with("done failed skipped"), "{}", db.steps(task).await);
    db.check().await;
}

#[tokio::test]
async fn an_item_is_tried_again_and_may_not_settle_twice() {
    let db = db().await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.mapped(&mut hand, MAP, &json!([1])).await;
    let first = hand.claim_one().await;
    hand.settle(&[retry(&first.lease, Duration::ZERO)]).await;
    let second = hand.claim_one().await;
    assert_eq!((second.attempt, name(&second)), (2, "each[0]"));
    assert_eq!(hand.settle(&[done(&second.lease, "1")]).await.verdicts.len(), 0);
    assert_eq!(hand.settle(&[done(&second.lease, "2")]).await.verdicts.len(), 1);
    db.internal().await;
    let sum = hand.claim_one().await;
    assert_eq!(results(&sum), json!({ "1": [1] }));
    hand.settle(&[done(&sum.lease, "1")]).await;
    assert_eq!(db.task_state(task).await, "complete");
    db.check().await;
}

#[tokio::test]
async fn a_hundred_thousand_items_are_more_than_a_result_can_hold() {
    let db = db().await;
    let mut hand = db.hand(&["h"]).await;
    let yaml = "{name: lines, steps: {plan: {call: h}, each: {call: h, map: plan, max_in_flight: 5000}, sum: {call: h, with: {all: each}}}}";
    let (_, revision) = db.register(yaml).await;
    let task = db.submit(revision, "{}").await;
    let plan = hand.claim_one().await;
    let items: Vec<String> = (0..100_000).map(|at| format!("item number {at:06}")).collect();
    let items = Payload::from_value(&items).unwrap();
    hand.settle(&[outcome(&plan.lease, Change::MapItems { map: 1, items })]).await;
    db.internal().await;
    assert_eq!(db.count("select count(*) from tasker.step where name is not null").await, 5000);
    // Results that are too large to be delivered at once are read in pages.
    let text = "x".repeat(30);
    let mut hands = hand.claim(256).await.leased;
    while !hands.is_empty() {
        let outcomes: Vec<_> =
            hands.iter().map(|c| done(&c.lease, &json!({ "at": name(c), "text": text }).to_string())).collect();
        hands = hand.settle_and_read(&outcomes, 200, 56).await.leased;
    }
    db.internal().await;
    let sum = hand.claim_one().await;
    assert_eq!(results(&sum), json!({ "paged": { "1": 100_000 } }));
    let mut conn = db.engine.acquire().await.unwrap();
    let page = db.engine.page_results(&mut conn, task, 1, 99_990, 100).await.unwrap();
    assert_eq!(page.len(), 10);
    assert_eq!(page[9].to::<Value>().unwrap()["at"], "each[99999]");
    let page = db.engine.page_results(&mut conn, task, 1, 0, 100_000).await.unwrap();
    let size: usize = page.iter().map(|result| result.get().len()).sum();
    assert!((4_000_000..=4 << 20).contains(&size), "{size}");
    drop(conn);
    hand.settle(&[done(&sum.lease, "1")]).await;
    assert_eq!(db.task_state(task).await, "complete");
    db.check().await;
}

#[tokio::test]
async fn a_map_may_follow_a_map_and_a_decision() {
    let db = db().await;
    let mut hand = db.hand(&["h"]).await;
    let yaml = "{name: lines, steps: {pick: {call: h, routes: [one, other]}, one: {call: h, after: [pick], map: input.lines}, other: {call: h, after: [pick], map: input.lines}, two: {call: h, map: one}, end: {call: h, with: {a: one, b: other, c: two}}}}";
    let (revision, id) = db.register(yaml).await;
    let idx = |name: &str| revision.step_by_name(name).unwrap().idx;
    let task = db.submit(id, r#"{"lines": [1, 2]}"#).await;
    let pick = hand.claim_one().await;
    let change = Change::Decision { value: Payload::null(), routes: vec!["one".into()], unchosen: vec![idx("other")] };
    hand.settle(&[outcome(&pick.lease, change)]).await;
    loop {
        db.internal().await;
        db.check().await;
        let leased = hand.claim(10).await.leased;
        if name(&leased[0]).is_empty() {
            assert_eq!(results(&leased[0]), json!({ idx("one").to_string(): [1, 2], idx("two").to_string(): [1, 2] }));
            hand.settle(&[done(&leased[0].lease, "1")]).await;
            break;
        }
        for claimed in &leased {
            hand.settle(&[done(&claimed.lease, claimed.item.as_ref().unwrap().get())]).await;
        }
    }
    assert_eq!(db.task_state(task).await, "complete");
    db.check().await;
}

#[tokio::test]
async fn a_batch_runs_its_ranges_and_tells_of_all() {
    let db = db().await;
    let mut hand = db.hand(&["h"]).await;
    let (_, revision) = db.register(BATCH).await;
    let task = db.submit(revision, "{}").await;
    let plan = hand.claim_one().await;
    let cursors = json!([{ "from": 0, "to": 10 }, { "from": 10, "to": 20 }, { "from": 20, "to": 25 }]);
    let leased = hand.settle_for(&[ranges(&plan.lease, 25, &cursors)], 10).await.leased;
    assert_eq!(leased.iter().map(name).collect::<Vec<_>>(), ["load[0]", "load[1]"], "two at a time");
    assert_eq!(leased[1].item.as_ref().unwrap().to::<Value>().unwrap(), cursors[1]);
    assert_eq!(db.steps(task).await, "waiting waiting ready ready");
    db.check().await;
    assert_eq!(hand.settle(&[ranges(&plan.lease, 25, &cursors)]).await.verdicts.len(), 1, "it divides its work once");
    let third = hand.settle_for(&[done(&leased[1].lease, "20"), done(&leased[0].lease, "10")], 10).await.leased;
    hand.settle(&[done(&third[0].lease, "5")]).await;
    db.internal().await;
    let sum = hand.claim_one().await;
    assert_eq!(results(&sum), json!({ "0": { "items": 25, "results": [10, 20, 5], "failed": [] } }));
    hand.settle(&[done(&sum.lease, "1")]).await;
    assert_eq!(db.task_state(task).await, "complete");
    db.check().await;
}

#[tokio::test]
async fn a_batch_of_nothing_is_done() {
    let db = db().await;
    let mut hand = db.hand(&["h"]).await;
    let (_, revision) = db.register(BATCH).await;
    let task = db.submit(revision, "{}").await;
    let plan = hand.claim_one().await;
    let sum = hand.settle_for(&[ranges(&plan.lease, 0, &json!([]))], 1).await.leased.remove(0);
    assert_eq!(results(&sum), json!({ "0": { "items": 0, "results": [], "failed": [] } }));
    hand.settle(&[done(&sum.lease, "1")]).await;
    assert_eq!(db.task_state(task).await, "complete");
    db.check().await;
}

#[tokio::test]
async fn each_failure_policy_of_a_batch_is_kept() {
    let db = db().await;
    let mut hand = db.hand(&["h"]).await;
    for (policy, workflow_policy, ran, state) in [
        ("fail_fast", "continue", 2, "failed"),
        ("continue", "continue", 5, "failed"),
        ("continue", "fail_fast", 5, "failed"),
        ("isolate", "fail_fast", 5, "complete"),
        ("isolate", "continue", 5, "complete"),
    ] {
        let yaml = format!(
            "{{name: rows, on_failure: {workflow_policy}, steps: {{load: {{call: h, batch: {{size: 1, parallel: 2, on_failure: {policy}}}}}, sum: {{call: h, with: {{all: load}}}}}}}}"
        );
        let (_, revision) = db.register(&yaml).await;
        let task = db.submit(revision, "{}").await;
        let plan = hand.claim_one().await;
        let mut leased = hand.settle_for(&[ranges(&plan.lease, 5, &json!([0, 1, 2, 3, 4]))], 9).await.leased;
        let mut count = 0;
        while let Some(claimed) = leased.pop() {
            count += 1;
            let is_bad = claimed.item.as_ref().unwrap().get() == "1";
            let outcome = if is_bad { item_failed(&claimed.lease, "bad") } else { done(&claimed.lease, "1") };
            leased.extend(hand.settle_for(&[outcome], 9).await.leased);
            db.check().await;
        }
        db.internal().await;
        assert_eq!(count, ran, "{policy} in {workflow_policy}");
        if state == "complete" {
            let sum = hand.claim_one().await;
            let all = &results(&sum)["0"];
            assert_eq!((&all["items"], &all["results"]), (&json!(5), &json!([1, 1, 1, 1])));
            assert_eq!((&all["failed"][0]["range"], &all["failed"][0]["step"]), (&json!(1), &json!("load[1]")));
            assert_eq!(all["failed"][0]["error"]["message"], "bad");
            hand.settle(&[done(&sum.lease, "1")]).await;
        } else {
            assert_eq!(db.error(task, "load").await["code"], "TSK_ITEMS_FAILED");
        }
        assert_eq!(db.task_state(task).await, state, "{policy} in {workflow_policy}");
        db.check().await;
    }
}

#[tokio::test]
async fn a_cancel_ends_what_fans_out() {
    let db = db().await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.mapped(&mut hand, MAP, &json!([1, 2, 3, 4, 5])).await;
    let leased = hand.claim(1).await.leased;
    db.engine.cancel(task, "tester", "no more").await.unwrap();
    db.check().await;
    hand.settle(&[cancelled(&leased[0].lease)]).await;
    let refused = hand.claim(10).await.refused;
    let outcomes: Vec<_> = refused.iter().map(|refused| cancelled(&refused.claimed.lease)).collect();
    hand.settle(&outcomes).await;
    assert_eq!(db.task_state(task).await, "cancelled");
    assert_eq!(db.count("select count(*) from tasker.fan_item").await, 0);
    // A batch that divides its work after the cancel divides nothing.
    let (_, revision) = db.register(BATCH).await;
    let task = db.submit(revision, "{}").await;
    let plan = hand.claim_one().await;
    db.engine.cancel(task, "tester", "no more").await.unwrap();
    hand.settle(&[ranges(&plan.lease, 1, &json!([1]))]).await;
    assert_eq!(db.task_state(task).await, "cancelled");
    assert_eq!(db.steps(task).await, "cancelled cancelled");
    db.check().await;
}

#[tokio::test]
async fn a_range_that_is_timed_out_by_the_sweeper_is_the_batchs_affair() {
    let db = db().await;
    let mut hand = db.hand(&["h"]).await;
    let yaml = BATCH.replace("parallel: 2", "parallel: 2, on_failure: isolate");
    let (_, revision) = db.register(&yaml).await;
    let task = db.submit(revision, "{}").await;
    let plan = hand.claim_one().await;
    let leased = hand.settle_for(&[ranges(&plan.lease, 3, &json!([1, 2, 3]))], 9).await.leased;
    let error = Payload::from_value(&StepFailure::timeout(Duration::from_secs(1))).unwrap();
    sqlx::query("select tasker.expire_step_v1($1, $2, 0, $3, null)")
        .bind(task.0)
        .bind(leased[0].lease.idx)
        .bind(error.get())
        .execute(&db.pool)
        .await
        .unwrap();
    db.check().await;
    assert_eq!(hand.settle(&[done(&leased[0].lease, "1")]).await.verdicts.len(), 1, "too late");
    hand.settle(&[done(&leased[1].lease, "1")]).await;
    hand.drain().await;
    db.internal().await;
    assert_eq!(hand.drain().await, 1);
    assert_eq!(db.task_state(task).await, "complete");
    db.check().await;
}
