//! Heartbeats, settling in the handler's own transaction, announcements, SQL's own submit, the sweeper, the clock, the plans.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::time::Duration;

use sqlx::{Connection, Row};
use support::*;
use tasker_engine::sweep::RetryPolicies;
use tasker_engine::{Beat, BeatAnswer, Change, Lease, Submission, clock, pgmq};
use tasker_model::outcome::StepFailure;
use tasker_model::retry::Retry;
use tasker_model::{Error, ErrorKind, Payload, Result, TaskId};

const ONE: &str = "{name: one, steps: {a: {call: h}}}";

fn beat(lease: Lease) -> Beat {
    Beat { lease, running: Duration::from_secs(3) }
}

#[tokio::test]
async fn heartbeats_extend_and_tell_what_is_lost() {
    let db = db().await;
    let (_, revision) = db.register(ONE).await;
    let mut hand = db.hand(&["h"]).await;
    let kept = db.submit(revision, "{}").await;
    hand.caller.lease = Duration::from_millis(300);
    let first = hand.claim_one().await;
    let worker = hand.caller.worker_id;
    let long = Duration::from_secs(30);
    let answers =
        pgmq::extend(&db.engine, &mut hand.conn, worker, Some(Duration::from_secs(2)), &[beat(first.lease)], long)
            .await
            .unwrap();
    assert!(answers.is_empty());
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert!(hand.claim(1).await.leased.is_empty(), "the lease was extended");
    assert_eq!(
        db.text(
            "select (extract(epoch from now() - started_at))::int::text from tasker.lease_view where task_id = $1",
            kept
        )
        .await,
        "3"
    );
    assert_eq!(db.count("select count(*) from tasker.worker where idle_until > now()").await, 1);
    // A lease that ran out is another's; so is one whose step was settled.
    let gone = Lease { read_ct: 7, ..first.lease };
    let answers =
        pgmq::extend(&db.engine, &mut hand.conn, worker, None, &[beat(gone), beat(first.lease)], long).await.unwrap();
    assert_eq!(answers, [BeatAnswer::Lost(0)]);
    hand.settle(&[done(&first.lease, "1")]).await;
    let answers = pgmq::extend(&db.engine, &mut hand.conn, worker, None, &[beat(first.lease)], long).await.unwrap();
    assert_eq!(answers, [BeatAnswer::Lost(0)]);
    assert_eq!(db.count("select count(*) from tasker.lease_view").await, 0);
}

#[tokio::test]
async fn a_heartbeat_does_not_wait_for_a_settle_in_flight() {
    let db = db().await;
    let (_, revision) = db.register(ONE).await;
    let mut hand = db.hand(&["h"]).await;
    db.submit(revision, "{}").await;
    let claimed = hand.claim_one().await;
    let mut other = db.engine.open().await.unwrap();
    let mut tx = other.begin().await.unwrap();
    db.engine.settle_here(&mut tx, &claimed.lease, &Payload::null(), Duration::ZERO, None).await.unwrap();
    let beats = [beat(claimed.lease)];
    let extend = pgmq::extend(&db.engine, &mut hand.conn, hand.caller.worker_id, None, &beats, Duration::from_secs(30));
    let answers = tokio::time::timeout(Duration::from_secs(2), extend).await.expect("it skips the locked row").unwrap();
    assert!(answers.is_empty(), "a skipped row is ok: {answers:?}");
    tx.rollback().await.unwrap();
}

#[tokio::test]
async fn two_holders_of_one_step_commit_their_rows_once() {
    let db = db().await;
    let (_, revision) = db.register("{name: two, steps: {a: {call: h}, b: {call: h, after: [a]}}}").await;
    sqlx::query("create table effect (step text)").execute(&db.pool).await.unwrap();
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    hand.caller.lease = Duration::ZERO;
    let holders = [hand.claim_one().await, hand.claim_one().await];
    let attempts = holders.iter().map(|held| {
        let (engine, lease) = (db.engine.clone(), held.lease);
        async move {
            let mut conn = engine.open().await?;
            let mut tx = conn.begin().await.unwrap();
            sqlx::query("insert into effect values ('a')").execute(&mut *tx).await.unwrap();
            engine.settle_here(&mut tx, &lease, &Payload::parse("[1]")?, Duration::ZERO, None).await?;
            tx.commit().await.unwrap();
            Ok::<(), Error>(())
        }
    });
    let results = futures::future::join_all(attempts).await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    let lost = results.into_iter().find_map(Result::err).unwrap();
    assert_eq!(lost.kind, ErrorKind::LeaseLost);
    assert_eq!(db.count("select count(*) from effect").await, 1);
    assert_eq!(db.steps(task).await, "done ready");
    db.check().await;
}

#[tokio::test]
async fn settle_here_rolls_back_with_the_callers_rows_and_wants_read_committed() {
    let db = db().await;
    let (_, revision) = db.register(ONE).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    let claimed = hand.claim_one().await;
    let mut tx = db.pool.begin().await.unwrap();
    db.engine.settle_here(&mut tx, &claimed.lease, &Payload::null(), Duration::ZERO, None).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(db.steps(task).await, "ready");
    let mut tx = db.pool.begin_with("begin isolation level repeatable read").await.unwrap();
    let error =
        db.engine.settle_here(&mut tx, &claimed.lease, &Payload::null(), Duration::ZERO, None).await.unwrap_err();
    assert!(error.message.contains("read committed"), "{error}");
    drop(tx);
    assert!(hand.settle(&[done(&claimed.lease, "1")]).await.verdicts.is_empty());
    db.check().await;
}

#[tokio::test]
async fn a_step_without_a_handler_is_held_until_one_is_announced() {
    let db = db().await;
    let (_, revision) = db.register("{name: two, steps: {a: {call: known}, b: {call: later, after: [a]}}}").await;
    let mut hand = db.hand(&["known"]).await;
    let task = db.submit(revision, "{}").await;
    let a = hand.claim_one().await;
    hand.settle(&[done(&a.lease, "1")]).await;
    assert_eq!(db.text("select reason from tasker.hold where task_id = $1", task).await, "no_handler");
    db.check().await;
    let mut late = db.hand(&["later"]).await;
    assert_eq!(late.claim_one().await.lease.idx, 1);
    assert_eq!(db.count("select count(*) from tasker.hold").await, 0);
    db.check().await;
}

#[tokio::test]
async fn no_hold_is_forgotten_when_announcements_and_submits_race() {
    let db = db().await;
    for round in 0..20 {
        let (_, revision) = db.register(&format!("{{name: race{round}, steps: {{a: {{call: h{round}}}}}}}")).await;
        let handler = format!("h{round}");
        let handlers = [handler.as_str()];
        let (_, mut hand) = tokio::join!(db.submit(revision, "{}"), db.hand(&handlers));
        assert_eq!(hand.claim(1).await.leased.len(), 1, "round {round}");
    }
    db.check().await;
}

#[tokio::test]
async fn a_handler_has_one_kind_while_a_worker_of_it_lives() {
    let db = db().await;
    let (_, revision) = db.register(ONE).await;
    let rust = db.hand(&["h"]).await;
    db.submit(revision, "{}").await;
    let worker = db
        .engine
        .start_worker(&tasker_engine::NewWorker {
            name: "p".into(),
            kind: "python".into(),
            host: String::new(),
            pid: 1,
            version: String::new(),
            concurrency: 1,
            lease: Duration::from_secs(30),
        })
        .await
        .unwrap();
    let names = [("default".to_owned(), "h".to_owned())];
    let error = db.engine.announce(worker, "python", &names).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    db.engine.stop_worker(rust.caller.worker_id).await.unwrap();
    let mut python = db.hand_of("python", &["h"]).await;
    assert_ne!(python.caller.queues, rust.caller.queues);
    assert_eq!(python.claim(1).await.leased.len(), 1, "what waited for the old kind moved to the new one");
    db.check().await;
}

#[tokio::test]
async fn registering_is_idempotent_and_only_new_content_moves_current() {
    let db = db().await;
    let (first, one) = db.register(ONE).await;
    let (_, two) = db.register("{name: one, steps: {a: {call: h}, b: {call: h}}}").await;
    assert_ne!(one, two);
    assert!(!db.engine.register(&first).await.unwrap().created);
    let mut conn = db.engine.acquire().await.unwrap();
    let reference = first.definition.reference();
    assert_eq!(
        db.engine.current_revision(&mut conn, &reference).await.unwrap(),
        two,
        "an old process does not move it back"
    );
    db.engine.activate(&reference, &first.hash[..8]).await.unwrap();
    assert_eq!(db.engine.current_revision(&mut conn, &reference).await.unwrap(), one);
    assert_eq!(db.engine.activate(&reference, "nope").await.unwrap_err().kind, ErrorKind::NotFound);
    let error = db.engine.current_revision(&mut conn, &"onee".parse().unwrap()).await.unwrap_err();
    assert!(error.message.contains("did you mean default.one?"), "{error}");
    assert_eq!(db.engine.revision(&mut conn, one).await.unwrap().hash, first.hash);
}

#[tokio::test]
async fn sql_submit_checks_what_it_can_and_names_the_remedy() {
    let db = db().await;
    db.register("{name: order, namespace: shop, input: {type: object, properties: {id: {type: integer}, email: {type: string}}, required: [id]}, steps: {a: {call: h}}}").await;
    let cases = [
        ("select * from tasker.submit('shop.ordr', '{}')", "TK002", "not registered"),
        ("select * from tasker.submit('order', '{}')", "TK002", "not registered"),
        ("select * from tasker.submit('shop.order', '[]')", "TK008", "must be a JSON object"),
        ("select * from tasker.submit('shop.order', '{}')", "TK008", "\"id\" is missing"),
        ("select * from tasker.submit('shop.order', '{\"id\": 1.5}')", "TK008", "must be of type integer"),
        ("select * from tasker.submit('shop.order', '{\"id\": 1, \"email\": 2}')", "TK008", "must be of type string"),
        (
            "select * from tasker.submit('shop.order', jsonb_build_object('id', 1, 'x', repeat('x', 300000)))",
            "TK008",
            "at most 262144",
        ),
        ("select * from tasker.submit('shop.order', '{\"id\": 1}', priority => 4)", "TK001", "priority"),
        ("select * from tasker.submit('shop.order', '{\"id\": 1}', key => '')", "TK001", "key"),
        ("select * from tasker.submit('shop.order', '{\"id\": 1}', tags => '[1]')", "TK001", "tags"),
        ("select * from tasker.submit('shop.order', '{\"id\": 1}', skip => '{nope}')", "TK001", "nope"),
        ("select * from tasker.submit(null, '{}')", "TK002", "not registered"),
    ];
    for (sql, code, part) in cases {
        let error = sqlx::query(sql).fetch_one(&db.pool).await.unwrap_err();
        let database = error.as_database_error().unwrap();
        assert_eq!(database.code().unwrap(), code, "{sql}: {error}");
        assert!(error.to_string().contains(part), "{sql}: {error}");
        assert!(database.downcast_ref::<sqlx::postgres::PgDatabaseError>().hint().is_some(), "{sql} has no hint");
    }
    assert!(
        sqlx::query("select * from tasker.submit('shop.order', '{\"id\": \"\\u0000\"}')")
            .fetch_one(&db.pool)
            .await
            .is_err()
    );
    assert_eq!(db.count("select count(*) from tasker.task").await, 0);
    let row = sqlx::query("select * from tasker.submit('shop.order', '{\"id\": 2.0}', key => 'k', tags => '{\"tenant\": \"acme\"}', priority => 3)").fetch_one(&db.pool).await.unwrap();
    assert!(row.get::<bool, _>("created"));
    let again = sqlx::query("select * from tasker.submit('shop.order', '{\"id\": 2.0}', key => 'k')")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert!(!again.get::<bool, _>("created"));
    assert_eq!(row.get::<uuid::Uuid, _>("task_id"), again.get::<uuid::Uuid, _>("task_id"));
    let conflict = sqlx::query("select * from tasker.submit('shop.order', '{\"id\": 3}', key => 'k')")
        .fetch_one(&db.pool)
        .await
        .unwrap_err();
    assert_eq!(conflict.as_database_error().unwrap().code().unwrap(), "TK003");
    assert_eq!(row.get::<uuid::Uuid, _>("task_id").get_version_num(), 7);
}

#[tokio::test]
async fn declared_search_fields_become_tags() {
    let db = db().await;
    let (_, revision) = db.register("{name: one, search: [order_id], input: {type: object, properties: {order_id: {type: integer}}}, steps: {a: {call: h}}}").await;
    let task = db.submit(revision, r#"{"order_id": 42, "other": 1}"#).await;
    assert_eq!(db.text("select tags::text from tasker.task where task_id = $1", task).await, r#"{"order_id": 42}"#);
}

struct Never;
impl RetryPolicies for Never {
    async fn retry(&self, _: i32, _: i32) -> Result<Retry> {
        Ok(Retry { backoff: tasker_model::retry::Backoff::None, ..Retry::attempts(2) })
    }
}

#[tokio::test]
async fn the_sweeper_times_out_what_its_worker_does_not() {
    let db = db().await;
    let (_, revision) =
        db.register("{name: one, steps: {a: {call: h, timeout: 1s, retry: {attempts: 2, backoff: none}}}}").await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    for attempt in 1..=2 {
        let claimed = hand.claim_one().await;
        assert_eq!(claimed.attempt, attempt);
        pgmq::extend(
            &db.engine,
            &mut hand.conn,
            hand.caller.worker_id,
            None,
            &[beat(claimed.lease)],
            Duration::from_secs(30),
        )
        .await
        .unwrap();
        let (swept, _) = db.engine.sweep(&mut hand.conn, &Never).await.unwrap().unwrap();
        assert_eq!(swept.timed_out, 0, "not yet: timeout and two leases");
        sqlx::query("update tasker.lease_view set started_at = now() - interval '62 seconds'")
            .execute(&db.pool)
            .await
            .unwrap();
        let (swept, _) = db.engine.sweep(&mut hand.conn, &Never).await.unwrap().unwrap();
        assert_eq!(swept.timed_out, 1);
        assert_eq!(hand.settle(&[done(&claimed.lease, "1")]).await.verdicts.len(), 1, "its late success is lost");
        db.check().await;
    }
    assert_eq!(db.task_state(task).await, "failed");
    assert_eq!(db.text("select error->>'kind' from tasker.task where task_id = $1", task).await, "timeout");
    db.engine.sweep_deeply(&mut hand.conn).await.unwrap().unwrap();
    assert_eq!(db.messages().await, 0, "one full pass leaves nothing of a finished step");
}

#[tokio::test]
async fn the_sweeper_forgets_dead_workers_and_repairs_lost_messages() {
    let db = db().await;
    let (_, revision) = db.register(ONE).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    sqlx::query("update tasker.worker set heartbeat_at = now() - interval '2 minutes'")
        .execute(&db.pool)
        .await
        .unwrap();
    let (swept, _) = db.engine.sweep(&mut hand.conn, &Never).await.unwrap().unwrap();
    assert_eq!(swept.workers, 1);
    let queue = hand.caller.queues[0];
    sqlx::query(sqlx::AssertSqlSafe(format!("delete from pgmq.q_tq{queue}_1"))).execute(&db.pool).await.unwrap();
    let broken = db.count("select count(*) from tasker.check_invariants()").await;
    assert_eq!(broken, 2, "I2 and I5 see it");
    assert_eq!(db.engine.sweep_deeply(&mut hand.conn).await.unwrap().unwrap().repaired, 0, "too young");
    sqlx::query("update tasker.task set created_at = now() - interval '11 minutes'").execute(&db.pool).await.unwrap();
    assert_eq!(db.engine.sweep_deeply(&mut hand.conn).await.unwrap().unwrap().repaired, 1);
    db.check().await;
    hand.drain().await;
    assert_eq!(db.task_state(task).await, "complete");
}

#[tokio::test]
async fn only_one_sweeps_at_a_time() {
    let db = db().await;
    let mut one = db.pool.acquire().await.unwrap();
    let mut two = db.engine.open().await.unwrap();
    sqlx::query("select pg_advisory_lock(hashtextextended('tasker.sweep', 0))").execute(&mut *one).await.unwrap();
    assert!(db.engine.sweep(&mut two, &Never).await.unwrap().is_none());
}

#[tokio::test]
async fn no_submit_or_settle_fails_for_lack_of_a_partition() {
    let db = db().await;
    let (_, revision) = db.register(DAG7).await;
    let mut hand = db.hand(&["h"]).await;
    let mut tx = hand.conn.begin().await.unwrap();
    clock::begin_test(&mut tx, db.engine.schema()).await.unwrap();
    clock::shift(&mut tx, Duration::from_hours(366 * 24)).await.unwrap();
    let reply = db
        .engine
        .submit(&mut tx, &[Submission::new(revision, Payload::empty_object())], None, tasker_engine::Root::Anyone)
        .await
        .unwrap();
    let caller = tasker_engine::Caller { want: 1, ..hand.caller.clone() };
    let claimed = pgmq::receive(&db.engine, &mut tx, &caller).await.unwrap().leased.remove(0);
    pgmq::settle(&db.engine, &mut tx, &caller, &[done(&claimed.lease, "1")]).await.unwrap();
    let year: i64 = sqlx::query_scalar("select count(*) from tasker.event_default where task_id = $1")
        .bind(reply.submitted[0].task_id.0)
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    assert!(year >= 4, "they are in the default partition");
}

#[tokio::test]
async fn a_test_session_sees_only_its_own_tasks_and_moves_its_own_clock() {
    let db = db().await;
    let (_, revision) = db.register(ONE).await;
    let mut hand = db.hand(&["h"]).await;
    db.submit(revision, "{}").await;
    let mut tx = hand.conn.begin().await.unwrap();
    clock::begin_test(&mut tx, db.engine.schema()).await.unwrap();
    let caller = tasker_engine::Caller { want: 10, ..hand.caller.clone() };
    assert!(pgmq::receive(&db.engine, &mut tx, &caller).await.unwrap().leased.is_empty());
    let own = db
        .engine
        .submit(&mut tx, &[Submission::new(revision, Payload::empty_object())], None, tasker_engine::Root::Anyone)
        .await
        .unwrap()
        .submitted[0]
        .task_id;
    let claimed = pgmq::receive(&db.engine, &mut tx, &caller).await.unwrap().leased.remove(0);
    assert_eq!(claimed.lease.task_id, own);
    let change = Change::Retry { error: StepFailure::unexpected("again"), delay: Duration::from_hours(1) };
    pgmq::settle(
        &db.engine,
        &mut tx,
        &tasker_engine::Caller { want: 0, ..caller.clone() },
        &[outcome(&claimed.lease, change)],
    )
    .await
    .unwrap();
    let next = pgmq::publish(&db.engine, &mut tx).await.unwrap().next_timer.unwrap();
    clock::shift(&mut tx, next).await.unwrap();
    pgmq::publish(&db.engine, &mut tx).await.unwrap();
    assert_eq!(
        pgmq::receive(&db.engine, &mut tx, &caller).await.unwrap().leased[0].attempt,
        2,
        "an hour passed in no time"
    );
    tx.rollback().await.unwrap();
    assert_eq!(db.count("select count(*) from tasker.task").await, 1);
    clock::set_test_mode(&mut db.engine.acquire().await.unwrap(), db.engine.schema(), false).await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    assert_eq!(clock::begin_test(&mut tx, db.engine.schema()).await.unwrap_err().kind, ErrorKind::Forbidden);
    drop(tx);
    let offset: bool = sqlx::query_scalar("select set_config('tasker.clock_offset', '1 year', false) is not null and tasker.now() < now() + interval '1 hour'")
        .fetch_one(&mut *db.pool.acquire().await.unwrap())
        .await
        .unwrap();
    assert!(offset, "an unmarked database has one clock");
}

/// Every change of state that happens in the tests' storms is in the table; here the guards refuse what is not.
#[tokio::test]
async fn the_guards_admit_exactly_the_transitions_of_the_table() {
    use tasker_model::state::StepState;
    let db = db().await;
    let (_, revision) = db.register(ONE).await;
    let mut hand = db.hand(&["h"]).await;
    for from in StepState::ALL {
        let task: TaskId = db.submit(revision, "{}").await;
        let claimed = hand.claim_one().await;
        sqlx::query("update tasker.step set state = $2::text::tasker.step_state where task_id = $1")
            .bind(task.0)
            .bind(from.as_str())
            .execute(&db.pool)
            .await
            .unwrap();
        let reply = hand.settle(&[done(&claimed.lease, "1")]).await;
        let applied = reply.verdicts.is_empty();
        assert_eq!(applied, StepState::sources_of(StepState::Done).contains(from), "{from} -> done");
        sqlx::query("delete from tasker.task where task_id = $1").bind(task.0).execute(&db.pool).await.unwrap();
        sqlx::query("delete from tasker.step where task_id = $1").bind(task.0).execute(&db.pool).await.unwrap();
    }
}

#[tokio::test]
async fn the_sweeper_vacuums_a_queue_full_of_dead_entries() {
    let db = db().await;
    let (_, revision) = db.register(ONE).await;
    let mut hand = db.hand(&["h"]).await;
    for _ in 0..8 {
        let many: Vec<_> = (0..500).map(|_| Submission::new(revision, Payload::empty_object())).collect();
        db.engine.submit(&mut hand.conn, &many, None, tasker_engine::Root::Anyone).await.unwrap();
    }
    assert_eq!(hand.drain().await, 4000);
    sqlx::raw_sql("select pg_stat_force_next_flush()").execute(&mut hand.conn).await.unwrap();
    let vacuums = "select sum(vacuum_count)::bigint from pg_stat_user_tables where schemaname = 'pgmq'";
    assert_eq!(db.count(vacuums).await, 0);
    // Statistics arrive a moment later.
    for _ in 0..50 {
        db.engine.sweep(&mut hand.conn, &Never).await.unwrap();
        if db.count(vacuums).await > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no queue was vacuumed");
}
