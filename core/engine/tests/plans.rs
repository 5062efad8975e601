//! On a large table the hot statements read by index only. `auto_explain` writes the plan of every statement inside the functions to
//! the client as a notice; here they are looked at.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::Connection;
use support::*;
use tasker_engine::deliveries::Room;
use tasker_engine::subscriptions::Target;
use tasker_engine::{Beat, Caller, Root, Submission, pgmq};
use tasker_model::Payload;

/// Collects the notices of this thread's connections.
#[derive(Clone, Default)]
struct Notices(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Notices {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Text<'a>(&'a Notices);
        impl tracing::field::Visit for Text<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0.0.lock().unwrap().push(format!("{value:?}"));
                }
            }
        }
        if event.metadata().target().starts_with("sqlx") {
            event.record(&mut Text(self));
        }
    }
}

#[tokio::test]
async fn hot_statements_read_a_large_table_by_index_only() {
    use tracing_subscriber::layer::SubscriberExt;
    let db = db().await;
    let events = "events: { first: { on: success, step: s0 }, again: { on: retry, step: s0 }, not: { on: failure, step: s0 }, ended: { on: failure } }";
    let (_, revision) = db.register(&format!("{DAG7}{events}")).await;
    let hook = Target::Webhook { url: "http://localhost/hook", secret: "a secret of the test" };
    db.engine.subscribe("hook", "*", hook).await.unwrap();
    let mut hand = db.hand(&["h"]).await;
    for _ in 0..20 {
        let many: Vec<_> = (0..500).map(|_| Submission::new(revision, Payload::empty_object())).collect();
        db.engine.submit(&mut hand.conn, &many, None, Root::Anyone).await.unwrap();
    }
    assert_eq!(db.count("select count(*) from tasker.step").await, 70_000);
    sqlx::query("analyze").execute(&db.pool).await.unwrap();

    let notices = Notices::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(notices.clone()));
    let mut conn = db.engine.open().await.unwrap();
    for setting in [
        "load 'auto_explain'",
        "set auto_explain.log_min_duration = 0",
        "set auto_explain.log_nested_statements = on",
        "set auto_explain.log_level = notice",
    ] {
        sqlx::query(setting).execute(&mut conn).await.unwrap();
    }
    let caller = Caller { want: 20, handoff: 20, ..hand.caller.clone() };
    let mut tx = conn.begin().await.unwrap();
    let mut steps = pgmq::receive(&db.engine, &mut tx, &caller).await.unwrap().leased;
    for _ in 0..2 {
        let beats: Vec<_> = steps.iter().map(|c| Beat { lease: c.lease, running: Duration::ZERO }).collect();
        pgmq::extend(&db.engine, &mut tx, caller.worker_id, None, &beats, caller.lease).await.unwrap();
        let mut outcomes: Vec<_> = steps.iter().skip(2).map(|c| done(&c.lease, "1")).collect();
        outcomes.push(retry(&steps[0].lease, Duration::from_secs(9)));
        outcomes.push(failed(&steps[1].lease, "no"));
        steps = pgmq::settle(&db.engine, &mut tx, &caller, &outcomes).await.unwrap().leased;
    }
    pgmq::publish(&db.engine, &mut tx).await.unwrap();
    let room = Room { each: 8, limit: 8, lease: Duration::from_secs(30) };
    let taken = db.engine.take_deliveries(&mut tx, &[], &[], room).await.unwrap().deliveries;
    assert_eq!(taken.len(), 8);
    db.engine.keep_deliveries(&mut tx, &[(taken[0].delivery_id, 1)], room.lease).await.unwrap();
    db.engine.end_delivery(&mut tx, &taken[0], None, None).await.unwrap();
    db.engine
        .submit(
            &mut tx,
            &[Submission { key: Some("k".into()), ..Submission::new(revision, Payload::empty_object()) }],
            None,
            Root::Anyone,
        )
        .await
        .unwrap();
    tx.commit().await.unwrap();

    let plans = notices.0.lock().unwrap().clone();
    let seen = |table: &str| {
        plans.iter().any(|p| p.contains(&format!("on {table} ")) || p.contains(&format!(" on {table}\n")))
    };
    for table in ["step", "task", "timer", "delivery", "publication", "workflow_event"] {
        assert!(seen(table), "no plan of {table} among {} notices", plans.len());
    }
    for plan in plans.iter().filter(|p| p.contains("Seq Scan on ")) {
        for large in ["step", "task", "event", "task_key", "timer", "hold", "publication", "delivery", "workflow_event"]
        {
            let bad = plan.split("Seq Scan on ").skip(1).any(|rest| rest.split_whitespace().next() == Some(large));
            assert!(!bad, "{large} is read whole:\n{plan}");
        }
        assert!(!plan.contains("Seq Scan on q_"), "a queue is read whole:\n{plan}");
    }
}
