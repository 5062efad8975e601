//! What only shows when many act at once: the two snapshot bugs, lock order, invariants under load.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use support::*;
use tasker_engine::{Caller, Change, Engine, Settlement, pgmq, retrying};
use tasker_model::outcome::StepFailure;
use tasker_model::{ErrorKind, Payload, TaskId};

/// Two parents settled at the same moment by two connections: whoever is last must see the other's result.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_last_parent_sees_its_siblings_result() {
    let db = db().await;
    let (_, revision) =
        db.register("{name: join, steps: {a: {call: h}, b: {call: h}, c: {call: h, after: [a, b]}}}").await;
    let mut one = db.hand(&["h"]).await;
    let mut two = db.hand(&["h"]).await;
    for _ in 0..300 {
        db.submit(revision, "{}").await;
        let parents = one.claim(2).await.leased;
        let (first, second) = ([done(&parents[0].lease, r#""A""#)], [done(&parents[1].lease, r#""B""#)]);
        let (left, right) = tokio::join!(one.settle_for(&first, 1), two.settle_for(&second, 1));
        let joined: Vec<_> = left.leased.iter().chain(&right.leased).collect();
        assert_eq!(joined.len(), 1, "exactly one of them gets the join");
        assert_eq!(joined[0].results.as_ref().unwrap().get(), r#"{"0": "A", "1": "B"}"#);
        let lease = joined[0].lease;
        one.settle(&[done(&lease, "1")]).await;
    }
    db.check().await;
}

/// A claimer that reads while another connection enqueues must never lease a message and drop it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_message_is_leased_and_dropped_while_others_enqueue() {
    let db = db().await;
    let (_, revision) = db.register("{name: pair, steps: {a: {call: h}, b: {call: h, after: [a]}}}").await;
    let mut settling = db.hand(&["h"]).await;
    let mut claiming = db.hand(&["h"]).await;
    let tasks = 400;
    let finished = Arc::new(AtomicBool::new(false));
    let claimer = {
        let finished = finished.clone();
        tokio::spawn(async move {
            let mut seen = 0;
            loop {
                let last = finished.load(Ordering::SeqCst);
                let steps = claiming.claim(10).await.leased;
                let outcomes: Vec<_> = steps.iter().map(|c| done(&c.lease, "1")).collect();
                seen += outcomes.len();
                claiming.settle(&outcomes).await;
                if last && steps.is_empty() {
                    return seen;
                }
            }
        })
    };
    let mut seen = 0;
    for _ in 0..tasks {
        db.submit(revision, "{}").await;
        for claimed in settling.claim(1).await.leased {
            settling.settle(&[done(&claimed.lease, "1")]).await;
            seen += 1;
        }
    }
    finished.store(true, Ordering::SeqCst);
    assert_eq!(seen + claimer.await.unwrap(), 2 * tasks);
    assert_eq!(db.count("select count(*) from tasker.task where state <> 'complete'").await, 0);
    db.check().await;
}

struct Storm {
    engine: Engine,
    revisions: Vec<i32>,
    caller: Caller,
    tasks: Arc<std::sync::Mutex<Vec<TaskId>>>,
    stop: Arc<AtomicBool>,
    settled: Arc<AtomicUsize>,
}

impl Storm {
    fn outcome(rng: &mut StdRng, lease: &tasker_engine::Lease) -> Settlement {
        let change = match rng.random_range(0..100) {
            0..80 => Change::Success { value: Payload::parse("1").unwrap(), metadata: None },
            80..86 => Change::Retry { error: StepFailure::unexpected("again"), delay: Duration::ZERO },
            86..89 => Change::Retry { error: StepFailure::timeout(Duration::from_secs(1)), delay: Duration::ZERO },
            89..92 => Change::Release { reason: "drain" },
            92..95 => Change::Cancelled { error: StepFailure::new(ErrorKind::Cancelled, "stopped") },
            _ => Change::Failure { error: StepFailure::permanent("broken") },
        };
        outcome(lease, change)
    }

    /// Settles and claims in batches mixed over tasks, in random order, sometimes twice, sometimes never.
    async fn work(self, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut conn = self.engine.open().await.unwrap();
        let mut held: Vec<tasker_engine::Lease> = vec![];
        let mut repeat: Vec<Settlement> = vec![];
        while !self.stop.load(Ordering::Relaxed) || !held.is_empty() {
            held.shuffle(&mut rng);
            let taken = held.split_off(held.len() / 3);
            let mut batch: Vec<_> = taken.iter().map(|lease| Self::outcome(&mut rng, lease)).collect();
            batch.append(&mut repeat);
            repeat = batch.iter().filter(|_| rng.random_range(0..20) == 0).cloned().collect();
            let want = if self.stop.load(Ordering::Relaxed) { 0 } else { rng.random_range(0..30) };
            let caller = Caller {
                want,
                handoff: rng.random_range(0..=want),
                turn: rng.random_range(0..1000),
                ..self.caller.clone()
            };
            let reply = retrying!(pgmq::settle(&self.engine, &mut conn, &caller, &batch).await).unwrap();
            self.settled.fetch_add(batch.len(), Ordering::Relaxed);
            held.extend(reply.leased.iter().map(|c| c.lease));
            let refused: Vec<_> = reply
                .refused
                .iter()
                .map(|r| {
                    outcome(
                        &r.claimed.lease,
                        Change::Cancelled { error: StepFailure::new(ErrorKind::Cancelled, "the task is ending") },
                    )
                })
                .collect();
            retrying!(
                pgmq::settle(&self.engine, &mut conn, &Caller { want: 0, ..self.caller.clone() }, &refused).await
            )
            .unwrap();
            if want == 0 && held.len() < 3 {
                let last: Vec<_> = held.drain(..).map(|lease| Self::outcome(&mut rng, &lease)).collect();
                retrying!(
                    pgmq::settle(&self.engine, &mut conn, &Caller { want: 0, ..self.caller.clone() }, &last).await
                )
                .unwrap();
            }
        }
    }

    async fn submit(self, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut conn = self.engine.open().await.unwrap();
        while !self.stop.load(Ordering::Relaxed) {
            let batch: Vec<_> = (0..rng.random_range(1..5))
                .map(|_| {
                    tasker_engine::Submission::new(
                        self.revisions[rng.random_range(0..self.revisions.len())],
                        Payload::empty_object(),
                    )
                })
                .collect();
            let reply = self.engine.submit(&mut conn, &batch, None, tasker_engine::Root::Anyone).await.unwrap();
            self.tasks.lock().unwrap().extend(reply.submitted.iter().map(|s| s.task_id));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn cancel(self, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        while !self.stop.load(Ordering::Relaxed) {
            let task = {
                let tasks = self.tasks.lock().unwrap();
                tasks.get(tasks.len().saturating_sub(rng.random_range(1..40))).copied()
            };
            if let Some(task) = task {
                self.engine.cancel(task, "storm", "testing").await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..20))).await;
        }
    }

    async fn pump(self) {
        let mut conn = self.engine.open().await.unwrap();
        while !self.stop.load(Ordering::Relaxed) {
            pgmq::publish(&self.engine, &mut conn).await.unwrap();
            for message in self.engine.take_internal(&mut conn, 5).await.unwrap() {
                retrying!(self.engine.apply_internal(&mut conn, &message).await).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
}

/// 32 connections submit, settle, fail and cancel the same wide tasks: no deadlock, and every invariant holds afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_connections_on_the_same_wide_tasks_never_deadlock() {
    let db = db().await;
    let middle = each(40, |n| format!("  m{n}: {{ call: h, after: [root] }}\n"));
    let names = each(40, |n| format!("m{n}, "));
    let mut revisions = vec![];
    for policy in ["fail_fast", "continue"] {
        let yaml = format!(
            "name: wide_{policy}\non_failure: {policy}\nsteps:\n  root: {{ call: h }}\n{middle}  join: {{ call: h, after: [{names}] }}\n  half: {{ call: h, after: [m0, m2, m4, m6] }}\n  tail: {{ call: h, after: [join, half] }}\n"
        );
        revisions.push(db.register(&yaml).await.1);
    }
    let hand = db.hand(&["h"]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let settled = Arc::new(AtomicUsize::new(0));
    let tasks = Arc::new(std::sync::Mutex::new(vec![]));
    let storm = || Storm {
        engine: db.engine.clone(),
        revisions: revisions.clone(),
        // Short leases, so that messages are delivered again while their first holder still works.
        caller: Caller { lease: Duration::from_millis(400), ..hand.caller.clone() },
        tasks: tasks.clone(),
        stop: stop.clone(),
        settled: settled.clone(),
    };
    let mut all = tokio::task::JoinSet::new();
    for seed in 0..24 {
        all.spawn(storm().work(seed));
    }
    for seed in 100..104 {
        all.spawn(storm().submit(seed));
    }
    for seed in 200..202 {
        all.spawn(storm().cancel(seed));
    }
    for _ in 0..2 {
        all.spawn(storm().pump());
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(result) = all.join_next().await {
        result.unwrap();
    }
    let deadlocks: i64 =
        sqlx::query_scalar("select deadlocks from pg_stat_database where datname = current_database()")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert_eq!(deadlocks, 0);
    assert!(settled.load(Ordering::Relaxed) > 1000, "the storm did something: {settled:?}");
    // Leases run out, then everything is brought to its end.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut last = db.hand(&["h"]).await;
    for _ in 0..10_000 {
        sqlx::query("update tasker.timer set due_at = now() where kind = 'grace'").execute(&db.pool).await.unwrap();
        pgmq::publish(&db.engine, &mut last.conn).await.unwrap();
        db.internal().await;
        let reply = last.claim(100).await;
        if reply.leased.is_empty() && reply.refused.is_empty() && db.messages().await == 0 {
            break;
        }
        let mut outcomes: Vec<_> = reply.leased.iter().map(|c| done(&c.lease, "1")).collect();
        outcomes.extend(reply.refused.iter().map(|r| match r.reason {
            tasker_engine::Refusal::Poison => {
                outcome(&r.claimed.lease, Change::Failure { error: StepFailure::new(ErrorKind::Poison, "too often") })
            }
            _ => cancelled(&r.claimed.lease),
        }));
        last.settle(&outcomes).await;
    }
    db.check().await;
    assert_eq!(db.count("select count(*) from tasker.task where finished_at is null").await, 0, "every task ended");
    assert_eq!(db.messages().await, 0, "nothing is left in the queues");
    let states: Vec<(String, i64)> =
        sqlx::query_as("select state::text, count(*) from tasker.task group by 1 order by 1")
            .fetch_all(&db.pool)
            .await
            .unwrap();
    assert_eq!(states.len(), 3, "all ends were met: {states:?}");
}
