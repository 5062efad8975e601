//! Quantities that nobody sane sends and somebody will. `HOSTILE=full` takes the sizes of the promises; the default is a tenth.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod config;
mod support;

use std::time::{Duration, Instant};

use config::scaled;
use support::*;
use tasker_engine::{CancelReply, Change, Engine, Refusal, Root, Submission};
use tasker_model::{ErrorKind, Payload, TaskId};

const PAIR: &str = "{name: pair, steps: {a: {call: h}, b: {call: h, after: [a]}}}";

fn submissions(revision: i32, count: usize) -> Vec<Submission> {
    let input = |n: usize| Payload::parse(&format!(r#"{{"n":{n}}}"#)).unwrap();
    (0..count).map(|n| Submission { key: Some(format!("k{n}")), ..Submission::new(revision, input(n)) }).collect()
}

/// One call is one statement: all of it or nothing, and its cost grows no faster than its size.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_tasks_are_made_in_one_call() {
    let db = db().await;
    let (_, revision) = db.register(PAIR).await;
    db.hand(&["h"]).await;
    let count = scaled(100_000);
    let tasks = submissions(revision, count);
    let mut conn = db.engine.open().await.unwrap();
    let begun = Instant::now();
    let reply = db.engine.submit(&mut conn, &tasks, Some("test"), Root::Anyone).await.unwrap();
    let took = begun.elapsed();
    eprintln!("{count} tasks in one call: {took:?}");
    assert_eq!(reply.submitted.len(), count);
    assert!(reply.submitted.iter().all(|task| task.created));
    // Every one of them has its own input, in the order of the call.
    for at in [0, count / 2, count - 1] {
        let input =
            db.text("select input::text from tasker.task where task_id = $1", reply.submitted[at].task_id).await;
        assert_eq!(input, format!(r#"{{"n": {at}}}"#));
    }
    let begun = Instant::now();
    let again = db.engine.submit(&mut conn, &tasks, Some("test"), Root::Anyone).await.unwrap();
    eprintln!("the same again: {:?}", begun.elapsed());
    // Comparing every task with every other, or every key with every other, takes twenty seconds for ten thousand.
    assert!(took + begun.elapsed() < Duration::from_millis(u64::try_from(count).unwrap()), "{took:?}");
    assert!(again.submitted.iter().zip(&reply.submitted).all(|(a, b)| a.task_id == b.task_id && !a.created));
    assert_eq!(db.count("select count(*) from tasker.task").await, i64::try_from(count).unwrap());
    // The check of every invariant is made for ten thousand rows, not for hundreds of thousands.
    assert_eq!(db.messages().await, i64::try_from(count).unwrap());
}

/// One bad key among thousands refuses the call whole, and names the task that has it.
#[tokio::test(flavor = "multi_thread")]
async fn one_conflict_or_one_task_too_many_refuses_the_whole_call() {
    let db = db().await;
    let (_, revision) = db.register(PAIR).await;
    let other = Submission {
        key: Some("k700".to_owned()),
        ..Submission::new(revision, Payload::parse(r#"{"other":1}"#).unwrap())
    };
    let holder = db.submit_with(other).await;
    let mut conn = db.engine.open().await.unwrap();
    let error = db.engine.submit(&mut conn, &submissions(revision, 1_000), None, Root::Anyone).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(error.message.contains("k700") && error.message.contains(&holder.to_string()), "{error}");
    assert_eq!(db.count("select count(*) from tasker.task").await, 1);
    db.check().await;
}

/// An import: one transaction that submits thousands, one after the other, and is rolled back or committed as one.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_submits_share_one_transaction() {
    let db = db().await;
    let (_, revision) = db.register(PAIR).await;
    let mut hand = db.hand(&["h"]).await;
    let count = scaled(100_000) / 5;
    let mut conn = db.engine.open().await.unwrap();
    for commit in [false, true] {
        sqlx::query("begin").execute(&mut conn).await.unwrap();
        let begun = Instant::now();
        let mut halves = [Duration::ZERO; 2];
        for (n, task) in submissions(revision, count).into_iter().enumerate() {
            db.engine.submit(&mut conn, &[task], None, Root::Anyone).await.unwrap();
            halves[usize::from(n >= count / 2)] = begun.elapsed();
        }
        eprintln!("{count} submits in a transaction: {:?}", halves[1]);
        // The millionth costs what the first did.
        assert!(halves[1] < halves[0] * 4, "{halves:?}");
        // Others see none of it and are not held up.
        assert_eq!(hand.claim(10).await.leased.len(), 0);
        sqlx::query(if commit { "commit" } else { "rollback" }).execute(&mut conn).await.unwrap();
        let expected = if commit { i64::try_from(count).unwrap() } else { 0 };
        assert_eq!(db.count("select count(*) from tasker.task").await, expected);
        assert_eq!(db.messages().await, expected);
    }
    db.check().await;
}

/// Inputs at the very limit: kept whole, handed out within the limit of a claim, refused one byte later.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_inputs_are_kept_whole() {
    const LIMIT: usize = 256 * 1024;
    let db = db().await;
    let (compiled, revision) = db.register("{name: large, steps: {a: {call: h}}}").await;
    let mut hand = db.hand(&["h"]).await;
    // Text that does not compress: what is stored is what was sent.
    let noise = |n: usize| -> String {
        let mut state = u64::try_from(n).unwrap() + 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
        };
        (0..LIMIT - 8).map(|_| next()).collect()
    };
    let count = 200;
    let mut conn = db.engine.open().await.unwrap();
    let mut tasks = Vec::new();
    for n in 0..count {
        let input = Payload::parse(&format!(r#"{{"t":"{}"}}"#, noise(n))).unwrap();
        assert_eq!(input.get().len(), LIMIT);
        tasks.push(Submission::new(revision, input));
    }
    for task in &tasks {
        task.check(&compiled).unwrap();
    }
    let mut over = tasks[0].clone();
    over.input = Payload::parse(&format!(r#"{{"t":"x{}"}}"#, noise(0))).unwrap();
    assert_eq!(over.check(&compiled).unwrap_err().kind, ErrorKind::InputInvalid);
    db.engine.submit(&mut conn, &tasks, None, Root::Anyone).await.unwrap();
    let mut seen = 0;
    loop {
        let reply = hand.claim(100).await;
        let leased = reply.leased;
        if leased.is_empty() {
            break;
        }
        // 4 MiB a claim, whatever is asked for; the rest goes back.
        assert!(leased.len() <= 17, "{}", leased.len());
        for claimed in &leased {
            let given = claimed.input.get();
            assert_eq!(given.len(), LIMIT + 1, "jsonb writes a space after the colon, nothing else changes");
        }
        seen += leased.len();
        let mut outcomes: Vec<_> = leased.iter().map(|claimed| done(&claimed.lease, "1")).collect();
        outcomes.extend(reply.refused.iter().map(|refused| {
            assert_eq!(refused.reason, Refusal::Overflow);
            outcome(&refused.claimed.lease, Change::Release { reason: "overflow" })
        }));
        hand.settle(&outcomes).await;
    }
    assert_eq!(seen, count);
    db.check().await;
}

/// Cancelling what runs: every task ends, once, and what its workers report afterwards changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_running_tasks_are_cancelled() {
    let db = db().await;
    let (_, revision) = db.register(PAIR).await;
    let mut hand = db.hand(&["h"]).await;
    let count = scaled(10_000);
    let mut conn = db.engine.open().await.unwrap();
    let reply = db.engine.submit(&mut conn, &submissions(revision, count), None, Root::Anyone).await.unwrap();
    let tasks: Vec<TaskId> = reply.submitted.iter().map(|task| task.task_id).collect();
    let mut running = Vec::new();
    while running.len() < count {
        let leased = hand.claim(250).await.leased;
        assert!(!leased.is_empty());
        running.extend(leased);
    }
    let begun = Instant::now();
    let cancels = tasks.chunks(tasks.len().div_ceil(16)).map(|tasks| cancel_all(&db.engine, tasks));
    // While the handlers report: half of them that they were stopped, half of them that they had finished just before.
    let reports = async {
        let mut told = 0;
        for (n, batch) in running.chunks(250).enumerate() {
            let outcomes: Vec<_> = batch
                .iter()
                .map(|step| if n % 2 == 0 { cancelled(&step.lease) } else { done(&step.lease, "1") })
                .collect();
            hand.settle_for(&outcomes, 0).await;
            told += outcomes.len();
        }
        told
    };
    let (answers, told) = tokio::join!(futures::future::join_all(cancels), reports);
    assert_eq!((answers.iter().sum::<usize>(), told), (count, count));
    eprintln!("{count} cancels of running tasks: {:?}", begun.elapsed());
    // A release or a success that came before its cancel left a message, which whoever reads it settles as cancelled.
    loop {
        let reply = hand.claim(250).await;
        assert_eq!(reply.leased.len(), 0);
        if reply.refused.is_empty() {
            break;
        }
        let outcomes: Vec<_> = reply.refused.iter().map(|refused| cancelled(&refused.claimed.lease)).collect();
        hand.settle(&outcomes).await;
    }
    db.internal().await;
    assert_eq!(db.count("select count(*) from tasker.task where state = 'running'").await, 0);
    assert_eq!(db.count("select count(*) from tasker.task where state <> 'cancelled' and error is not null").await, 0);
    let ends = "select count(*) from (select from tasker.event where idx is null and kind in ('cancelled', 'complete', 'failed')
                group by task_id having count(*) <> 1) twice";
    assert_eq!(db.count(ends).await, 0);
    assert_eq!(db.messages().await, 0);
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(db.count(deadlocks).await, 0);
    db.check().await;
}

async fn cancel_all(engine: &Engine, tasks: &[TaskId]) -> usize {
    for task in tasks {
        match engine.cancel(*task, "test", "too many").await.unwrap() {
            CancelReply::Ending | CancelReply::Ended(_) => {}
        }
    }
    tasks.len()
}

/// The first use of a workflow by a fleet that starts at once: one revision, one current, no error.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_clients_register_one_workflow_at_once() {
    let db = db().await;
    let names: Vec<String> = (0..4).map(|n| DAG7.replace("name: dag7", &format!("name: fleet{n}"))).collect();
    let clients = (0..32).map(|client| {
        let (engine, names) = (db.engine.clone(), &names);
        async move {
            let mut ids = Vec::new();
            // In different orders: whoever locks two workflows must not do it the other way round.
            for n in 0..names.len() {
                let revision = compile(&names[(n + client) % names.len()]);
                let id = engine.register(&revision).await.unwrap().revision_id;
                let mut conn = engine.acquire().await.unwrap();
                let task = Submission::new(id, Payload::empty_object());
                engine.submit(&mut conn, &[task], None, Root::Anyone).await.unwrap();
                ids.push(id);
            }
            ids.sort_unstable();
            ids
        }
    });
    let ids = futures::future::join_all(clients).await;
    assert!(ids.iter().all(|own| *own == ids[0]), "{ids:?}");
    assert_eq!(db.count("select count(*) from tasker.revision").await, 4);
    assert_eq!(db.count("select count(*) from tasker.task").await, 4 * 32);
    assert_eq!(db.count("select count(*) from tasker.workflow where current_revision is null").await, 0);
    db.check().await;
}

/// Times that SQL can write and no program can read would stop every worker that claims them.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_no_program_can_read_is_refused() {
    let db = db().await;
    let (compiled, revision) = db.register(PAIR).await;
    for argument in ["run_at", "deadline"] {
        for time in ["infinity", "-infinity", "290000-01-01", "10000-01-01", "4713-01-01 BC"] {
            let sql = format!("select * from tasker.submit('pair', {argument} => '{time}')");
            let error = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&db.pool).await.unwrap_err();
            let refused = error.as_database_error().unwrap();
            assert_eq!(refused.code().as_deref(), Some("TK001"), "{time}: {refused}");
            assert!(refused.message().contains(argument), "{refused}");
        }
        let sql = format!("select * from tasker.submit('pair', {argument} => '9999-01-01')");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&db.pool).await.unwrap();
    }
    let mut far = Submission::new(revision, Payload::empty_object());
    far.deadline = Some(chrono::DateTime::<chrono::Utc>::MAX_UTC);
    assert_eq!(far.check(&compiled).unwrap_err().kind, ErrorKind::Invalid);
    let trace = "select * from tasker.submit('pair', trace => jsonb_build_object('a', repeat('x', 5000)))";
    assert!(sqlx::query(trace).execute(&db.pool).await.unwrap_err().to_string().contains("trace"));
    let mut hand = db.hand(&["h"]).await;
    assert_eq!(hand.claim(10).await.refused.len(), 1, "the one that is due, whose input SQL did not check");
    db.check().await;
}

/// A delay outlasts the time in which no worker was there to know the handler.
#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_task_that_was_there_before_its_worker_waits_for_its_time() {
    let db = db().await;
    let (_, revision) = db.register(PAIR).await;
    let hour = chrono::TimeDelta::hours(1);
    let now = tasker_engine::clock::now(&mut db.engine.acquire().await.unwrap(), db.engine.schema()).await.unwrap();
    let due = |run_at, skip: &[&str]| Submission {
        run_at,
        skip: skip.iter().map(|name| (*name).to_owned()).collect(),
        ..Submission::new(revision, Payload::empty_object())
    };
    db.submit_with(due(Some(now + hour), &[])).await;
    db.submit_with(due(Some(now + hour), &["a"])).await;
    let past = db.submit_with(due(Some(now - hour), &[])).await;
    let mut hand = db.hand(&["h"]).await;
    let leased = hand.claim(10).await.leased;
    assert_eq!(leased.iter().map(|claimed| claimed.lease.task_id).collect::<Vec<_>>(), [past]);
    assert_eq!(db.count("select count(*) from tasker.timer where kind = 'run'").await, 2);
    assert_eq!(db.count("select count(*) from tasker.hold").await, 0);
    db.check().await;
}
