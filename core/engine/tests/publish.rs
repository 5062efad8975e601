//! Events for the application: published with what caused them, exactly once, or not at all.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::time::Duration;

use sqlx::Row as _;
use support::*;
use tasker_engine::deliveries::{DELIVERIES, Room, Taken};
use tasker_engine::queries::PublicationFilter;
use tasker_engine::subscriptions::Target;
use tasker_engine::{Change, pgmq};
use tasker_model::outcome::StepFailure;
use tasker_model::{ErrorKind, Payload, TaskId};

const ORDERS: &str = "
name: orders
steps:
  charge: { call: h, retry: { attempts: 3, base: 1ms } }
  ship: { call: h, after: [charge] }
events:
  payment_taken: { on: success, step: charge }
  payment_retried: { on: retry, step: charge }
  payment_failed: { on: failure, step: charge }
  order_done: { on: success }
  order_failed: { on: failure }
";

const ROOM: Room = Room { each: 8, limit: 100, lease: Duration::from_secs(30) };

impl Db {
    /// The names of what a task published, in order.
    async fn published(&self, task: TaskId) -> String {
        self.text(
            "select string_agg(split_part(event, '.', 2), ' ' order by seq) from tasker.publication where task_id = $1",
            task,
        )
        .await
    }

    async fn payloads(&self, task: TaskId) -> Vec<serde_json::Value> {
        sqlx::query_scalar("select payload from tasker.publication where task_id = $1 order by seq")
            .bind(task.0)
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    async fn webhook(&self, name: &str, event: &str) {
        let target = Target::Webhook { url: "http://localhost:1/hook", secret: "a secret of the test" };
        assert!(self.engine.subscribe(name, event, target).await.unwrap());
    }

    async fn take(&self, names: &[&str]) -> Taken {
        let mut conn = self.engine.acquire().await.unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.engine.take_deliveries(&mut conn, &names, &[], ROOM).await.unwrap()
    }
}

#[tokio::test]
async fn a_step_and_its_task_publish_what_the_workflow_says() {
    let db = db().await;
    let (_, revision) = db.register(ORDERS).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let charge = hand.claim_one().await;
    hand.settle(&[done(&charge.lease, r#"{"id": "p1"}"#)]).await;
    assert_eq!(db.published(task).await, "payment_taken");
    let ship = hand.claim_one().await;
    hand.settle(&[done(&ship.lease, "1")]).await;
    assert_eq!(db.published(task).await, "payment_taken order_done");
    let payloads = db.payloads(task).await;
    let first = payloads[0].as_object().unwrap();
    let keys: Vec<&str> = first.keys().map(String::as_str).collect();
    let mut expected =
        ["id", "event", "workflow", "task_id", "step", "attempt", "at", "result", "tags", "correlation_id"];
    expected.sort_unstable();
    let mut found = keys.clone();
    found.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(first["event"], "default.payment_taken");
    assert_eq!(first["workflow"], "default.orders");
    assert_eq!(first["task_id"], task.to_string());
    assert_eq!((&first["step"], &first["attempt"]), (&"charge".into(), &1.into()));
    assert_eq!(first["result"], serde_json::json!({"id": "p1"}));
    assert!(payloads[1]["step"].is_null() && payloads[1].get("result").is_none());
    db.check().await;
    let listed = db.engine.publications(&PublicationFilter { task: Some(task), ..Default::default() }).await.unwrap();
    assert_eq!(listed.len(), 2, "kept without a subscription");
    assert_eq!((listed[0].event.as_str(), listed[0].pending), ("default.order_done", 0));
}

#[tokio::test]
async fn each_retry_is_published_and_the_failure_once() {
    let db = db().await;
    let (_, revision) = db.register(ORDERS).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    for _ in 0..2 {
        let charge = hand.claim_one().await;
        hand.settle(&[retry(&charge.lease, Duration::ZERO)]).await;
    }
    let charge = hand.claim_one().await;
    hand.settle(&[failed(&charge.lease, "no money")]).await;
    assert_eq!(db.published(task).await, "payment_retried payment_retried payment_failed order_failed");
    assert_eq!(db.task_state(task).await, "failed");
    let payloads = db.payloads(task).await;
    let attempts: Vec<_> = payloads.iter().map(|payload| payload["attempt"].as_i64()).collect();
    assert_eq!(attempts, [Some(1), Some(2), Some(3), None]);
    assert_eq!(payloads[0]["error"]["message"], "try again");
    assert_eq!(payloads[2]["error"]["message"], "no money");
    assert_eq!(payloads[3]["error"]["step"], "charge");
    assert!(payloads[3].get("result").is_none());
    db.check().await;
}

#[tokio::test]
async fn a_map_publishes_its_end_once_and_each_retry_of_an_item() {
    let db = db().await;
    let mut hand = db.hand(&["h"]).await;
    for policy in ["fail_fast", "continue"] {
        let yaml = format!(
            "{{name: packing, on_failure: {policy}, steps: {{pack: {{call: h, map: input.lines}}}}, events: {{packed: {{on: success, step: pack}}, \
             pack_failed: {{on: failure, step: pack}}, again: {{on: retry, step: pack}}}}}}"
        );
        let (_, revision) = db.register(&yaml).await;
        let good = db.submit(revision, r#"{"lines": [1, 2]}"#).await;
        let leased = hand.claim(2).await.leased;
        hand.settle(&[retry(&leased[0].lease, Duration::ZERO), done(&leased[1].lease, "2")]).await;
        let again = hand.claim_one().await;
        hand.settle(&[done(&again.lease, "1")]).await;
        db.internal().await;
        assert_eq!(db.published(good).await, "again packed", "{policy}");
        let payloads = db.payloads(good).await;
        let item = again.step_name.unwrap();
        assert_eq!((&payloads[0]["step"], &payloads[0]["attempt"]), (&item.as_str().into(), &1.into()));
        assert_eq!(payloads[1]["result"].as_array().unwrap().len(), 2, "the results of the items");

        let bad = db.submit(revision, r#"{"lines": [1, 2]}"#).await;
        let leased = hand.claim(2).await.leased;
        hand.settle(&[failed(&leased[0].lease, "torn"), failed(&leased[1].lease, "torn")]).await;
        db.internal().await;
        assert_eq!(db.task_state(bad).await, "failed");
        assert_eq!(db.published(bad).await, "pack_failed", "{policy}");
        assert!(db.payloads(bad).await[0]["error"]["message"].as_str().unwrap().contains("torn"));
        db.check().await;
    }
}

#[tokio::test]
async fn what_is_settled_twice_is_published_once_and_a_lost_outcome_never() {
    let db = db().await;
    let (_, revision) = db.register(ORDERS).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let charge = hand.claim_one().await;
    hand.settle(&[done(&charge.lease, "1")]).await;
    hand.settle(&[done(&charge.lease, "1")]).await;
    hand.settle(&[failed(&charge.lease, "late")]).await;
    hand.settle(&[retry(&charge.lease, Duration::ZERO)]).await;
    assert_eq!(db.published(task).await, "payment_taken");
}

#[tokio::test]
async fn a_batch_publishes_for_each_of_its_steps() {
    let db = db().await;
    let (_, revision) = db.register(ORDERS).await;
    let mut hand = db.hand(&["h"]).await;
    let mut tasks = Vec::new();
    for _ in 0..5 {
        tasks.push(db.submit(revision, "{}").await);
    }
    for expected in ["payment_taken", "payment_taken order_done"] {
        let claimed = hand.claim(5).await.leased;
        assert_eq!(claimed.len(), 5);
        let outcomes: Vec<_> = claimed.iter().map(|step| done(&step.lease, "1")).collect();
        hand.settle(&outcomes).await;
        for task in &tasks {
            assert_eq!(db.published(*task).await, expected);
        }
    }
    // One that fails and one that is tried again, beside successes.
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.push(db.submit(revision, "{}").await);
    }
    let claimed = hand.claim(3).await.leased;
    let outcomes = [
        done(&claimed[0].lease, "1"),
        failed(&claimed[1].lease, "no"),
        retry(&claimed[2].lease, Duration::from_mins(1)),
    ];
    let order: Vec<TaskId> = claimed.iter().map(|step| step.lease.task_id).collect();
    let mut sorted = outcomes.to_vec();
    sorted.sort_by_key(|outcome| outcome.lease.msg_id);
    hand.settle(&sorted).await;
    assert_eq!(db.published(order[0]).await, "payment_taken");
    assert_eq!(db.published(order[1]).await, "payment_failed order_failed");
    assert_eq!(db.published(order[2]).await, "payment_retried");
    db.check().await;
}

#[tokio::test]
async fn a_rolled_back_transaction_publishes_nothing() {
    let db = db().await;
    let (_, revision) = db.register(ORDERS).await;
    db.webhook("hook", "*").await;
    db.engine.subscribe("queue", "*", Target::Queue("orders_out")).await.unwrap();
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let charge = hand.claim_one().await;
    let mut tx = db.pool.begin().await.unwrap();
    db.engine.settle_here(&mut tx, &charge.lease, &Payload::null(), Duration::ZERO, None).await.unwrap();
    tx.rollback().await.unwrap();
    for table in ["publication", "delivery"] {
        let sql = sqlx::AssertSqlSafe(format!("select count(*) from tasker.{table}"));
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&db.pool).await.unwrap();
        assert_eq!(count, 0, "{table}");
    }
    assert_eq!(db.count("select count(*) from pgmq.q_orders_out").await, 0);
    let mut tx = db.pool.begin().await.unwrap();
    let reply = db.engine.settle_here(&mut tx, &charge.lease, &Payload::null(), Duration::ZERO, None).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.published(task).await, "payment_taken");
    assert_eq!(db.count("select count(*) from pgmq.q_orders_out").await, 1);
    assert!(reply.left.iter().any(|(queue, _)| *queue == DELIVERIES), "the process is told: {reply:?}");
}

#[tokio::test]
async fn an_ending_task_publishes_the_failures_of_its_last_steps_and_a_cancelled_one_nothing() {
    let db = db().await;
    let yaml = "
name: two
steps: { bad: { call: h }, slow: { call: h } }
events: { slow_failed: { on: failure, step: slow }, slow_retried: { on: retry, step: slow }, failed: { on: failure }, done: { on: success } }
";
    let (_, revision) = db.register(yaml).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let both = hand.claim(2).await.leased;
    hand.settle(&[failed(&both[0].lease, "bad")]).await;
    assert_eq!(db.published(task).await, "", "it only begins to end");
    hand.settle(&[retry(&both[1].lease, Duration::ZERO)]).await;
    assert_eq!(db.published(task).await, "slow_failed failed");
    let task = db.submit(revision, "{}").await;
    db.engine.cancel(task, "tester", "no more").await.unwrap();
    let both = hand.claim(2).await;
    let refused: Vec<_> = both.refused.iter().map(|refused| cancelled(&refused.claimed.lease)).collect();
    hand.settle(&refused).await;
    assert_eq!(db.task_state(task).await, "cancelled");
    assert_eq!(db.published(task).await, "");
    // A step whose outcome ends its task together with the task.
    let task = db.submit(revision, "{}").await;
    let both = hand.claim(2).await.leased;
    hand.settle(&[done(&both[0].lease, "1"), done(&both[1].lease, "1")]).await;
    assert_eq!(db.published(task).await, "done");
    db.check().await;
}

#[tokio::test]
async fn decisions_and_waits_publish_too() {
    let db = db().await;
    let yaml = "
name: choice
steps:
  pick: { call: h, routes: [ask, other] }
  ask: { after: [pick], wait: { signal: go } }
  other: { call: h, after: [pick] }
  late: { after: [ask], wait: { signal: never, timeout: 1h } }
events:
  picked: { on: success, step: pick }
  asked: { on: success, step: ask }
  other_done: { on: success, step: other }
  too_late: { on: failure, step: late }
  failed: { on: failure }
";
    let (model, revision) = db.register(yaml).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let pick = hand.claim_one().await;
    let other = model.step_by_name("other").unwrap().idx;
    let value = Payload::null();
    hand.settle(&[outcome(
        &pick.lease,
        Change::Decision { routes: vec!["ask".to_owned()], unchosen: vec![other], value },
    )])
    .await;
    assert_eq!(db.published(task).await, "picked");
    db.engine.signal(task, "go", &Payload::parse("5").unwrap(), "tester").await.unwrap();
    assert_eq!(db.published(task).await, "picked asked");
    assert_eq!(db.payloads(task).await[1]["result"], 5);
    sqlx::query("update tasker.timer set due_at = now() - interval '1 second'").execute(&db.pool).await.unwrap();
    sqlx::query("update tasker.step set item = jsonb_set(item, '{due_at}', to_jsonb(now() - interval '1 second')) where item ? 'due_at'")
        .execute(&db.pool)
        .await
        .unwrap();
    let mut conn = db.engine.open().await.unwrap();
    pgmq::publish(&db.engine, &mut conn).await.unwrap();
    db.internal().await;
    assert_eq!(db.published(task).await, "picked asked too_late failed");
    db.check().await;
}

#[tokio::test]
async fn a_timed_out_step_publishes_its_retry() {
    let db = db().await;
    let (_, revision) = db.register(ORDERS).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let charge = hand.claim_one().await;
    let error = Payload::from_value(&StepFailure::unexpected("too slow")).unwrap();
    let expire = |generation: i32, delay: Option<i64>| {
        sqlx::query("select * from tasker.expire_step_v1($1, $2, $3, $4, $5)")
            .bind(task.0)
            .bind(charge.lease.idx)
            .bind(generation)
            .bind(error.get().to_owned())
            .bind(delay)
    };
    expire(0, Some(1)).fetch_all(&db.pool).await.unwrap();
    assert_eq!(db.published(task).await, "payment_retried");
    expire(1, None).fetch_all(&db.pool).await.unwrap();
    assert_eq!(db.published(task).await, "payment_retried payment_failed order_failed");
}

#[tokio::test]
async fn a_queue_gets_each_message_in_the_same_transaction() {
    let db = db().await;
    let (_, revision) = db.register(ORDERS).await;
    db.engine.subscribe("billing", "payment_taken", Target::Queue("billing_events")).await.unwrap();
    db.engine.subscribe("gone", "*", Target::Queue("gone_events")).await.unwrap();
    sqlx::query("select pgmq.drop_queue('gone_events')").execute(&db.pool).await.unwrap();
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let charge = hand.claim_one().await;
    hand.settle(&[done(&charge.lease, "7")]).await;
    let message: serde_json::Value = sqlx::query("select message from pgmq.read('billing_events', 30, 10)")
        .fetch_one(&db.pool)
        .await
        .unwrap()
        .get("message");
    assert_eq!((&message["event"], &message["result"]), (&"default.payment_taken".into(), &7.into()));
    assert_eq!(db.steps(task).await, "done ready", "a queue that is gone keeps nothing from settling");
    let listed = db.engine.publications(&PublicationFilter { dead: true, ..Default::default() }).await.unwrap();
    assert_eq!((listed.len(), listed[0].delivered, listed[0].dead), (1, 1, 1));
    let detail = db.engine.publication(listed[0].publication_id).await.unwrap();
    let gone = &detail.deliveries[1];
    assert_eq!((gone.subscription.as_str(), gone.state.as_str()), ("gone", "dead"));
    assert!(gone.last_error.as_deref().unwrap().contains("gone_events"), "{gone:?}");
    sqlx::query("select pgmq.create('gone_events')").execute(&db.pool).await.unwrap();
    assert_eq!(db.engine.redeliver(None, None).await.unwrap(), 1);
    assert_eq!(db.count("select count(*) from pgmq.q_gone_events").await, 1);
    assert_eq!(db.count("select count(*) from tasker.delivery where state = 'done'").await, 2);
}

#[tokio::test]
async fn a_paused_subscription_keeps_its_events_for_later() {
    let db = db().await;
    let (_, revision) = db.register(ORDERS).await;
    db.engine.subscribe("out", "*", Target::Queue("out_events")).await.unwrap();
    db.webhook("hook", "default.payment_taken").await;
    for name in ["out", "hook"] {
        assert!(db.engine.pause_subscription(name, true).await.unwrap());
        assert!(!db.engine.pause_subscription(name, true).await.unwrap(), "idempotent");
    }
    let mut hand = db.hand(&["h"]).await;
    db.submit(revision, "{}").await;
    assert_eq!(hand.drain().await, 2);
    assert_eq!(db.count("select count(*) from pgmq.q_out_events").await, 0);
    assert!(db.take(&[]).await.deliveries.is_empty());
    assert!(db.engine.pause_subscription("out", false).await.unwrap());
    let order: Vec<String> = sqlx::query_scalar("select message->>'event' from pgmq.q_out_events order by msg_id")
        .fetch_all(&db.pool)
        .await
        .unwrap();
    assert_eq!(order, ["default.payment_taken", "default.order_done"]);
    assert!(db.engine.pause_subscription("hook", false).await.unwrap());
    assert_eq!(db.take(&[]).await.deliveries.len(), 1);
    db.engine.unsubscribe("hook").await.unwrap();
    assert_eq!(db.count("select count(*) from tasker.delivery where state = 'pending'").await, 0);
    let error = db.engine.unsubscribe("hok").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn deliveries_are_leased_and_taken_again_when_the_lease_ends() {
    let db = db().await;
    let (_, revision) = db.register(ORDERS).await;
    db.webhook("hook", "payment_taken").await;
    db.engine.subscribe("mailer", "payment_taken", Target::Process).await.unwrap();
    db.engine.subscribe("mailer", "payment_taken", Target::Process).await.unwrap();
    let mut hand = db.hand(&["h"]).await;
    db.submit(revision, "{}").await;
    let charge = hand.claim_one().await;
    let reply = hand.settle(&[done(&charge.lease, "1")]).await;
    assert!(reply.left.iter().any(|(queue, _)| *queue == DELIVERIES));
    let taken = db.take(&[]).await;
    assert_eq!(taken.deliveries.len(), 1);
    assert!(taken.has_foreign, "the subscriber is in another process");
    let first = &taken.deliveries[0];
    assert_eq!((first.attempt, first.secret.as_deref()), (1, Some("a secret of the test")));
    assert!(db.take(&[]).await.deliveries.is_empty(), "leased");
    let mailer = db.take(&["mailer"]).await;
    assert_eq!((mailer.deliveries.len(), mailer.has_foreign), (1, false));
    assert!(mailer.next.unwrap() > Duration::from_secs(20));
    let mut conn = db.engine.acquire().await.unwrap();
    // The relay dies; the lease ends.
    sqlx::query("update tasker.delivery set due_at = now() - interval '1 second'").execute(&db.pool).await.unwrap();
    let second = db.take(&[]).await.deliveries.remove(0);
    assert_eq!((second.delivery_id, second.attempt), (first.delivery_id, 2));
    db.engine.end_delivery(&mut conn, first, Some("late"), None).await.unwrap();
    assert_eq!(db.count("select count(*) from tasker.delivery where state = 'dead'").await, 0, "it is another's now");
    db.engine.end_delivery(&mut conn, &second, Some("busy"), Some(Duration::from_mins(1))).await.unwrap();
    let nothing = db.take(&[]).await;
    assert!(nothing.deliveries.is_empty() && nothing.next.unwrap() > Duration::from_secs(50), "{nothing:?}");
    sqlx::query("update tasker.delivery set due_at = now() - interval '1 second'").execute(&db.pool).await.unwrap();
    let third = db.take(&[]).await.deliveries.remove(0);
    db.engine.end_delivery(&mut conn, &third, None, None).await.unwrap();
    assert_eq!(db.count("select count(*) from tasker.delivery where state = 'done' and attempts = 3").await, 1);
}

#[tokio::test]
async fn one_subscription_does_not_take_all_the_places() {
    let db = db().await;
    let (_, revision) = db.register(ORDERS).await;
    db.webhook("a", "payment_taken").await;
    db.webhook("b", "payment_taken").await;
    let mut hand = db.hand(&["h"]).await;
    for _ in 0..20 {
        db.submit(revision, "{}").await;
    }
    let outcomes: Vec<_> = hand.claim(20).await.leased.iter().map(|step| done(&step.lease, "1")).collect();
    hand.settle(&outcomes).await;
    let taken = db.take(&[]).await;
    assert_eq!(taken.deliveries.len(), 16, "eight of each");
    let a = taken.deliveries.iter().find(|delivery| delivery.subscription == "a").unwrap().subscription_id;
    let mut conn = db.engine.acquire().await.unwrap();
    let more = db.engine.take_deliveries(&mut conn, &[], &[(a, 6)], ROOM).await.unwrap();
    let of_a = more.deliveries.iter().filter(|delivery| delivery.subscription_id == a).count();
    assert_eq!((of_a, more.deliveries.len()), (2, 10));
}

#[tokio::test]
async fn what_is_no_subscription_is_refused() {
    let db = db().await;
    db.register(ORDERS).await;
    db.webhook("hook", "*").await;
    let again = db.engine.subscribe("hook", "*", Target::Queue("q")).await.unwrap_err();
    assert_eq!(again.kind, ErrorKind::Conflict, "{again}");
    let own = db.engine.subscribe("own", "*", Target::Queue("tq1_0")).await.unwrap_err();
    assert_eq!(own.kind, ErrorKind::Invalid, "{own}");
    assert_eq!(db.count("select count(*) from tasker.subscription").await, 1, "rolled back");
    let unknown = db.engine.check_event("payment_takn").await.unwrap_err();
    assert!(unknown.message.contains("did you mean default.payment_taken?"), "{unknown}");
    db.engine.check_event("default.order_done").await.unwrap();
    db.engine.check_event("*").await.unwrap();
}

#[tokio::test]
async fn redelivery_begins_the_attempts_anew_and_may_name_a_new_subscription() {
    let db = db().await;
    let (_, revision) = db.register(ORDERS).await;
    db.webhook("hook", "payment_taken").await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    hand.drain().await;
    let taken = db.take(&[]).await.deliveries.remove(0);
    let mut conn = db.engine.acquire().await.unwrap();
    db.engine.end_delivery(&mut conn, &taken, Some("no"), None).await.unwrap();
    let filter = PublicationFilter { task: Some(task), event: Some("payment_taken".to_owned()), ..Default::default() };
    let id = db.engine.publications(&filter).await.unwrap()[0].publication_id;
    assert_eq!(db.engine.redeliver(Some(id), Some("hook")).await.unwrap(), 1);
    let again = db.take(&[]).await.deliveries.remove(0);
    assert_eq!((again.delivery_id, again.attempt), (taken.delivery_id, 1));
    assert_eq!(db.engine.redeliver(Some(id), None).await.unwrap(), 0, "it is under way");
    db.webhook("later", "order_done").await;
    assert_eq!(db.engine.redeliver(Some(id), Some("later")).await.unwrap(), 1);
    assert_eq!(db.take(&[]).await.deliveries.len(), 1);
    let error = db.engine.redeliver(None, Some("hok")).await.unwrap_err();
    assert!(error.message.contains("did you mean `hook`?"), "{error}");
}

#[tokio::test]
async fn what_publishes_nothing_looks_for_nothing() {
    let db = db().await;
    let (_, revision) = db.register(DAG7).await;
    db.webhook("hook", "*").await;
    let mut hand = db.hand(&["h"]).await;
    db.submit(revision, "{}").await;
    assert_eq!(hand.drain().await, 7);
    assert_eq!(db.count("select count(*) from tasker.publication").await, 0);
    assert_eq!(db.count("select count(*) from tasker.step where publishes").await, 0);
    assert_eq!(db.count("select count(*) from tasker.workflow_event").await, 0);
}
