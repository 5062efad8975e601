//! Installing, upgrading, and what is refused.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use sqlx::Executor;
use support::*;
use tasker_engine::{Engine, ErrorKind, Options, Schema};

async fn empty() -> (tasker_testkit::TestDatabase, Engine) {
    let database = tasker_testkit::database("tasker_empty", async |_| {}).await;
    let engine = Engine::connect(&Options::new(database.url())).await.unwrap();
    (database, engine)
}

#[tokio::test]
async fn many_processes_may_migrate_at_once() {
    let (database, engine) = empty().await;
    assert!(engine.installation().await.unwrap().applied.is_empty());
    let all = (0..8).map(|_| {
        let url = database.url().to_owned();
        async move { Engine::connect(&Options::new(url)).await.unwrap().migrate().await }
    });
    for result in futures::future::join_all(all).await {
        result.unwrap();
    }
    let installation = engine.installation().await.unwrap();
    assert!(installation.is_current(), "{installation:?}");
    engine.check_installed().await.unwrap();
    let partitions: i64 =
        sqlx::query_scalar("select count(*) from pg_inherits where inhparent = 'tasker.event'::regclass")
            .fetch_one(engine.pool())
            .await
            .unwrap();
    assert_eq!(partitions, 10, "this week, eight ahead, and the default one");
}

#[tokio::test]
async fn a_schema_newer_than_the_program_is_refused() {
    let db = db().await;
    sqlx::query("insert into tasker.migration (version, description, success, checksum, execution_time) values (9999, 'from the future', true, '', 0)")
        .execute(&db.pool)
        .await
        .unwrap();
    for result in [db.engine.migrate().await, db.engine.check_installed().await] {
        let error = result.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
        assert!(error.message.contains("9999") && error.message.contains("upgrade the program"), "{error}");
    }
}

#[tokio::test]
async fn an_edited_migration_is_refused() {
    let db = db().await;
    sqlx::query("update tasker.migration set checksum = '\\x00'").execute(&db.pool).await.unwrap();
    assert_eq!(db.engine.migrate().await.unwrap_err().kind, ErrorKind::Conflict);
}

#[tokio::test]
async fn a_database_without_tasker_says_what_to_do() {
    let (_database, engine) = empty().await;
    assert!(engine.check_installed().await.unwrap_err().message.contains("tasker db migrate"));
    let error = engine.cancel(tasker_model::TaskId::generate(), "ann", "why not").await.unwrap_err();
    assert!(error.message.contains("tasker db migrate"), "{error}");
}

#[tokio::test]
async fn two_schemas_live_in_one_database_and_one_can_be_deleted() {
    let db = db().await;
    let other = Engine::from_pool(db.pool.clone(), Schema::new("other").unwrap());
    other.migrate().await.unwrap();
    let revision = compile("{name: one, steps: {a: {call: h}}}");
    db.engine.register(&revision).await.unwrap();
    other.register(&revision).await.unwrap();
    let _hand = db.hand(&["h"]).await;
    let worker = other
        .start_worker(&tasker_engine::NewWorker {
            name: "w".into(),
            kind: "rust".into(),
            host: String::new(),
            pid: 1,
            version: String::new(),
            concurrency: 1,
            lease: std::time::Duration::from_secs(30),
        })
        .await
        .unwrap();
    other.announce(worker, "rust", &[("default".into(), "h".into())]).await.unwrap();
    db.pool.execute("select * from other.submit('one')").await.unwrap();
    assert_eq!(db.count("select count(*) from other.all_messages()").await, 1);
    assert_eq!(db.messages().await, 0);
    other.uninstall().await.unwrap();
    assert_eq!(db.count("select count(*) from pg_namespace where nspname = 'other'").await, 0);
    assert_eq!(db.count("select count(*) from pgmq.meta").await, 5, "the internal queue and the four bands of one");
    db.pool.execute("select * from tasker.submit('one')").await.unwrap();
    assert_eq!(db.messages().await, 1);
}

#[tokio::test]
async fn changed_functions_are_applied_again_and_queues_keep_what_they_hold() {
    let db = db().await;
    let (_, revision) = db.register(DAG7).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    db.pool.execute("drop function tasker.claim_v1").await.unwrap();
    db.pool.execute("update tasker.setting set value = 'old' where key = 'functions'").await.unwrap();
    assert!(!db.engine.installation().await.unwrap().functions_current);
    db.engine.migrate().await.unwrap();
    assert_eq!(hand.drain().await, 7);
    assert_eq!(db.task_state(task).await, "complete");
}

/// An ordinary role that owns its database is enough: no superuser, no extension.
#[tokio::test]
async fn a_plain_role_can_install_and_run() {
    let (database, admin) = empty().await;
    let role = format!("plain_{}", uuid::Uuid::new_v4().simple());
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(admin.pool()).await.unwrap();
    admin.pool().execute(sqlx::AssertSqlSafe(format!("create role {role} login password 'secret'"))).await.unwrap();
    admin.pool().execute(sqlx::AssertSqlSafe(format!("alter database {name} owner to {role}"))).await.unwrap();
    let (_, host) = database.url().rsplit_once('@').unwrap();
    let engine = Engine::connect(&Options::new(format!("postgres://{role}:secret@{host}"))).await.unwrap();
    let is_super: bool = sqlx::query_scalar("select rolsuper from pg_roles where rolname = current_user")
        .fetch_one(engine.pool())
        .await
        .unwrap();
    assert!(!is_super);
    engine.migrate().await.unwrap();
    let db = Db { pool: engine.pool().clone(), engine: engine.clone(), database };
    let (_, revision) = db.register(DAG7).await;
    let mut hand = db.hand(&["h"]).await;
    db.submit(revision, "{}").await;
    assert_eq!(hand.drain().await, 7);
    drop(hand);
    engine.pool().close().await;
    let after = tasker_engine::Options::new(db.database.url());
    let admin = Engine::connect(&after).await.unwrap();
    admin
        .pool()
        .execute(sqlx::AssertSqlSafe(format!(
            "reassign owned by {role} to current_user; drop owned by {role}; drop role {role}"
        )))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_old_pgmq_is_refused_with_the_remedy() {
    let (_database, engine) = empty().await;
    engine
        .pool()
        .execute(
            "create schema pgmq; create table pgmq.meta (queue_name text);
             create function pgmq.create_non_partitioned(queue_name text) returns void language sql as $$ select $$;",
        )
        .await
        .unwrap();
    let error = engine.migrate().await.unwrap_err();
    // Its own installer may refuse it first; what matters is that nothing of ours was made.
    assert!(matches!(error.kind, ErrorKind::Conflict | ErrorKind::Internal), "{error}");
    let made: bool =
        sqlx::query_scalar("select to_regnamespace('tasker') is not null").fetch_one(engine.pool()).await.unwrap();
    assert!(!made);
}
