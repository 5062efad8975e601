//! More callers than connections, numbers that floats cannot hold, every character there is: through the API that applications use.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::value::RawValue;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use support::*;
use tasker::ErrorKind;
use tasker::prelude::*;

const SOON: Duration = Duration::from_secs(30);
/// One character of each plane, of each direction of writing, and the controls that JSON and PostgreSQL can hold.
const EVERY_PLANE: &str = "\u{1}\u{1b}[31m \n\t\u{7f} é שלום\u{202e} 👩‍👩‍👧 \u{20000}\u{30000}\u{40000}\u{50000}\u{60000}\u{70000}\u{80000}\u{90000}\u{a0000}\u{b0000}\u{c0000}\u{d0000}\u{e0001}\u{f0000}\u{10ffff}\u{fffd}\u{ffff}";

async fn small_pool(db: &Db, connections: u32, patience: Duration) -> PgPool {
    let options = PgPoolOptions::new().max_connections(connections).acquire_timeout(patience);
    options.connect(db.database.url()).await.unwrap()
}

/// Callers wait for their turn, with and without a transaction of their own and a worker in the same process: nothing is lost, and
/// nobody waits for somebody who waits for him.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_submitters_share_a_few_connections() {
    let db = db().await;
    for submitters in [64_u32, 256] {
        let pool = small_pool(&db, 3, SOON).await;
        let workflow = orders();
        let tasker = Tasker::from_pool(pool.clone()).workflow(workflow.clone()).concurrency(16);
        let worker = tasker.start().await.unwrap();
        let submits = (0..submitters).map(|n| {
            let (tasker, workflow, pool) = (tasker.clone(), workflow.clone(), pool.clone());
            tokio::spawn(async move {
                let order = order(&[f64::from(n)]);
                let task = if n % 2 == 0 {
                    tasker.submit(&workflow, order).await.unwrap()
                } else {
                    let mut tx = pool.begin().await.unwrap();
                    let task = workflow.submit(&mut tx, order).await.unwrap();
                    tx.commit().await.unwrap();
                    task
                };
                task.wait_for(SOON).await.unwrap().result::<String>().unwrap()
            })
        });
        let begun = Instant::now();
        let results = join_all(submits).await;
        eprintln!("{submitters} submitters over 3 connections: {:?}", begun.elapsed());
        for (n, result) in results.into_iter().enumerate() {
            assert_eq!(result.unwrap(), format!("{n} for 1 lines"));
        }
        worker.drain(SOON).await;
        pool.close().await;
    }
    db.check().await;
}

/// Whoever waited in vain is told what to do, and that it was not the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_others_hold_is_busy() {
    let db = db().await;
    let pool = small_pool(&db, 2, Duration::from_millis(200)).await;
    let tasker = Tasker::from_pool(pool.clone()).workflow(orders());
    tasker.register().await.unwrap();
    let held = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
    let submits = (0..64).map(|_| async { tasker.submit("orders.order_processing", order(&[1.0])).await.unwrap_err() });
    for error in join_all(submits).await {
        assert_eq!(error.kind, ErrorKind::Busy, "{error}");
        assert!(error.message.contains("TASKER_POOL_SIZE") && error.message.contains("all 2"), "{error}");
    }
    drop(held);
    tasker.submit("orders.order_processing", order(&[1.0])).await.unwrap();
    assert_eq!(db.count("task").await, 1);
}

/// The first use by a fleet: 32 programs, each with a Tasker and a pool of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_workflow_is_first_used_by_thirty_two_programs_at_once() {
    let db = db().await;
    let clients = (0..32).map(|_| {
        let url = db.database.url().to_owned();
        tokio::spawn(async move {
            let tasker = Tasker::builder().database_url(&url).pool_size(1).connect().await?.workflow(orders());
            let made = tasker.submit("orders.order_processing", order(&[1.0])).key("one").await?.is_new();
            tasker.submit("orders.order_processing", order(&[2.0])).await?;
            tasker.pool().close().await;
            Ok::<bool, tasker::Error>(made)
        })
    });
    let made: Vec<bool> = join_all(clients).await.into_iter().map(|client| client.unwrap().unwrap()).collect();
    assert_eq!(made.iter().filter(|made| **made).count(), 1, "one of them made the task with the key");
    assert_eq!(db.count("task").await, 33);
    let revisions: i64 = sqlx::query_scalar("select count(*) from tasker.revision").fetch_one(&db.pool).await.unwrap();
    assert_eq!(revisions, 1);
    db.check().await;
}

#[tasker::step]
async fn take(Input(input): Input<Box<RawValue>>) -> Box<RawValue> {
    input
}

#[tasker::step]
async fn pass_on(value: Dep<Take>) -> Box<RawValue> {
    value.0
}

/// A tree of values holds what fits a machine word; the text holds all of it.
#[tasker::step]
async fn read(text: Dep<PassOn>) -> (Box<RawValue>, u64, serde_json::Value) {
    let value: serde_json::Value = serde_json::from_str(text.get()).unwrap();
    let word = value["word"].as_u64().unwrap_or_default();
    (text.0, word, value["word"].clone())
}

fn numbers() -> Workflow {
    Workflow::new("numbers").step(take).step(pass_on).step(read)
}

const NUMBERS: &str = r#"{"word":9007199254740993,"zero":-0,"price":1.10,"many":1234567890123456789012345678901234567890,"small":1e-300,"power":1E+2,"twice":1,"twice":2}"#;

/// What comes back of it: jsonb keeps every digit, writes exponents out, and takes the last of two keys.
fn is_whole(text: &str) {
    let compact: String = text.chars().filter(|c| *c != ' ').collect();
    let small = format!("\"small\":0.{}1", "0".repeat(299));
    for part in [
        "\"word\":9007199254740993",
        "\"zero\":0",
        "\"price\":1.10",
        "\"many\":1234567890123456789012345678901234567890",
        "\"power\":100",
        "\"twice\":2",
        &small,
    ] {
        assert!(compact.contains(part), "{part}: {text}");
    }
    assert!(!compact.contains("\"twice\":1"), "{text}");
}

/// Through a real worker, two dependencies deep, from every place that submits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_keep_every_digit() {
    let db = db().await;
    let tasker = Tasker::from_pool(db.pool.clone()).workflow(numbers());
    let worker = tasker.start().await.unwrap();
    let input = RawValue::from_string(NUMBERS.to_owned()).unwrap();
    let mut tasks = vec![tasker.submit("numbers", &input).await.unwrap()];
    let mut tx = db.pool.begin().await.unwrap();
    tasks.push(tasker.submit("numbers", &input).within(&mut tx).await.unwrap());
    tx.commit().await.unwrap();
    let id: sqlx::types::Uuid = sqlx::query_scalar("select task_id from tasker.submit('numbers', $1::text::jsonb)")
        .bind(NUMBERS)
        .fetch_one(&db.pool)
        .await
        .unwrap();
    tasks.push(tasker.task(id.to_string().parse().unwrap()));
    for task in &tasks {
        let ended = task.wait_for(SOON).await.unwrap();
        let (text, word, value) = ended.result::<(Box<RawValue>, u64, serde_json::Value)>().unwrap();
        is_whole(text.get());
        assert_eq!((word, value), (9_007_199_254_740_993, serde_json::json!(9_007_199_254_740_993_u64)));
        is_whole(task.detail().await.unwrap().input.get());
    }
    for number in ["1e400", "-1e400", "1e-400", "1e99999999999"] {
        let input = RawValue::from_string(format!("{{\"n\":{number}}}")).unwrap();
        let error = tasker.submit("numbers", &input).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::InputInvalid, "{number}");
        assert!(error.message.contains("`/n`") && error.message.contains("send it as a string"), "{error}");
    }
    // SQL cannot look at the text that was sent: the first claim refuses what no language could read, and no handler runs.
    let id: sqlx::types::Uuid = sqlx::query_scalar("select task_id from tasker.submit('numbers', '{\"n\": 1e400}')")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    let refused = tasker.task(id.to_string().parse().unwrap());
    let ended = refused.wait_for(SOON).await.unwrap();
    assert_eq!(ended.result::<serde_json::Value>().unwrap_err().kind, ErrorKind::InputInvalid);
    let ran: i64 = sqlx::query_scalar("select count(*) from tasker.event where task_id = $1 and kind = 'done'")
        .bind(id)
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(ran, 0);
    worker.drain(SOON).await;
    db.check().await;
}

/// Keys, tags, correlation ids and inputs with every plane, from Rust and from SQL, through a worker and back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_character_comes_back() {
    let db = db().await;
    let tasker = Tasker::from_pool(db.pool.clone()).workflow(numbers());
    let worker = tasker.start().await.unwrap();
    let input = serde_json::json!({ EVERY_PLANE: [EVERY_PLANE] });
    let tags = serde_json::json!({ EVERY_PLANE: EVERY_PLANE });
    let task = tasker.submit("numbers", &input).key(EVERY_PLANE).tags(&tags).correlation_id(EVERY_PLANE).await.unwrap();
    // The key is one and the same from SQL.
    let (id, created): (sqlx::types::Uuid, bool) =
        sqlx::query_as("select * from tasker.submit('numbers', $1, key => $2, tags => $3, correlation_id => $2)")
            .bind(&input)
            .bind(EVERY_PLANE)
            .bind(&tags)
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert_eq!((id.to_string(), created), (task.id().to_string(), false));
    let ended = task.wait_for(SOON).await.unwrap();
    let (text, ..) = ended.result::<(Box<RawValue>, u64, serde_json::Value)>().unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(text.get()).unwrap(), input);
    let detail = task.detail().await.unwrap();
    assert_eq!(detail.task.key.as_deref(), Some(EVERY_PLANE));
    assert_eq!(detail.correlation_id.as_deref(), Some(EVERY_PLANE));
    assert_eq!(detail.task.tags.to::<serde_json::Value>().unwrap(), tags);
    assert_eq!(tasker.engine().find_task(EVERY_PLANE).await.unwrap(), task.id());

    // What PostgreSQL cannot hold is refused by name, wherever it stands.
    let nul = "a\0b";
    let submit = || tasker.submit("numbers", serde_json::json!({}));
    for error in [
        tasker.submit("numbers", serde_json::json!({ "a": nul })).await.unwrap_err(),
        tasker.submit("numbers", serde_json::json!({ nul: 1 })).await.unwrap_err(),
        submit().key(nul).await.unwrap_err(),
        submit().correlation_id(nul).await.unwrap_err(),
        submit().tags(serde_json::json!({ "a": nul })).await.unwrap_err(),
        submit().trace(serde_json::json!({ "a": nul })).await.unwrap_err(),
    ] {
        assert!(matches!(error.kind, ErrorKind::Invalid | ErrorKind::InputInvalid), "{error}");
        assert!(error.message.contains("NUL") || error.message.contains("u0000"), "{error}");
    }
    let lone = RawValue::from_string(r#"{"a":"\ud800"}"#.to_owned()).unwrap();
    let error = tasker.submit("numbers", &lone).await.unwrap_err();
    assert!(error.message.contains("surrogate"), "{error}");
    assert_eq!(db.count("task").await, 1);
    worker.drain(SOON).await;
    db.check().await;
}

#[tasker::step]
async fn returns_nul() -> String {
    "a\0b".to_owned()
}

#[tasker::step]
async fn returns_too_much() -> String {
    "x".repeat(300 * 1024)
}

/// Results pass the same gate as inputs, and the failure says what is wrong with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_cannot_be_kept_fails_its_step() {
    let db = db().await;
    let tasker = Tasker::from_pool(db.pool.clone())
        .workflow(Workflow::new("nul").step(returns_nul))
        .workflow(Workflow::new("much").step(returns_too_much));
    let worker = tasker.start().await.unwrap();
    for (name, says) in [("nul", "u0000"), ("much", "262144")] {
        let task = tasker.submit(name, serde_json::json!({})).await.unwrap();
        let error = task.wait_for(SOON).await.unwrap().result::<String>().unwrap_err();
        assert_eq!(error.kind, ErrorKind::ResultRejected, "{error}");
        assert!(error.message.contains(says), "{error}");
    }
    worker.drain(SOON).await;
    db.check().await;
}

/// The edges of what the builder takes: each is an answer, none a panic or a wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_and_times_without_measure_are_refused_or_harmless() {
    let db = db().await;
    let tasker = Tasker::from_pool(db.pool.clone()).workflow(numbers());
    let submit = || tasker.submit("numbers", serde_json::json!({}));
    assert_eq!(submit().delay(Duration::MAX).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(submit().deadline_in(Duration::MAX).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(submit().delay(Duration::from_hours(24 * 365 * 9_000)).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(submit().key("x".repeat(600)).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(submit().tags(serde_json::json!({"a": "x".repeat(5_000)})).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(tasker.submit("Ünicode", ()).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(tasker.submit("numbers", f64::NAN).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(tasker.submit("numbers", 7).await.unwrap_err().kind, ErrorKind::InputInvalid);
    assert_eq!(tasker.submit("numbers", ()).await.unwrap_err().kind, ErrorKind::InputInvalid);
    let task = submit().await.unwrap();
    assert_eq!(task.wait_for(Duration::ZERO).await.unwrap_err().kind, ErrorKind::Timeout);
    let forever = tokio::time::timeout(Duration::from_millis(100), task.wait_for(Duration::MAX)).await;
    assert!(forever.is_err(), "it waits, and does not overflow");
    for options in [
        Tasker::builder().concurrency(0),
        Tasker::builder().lease(Duration::ZERO),
        Tasker::builder().concurrency(usize::MAX),
        Tasker::builder().lease(Duration::MAX),
        Tasker::builder().poll_max(Duration::MAX),
        Tasker::builder().poll_max(Duration::ZERO),
        Tasker::builder().drain(Duration::MAX),
        Tasker::builder().worker_name("a\0b"),
    ] {
        let shown = format!("{options:?}");
        let tasker = options.pool(db.pool.clone()).connect().await.unwrap().workflow(numbers());
        let started = tokio::time::timeout(SOON, tasker.start()).await.unwrap();
        match started {
            Ok(worker) => drop(worker.drain(Duration::from_secs(1)).await),
            Err(error) => assert_eq!(error.kind, ErrorKind::Invalid, "{shown}: {error}"),
        }
    }
    let zero = Tasker::builder().database_url(db.database.url()).pool_size(0).connect().await;
    assert_eq!(zero.unwrap_err().kind, ErrorKind::Invalid);
    db.check().await;
}
