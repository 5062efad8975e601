//! A new release rolls out while workers run: old programs with the new schema, new programs with the old one.
//!
//! `tests/upgrade/0.1.0` is the SQL of that release. An old program is played by the statements that it sends.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sqlx::{AssertSqlSafe, Executor, PgPool};
use support::*;
use tasker_engine::{Engine, ErrorKind, Options, Schema};
use tasker_testkit::TestDatabase;

const RELEASE: &str = "../../tests/upgrade/0.1.0";

fn files(directory: &str) -> Vec<(String, String)> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(RELEASE).join(directory);
    let mut files: Vec<(String, String)> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort_by_key(|(name, _)| (name != "now.sql", name.clone()));
    files
}

/// Installs 0.1.0 as its program did: its migration by the migrator's own table, its functions, its queues.
async fn install_old(url: &str) {
    let engine = Engine::connect(&Options::new(url)).await.unwrap();
    let pool = engine.pool();
    let schema = Schema::default();
    pgmq::PGMQueueExt::new_with_pool(pool.clone()).await.install_sql_from_embedded().await.unwrap();
    let run = async |sql: String| sqlx::raw_sql(AssertSqlSafe(schema.fill(&sql))).execute(pool).await.unwrap();
    run("create schema {schema}".to_owned()).await;
    // The same text as today's first migration, or `migrate` refuses below: migrations are append-only.
    let migrations = files("migrations");
    for (_, sql) in &migrations {
        run(sql.clone()).await;
    }
    run("create table {schema}.migration (version bigint primary key, description text not null,
         installed_on timestamptz not null default now(), success boolean not null, checksum bytea not null, execution_time bigint not null)"
        .to_owned())
    .await;
    for (name, sql) in &migrations {
        let (version, _) = name.split_once('_').unwrap();
        sqlx::query("insert into tasker.migration values ($1, 'old', now(), true, sha384(convert_to($2, 'UTF8')), 0)")
            .bind(version.parse::<i64>().unwrap())
            .bind(schema.fill(sql))
            .execute(pool)
            .await
            .unwrap();
    }
    let functions: String = files("functions").into_iter().map(|(_, sql)| sql + "\n").collect();
    run(format!(
        "begin; set local check_function_bodies = off; {functions}
         insert into {{schema}}.queue (queue_id, namespace, name, kind) values (0, '', 'internal', 'engine');
         select {{schema}}.build_queue(q.queue_id) from {{schema}}.queue q; select {{schema}}.build_dispatch();
         insert into {{schema}}.setting (key, value) values ('functions', '0.1.0');
         select {{schema}}.make_partitions(8); commit"
    ))
    .await;
    pool.close().await;
}

async fn old() -> (TestDatabase, Engine, PgPool) {
    let database = tasker_testkit::database("tasker_0_1_0", async |url| install_old(url).await).await;
    let engine = Engine::connect(&Options::new(database.url())).await.unwrap();
    let pool = database.pool().await;
    (database, engine, pool)
}

/// Every function with its arguments and its answer, but the generated ones of a queue.
async fn signatures(pool: &PgPool) -> BTreeMap<String, String> {
    sqlx::query_as(
        "select p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', pg_get_function_result(p.oid)
         from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'tasker' and p.proname !~ '_[0-9]+$'",
    )
    .fetch_all(pool)
    .await
    .unwrap()
    .into_iter()
    .collect()
}

#[tokio::test]
async fn a_new_program_says_that_an_old_schema_must_be_migrated() {
    let (_database, engine, _) = old().await;
    let error = engine.check_installed().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("tasker db migrate"), "{error}");
    let plan = engine.migration_plan().await.unwrap();
    assert!(plan.iter().any(|one| one.part == "functions"), "{plan:?}");
    assert!(plan.iter().all(|one| one.part != "PGMQ" && one.part != "schema"), "{plan:?}");
}

#[tokio::test]
async fn the_old_schema_becomes_the_new_one_with_work_in_it() {
    let (database, engine, pool) = old().await;
    let mut db = Db { database, pool, engine };
    let (_, revision) = db.register(DAG7).await;
    let mut hand = db.hand(&["h"]).await;
    let waiting = db.submit(revision, "{}").await;
    let running = db.submit(revision, "{}").await;
    let held = hand.claim(1).await.leased;
    let gate = compile("{name: gate, steps: {a: {call: h, routes: [b]}, b: {call: h, after: [a]}}}");
    let refused = db.engine.register(&gate).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict, "{refused}");
    db.engine.migrate().await.unwrap();
    db.engine.register(&gate).await.unwrap();
    db.engine.check_installed().await.unwrap();
    // The same connection, which has planned the old functions, goes on with the new ones.
    let leases: Vec<_> = held.iter().map(|c| done(&c.lease, "1")).collect();
    assert!(hand.settle(&leases).await.verdicts.is_empty(), "a step leased before is settled after");
    assert_eq!(hand.drain().await, 13);
    for task in [waiting, running] {
        assert_eq!(db.task_state(task).await, "complete");
    }
    db.check().await;
    db.engine = Engine::from_pool(db.pool.clone(), Schema::default());
    db.engine.migrate().await.unwrap();
}

/// The statements of 0.1.0 are calls by position of these functions: they are all there, and answer with the same columns.
#[tokio::test]
async fn every_function_that_an_old_program_calls_still_answers() {
    let (_database, _, pool) = old().await;
    let before = signatures(&pool).await;
    let db = db().await;
    let after = signatures(&db.pool).await;
    let called = [
        "submit",
        "submit_v1",
        "claim_v1",
        "settle_v1",
        "settle_here",
        "pump_v1",
        "take_internal_v1",
        "apply_internal_v1",
        "heartbeat_v1",
        "register_v1",
        "activate_workflow",
        "start_worker",
        "stop_worker",
        "announce_v1",
        "cancel",
        "now",
        "test_begin",
        "sweep_workers",
        "overdue_steps",
        "expire_step_v1",
        "sweep_leftovers",
        "sweep_keys",
        "make_partitions",
        "all_messages",
        "check_invariants",
    ];
    let mut seen = 0;
    for (signature, answer) in &before {
        let (name, _) = signature.split_once('(').unwrap();
        if called.contains(&name) {
            assert_eq!(after.get(signature), Some(answer), "{signature} of 0.1.0");
            seen += 1;
        }
    }
    assert_eq!(seen, called.len());
    let columns = async |pool: &PgPool| -> String {
        sqlx::query_scalar(
            "select string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' order by attnum) from pg_attribute
             where attrelid = 'tasker.hot_row_v1'::regclass and attnum > 0 and not attisdropped",
        )
        .fetch_one(pool)
        .await
        .unwrap()
    };
    assert_eq!(columns(&pool).await, columns(&db.pool).await);
}

async fn set_release(pool: &PgPool, release: &str, serves: &str) {
    sqlx::query("update tasker.setting set value = case key when 'release' then $1 else $2 end where key in ('release', 'serves')")
        .bind(release)
        .bind(serves)
        .execute(pool)
        .await
        .unwrap();
}

/// What the next release will find of us: its schema with one more migration and other functions.
#[tokio::test]
async fn an_old_program_works_with_a_newer_schema_that_serves_it_and_leaves_it_alone() {
    let db = db().await;
    db.pool
        .execute(
            "insert into tasker.migration (version, description, success, checksum, execution_time) values (9999, 'later', true, '', 0);
             alter table tasker.task add column later text; update tasker.setting set value = 'later' where key = 'functions'",
        )
        .await
        .unwrap();
    set_release(&db.pool, "99.0.0", "0.1.0").await;
    db.engine.migrate().await.unwrap();
    db.engine.check_installed().await.unwrap();
    let functions: String = sqlx::query_scalar("select value from tasker.setting where key = 'functions'")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(functions, "later", "an old program does not put its functions over newer ones");
    let (_, revision) = db.register(DAG7).await;
    let mut hand = db.hand(&["h"]).await;
    db.submit(revision, "{}").await;
    assert_eq!(hand.drain().await, 7);

    set_release(&db.pool, "99.0.0", "98.0.0").await;
    for result in [db.engine.migrate().await, db.engine.check_installed().await] {
        let error = result.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
        assert!(error.message.contains("upgrade the program"), "{error}");
    }
}
