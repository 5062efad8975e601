//! The optional roles: what each may do, and what it may not.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor, PgPool};
use support::*;
use tasker_engine::deliveries::Room;
use tasker_engine::queries::{PublicationFilter, TaskFilter};
use tasker_engine::subscriptions::Target;
use tasker_engine::{Engine, Options, Schema};
use tasker_testkit::TestDatabase;

/// An owner's engine in a schema of a name of its own: roles are the whole server's, and tests run side by side.
struct Roles {
    database: Option<TestDatabase>,
    engine: Engine,
    pool: PgPool,
}

impl Roles {
    async fn make(name: &str) -> Self {
        let database = tasker_testkit::database("tasker_bare", async |_| {}).await;
        let pool = database.pool().await;
        let engine = Engine::from_pool(pool.clone(), Schema::new(name).unwrap());
        engine.migrate().await.unwrap();
        assert_eq!(engine.make_roles().await.unwrap().len(), 4);
        Self { database: Some(database), engine, pool }
    }

    fn sql(&self, sql: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(self.engine.schema().fill(sql))
    }

    /// Everything that a test does, by connections that act as one of the roles.
    async fn acting_as(&mut self, role: &str) -> Db {
        let database = self.database.take().unwrap();
        let options = PgConnectOptions::from_str(database.url()).unwrap();
        let options = options.options([("role", format!("{}_{role}", self.engine.schema()))]);
        let pool = PgPoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
        Db { engine: Engine::from_pool(pool.clone(), self.engine.schema().clone()), pool, database }
    }

    /// Every one of these is refused for want of a right.
    async fn refuses(&self, db: &Db, all: &[&str]) {
        for sql in all {
            let error = sqlx::raw_sql(self.sql(sql)).execute(&db.pool).await.expect_err(sql);
            assert_eq!(
                error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref(),
                Some("42501"),
                "{sql}: {error}"
            );
        }
    }

    async fn clean_up(self, db: Db) {
        db.pool.close().await;
        for role in ["owner", "worker", "submit", "read"] {
            let role = format!("{}_{role}", self.engine.schema());
            let sql = AssertSqlSafe(format!("drop owned by {role}; drop role {role}"));
            sqlx::raw_sql(sql).execute(&self.pool).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_worker_calls_functions_and_writes_no_table() {
    let mut roles = Roles::make("roles_worker").await;
    let db = roles.acting_as("worker").await;
    db.engine.check_installed().await.unwrap();
    let (_, revision) = db.register(DAG7).await;
    let mut hand = db.hand(&["h"]).await;
    let task = db.submit(revision, "{}").await;
    assert_eq!(hand.drain().await, 7);
    assert_eq!(db.engine.task_row(task).await.unwrap().state.to_string(), "complete");
    assert_eq!(db.engine.check_installed().await.err().map(|e| e.message), None);
    db.engine.cancel(db.submit(revision, "{}").await, "ann", "no").await.unwrap();
    db.engine.sweep_deeply(&mut hand.conn).await.unwrap().unwrap();
    let publishes = "{name: told, steps: {a: {call: h}}, events: {a_done: {on: success, step: a}}}";
    let (_, told) = db.register(publishes).await;
    let hook = Target::Webhook { url: "http://localhost/hook", secret: "a secret of the test" };
    db.engine.subscribe("hook", "a_done", hook).await.unwrap();
    db.engine.subscribe("out", "*", Target::Queue("roles_worker_out")).await.unwrap();
    db.submit(told, "{}").await;
    hand.drain().await;
    let room = Room { each: 8, limit: 8, lease: Duration::from_secs(30) };
    let taken = db.engine.take_deliveries(&mut hand.conn, &[], &[], room).await.unwrap().deliveries.remove(0);
    assert_eq!(taken.secret.as_deref(), Some("a secret of the test"));
    db.engine.end_delivery(&mut hand.conn, &taken, None, None).await.unwrap();
    assert_eq!(db.engine.publications(&PublicationFilter::default()).await.unwrap()[0].delivered, 2);
    roles
        .refuses(
            &db,
            &[
                "update {schema}.task set state = 'complete'",
                "insert into {schema}.hold (task_id, idx, gen, reason) values (gen_random_uuid(), 0, 0, 'paused')",
                "delete from {schema}.event",
                "update {schema}.worker set name = 'x'",
                "select {schema}.build_dispatch()",
                "create table {schema}.mine (id int)",
                "select secret from {schema}.subscription_secret",
                "select {schema}.publish('{}', null, 'success', now())",
            ],
        )
        .await;
    // Functions that are applied anew are granted anew.
    roles.pool.execute(roles.sql("update {schema}.setting set value = 'old' where key = 'functions'")).await.unwrap();
    roles.engine.migrate().await.unwrap();
    db.submit(revision, "{}").await;
    assert!(hand.drain().await >= 7);
    drop(hand);
    roles.clean_up(db).await;
}

#[tokio::test]
async fn a_submitter_only_submits() {
    let mut roles = Roles::make("roles_submit").await;
    roles.engine.register(&compile("{name: one, steps: {a: {call: h}}}")).await.unwrap();
    let db = roles.acting_as("submit").await;
    let made: bool =
        sqlx::query_scalar(roles.sql("select created from {schema}.submit('one', '{\"n\": 1}', key => 'k')"))
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert!(made);
    roles
        .refuses(
            &db,
            &[
                "select * from {schema}.task",
                "update {schema}.task set paused = true",
                "select {schema}.cancel(gen_random_uuid(), 'x', 'y')",
                "select {schema}.create_queue('default', 'mine', 'rust')",
                "select * from {schema}.take_internal_v1(1, interval '1 second')",
                "select * from {schema}.check_invariants()",
            ],
        )
        .await;
    roles.clean_up(db).await;
}

#[tokio::test]
async fn a_reader_reads_and_changes_nothing() {
    let mut roles = Roles::make("roles_read").await;
    let owner = Db { engine: roles.engine.clone(), pool: roles.pool.clone(), database: roles.database.take().unwrap() };
    let (_, revision) = owner.register(DAG7).await;
    drop(owner.hand(&["h"]).await);
    let task = owner.submit(revision, "{}").await;
    roles.database = Some(owner.database);
    // The queue is newer than the roles.
    roles.engine.make_roles().await.unwrap();
    let db = roles.acting_as("read").await;
    assert_eq!(db.engine.task_row(task).await.unwrap().state.to_string(), "running");
    db.engine.task_detail(task).await.unwrap();
    assert_eq!(db.engine.list_tasks(&TaskFilter::default()).await.unwrap().len(), 1);
    assert_eq!(db.engine.queues().await.unwrap().len(), 1);
    db.engine.workers(false).await.unwrap();
    assert!(db.engine.subscriptions().await.unwrap().is_empty());
    db.engine.check_installed().await.unwrap();
    roles
        .refuses(
            &db,
            &[
                "select * from {schema}.submit('dag7')",
                "select {schema}.cancel(gen_random_uuid(), 'x', 'y')",
                "update {schema}.task set paused = true",
                "update {schema}.worker set queues = '{}'",
                "select secret from {schema}.subscription_secret",
                "select {schema}.unsubscribe_v1('hook')",
            ],
        )
        .await;
    roles.clean_up(db).await;
}

/// Who migrates next is another member of the owner: what it makes has the same owner, or functions could not be replaced.
#[tokio::test]
async fn a_member_of_the_owner_migrates_as_the_owner() {
    let database = tasker_testkit::database("tasker_bare", async |_| {}).await;
    let admin = database.pool().await;
    let (first, second) = (format!("first_{}", std::process::id()), format!("second_{}", std::process::id()));
    let run = async |sql: String| sqlx::raw_sql(AssertSqlSafe(sql)).execute(&admin).await.unwrap();
    run(format!("create role {first}; create role {second} login password 'x'; grant {first} to {second}; alter database {} owner to {first}", database.name())).await;
    let schema = Schema::new("shared").unwrap();
    run(format!("set role {first}; create schema shared; reset role")).await;
    let (_, place) = database.url().rsplit_once('@').unwrap();
    let options = Options { schema, ..Options::new(format!("postgres://{second}:x@{place}")) };
    let engine = Engine::connect(&options).await.unwrap();
    engine.migrate().await.unwrap();
    let others: i64 = sqlx::query_scalar(
        "select (select count(*) from pg_proc where pronamespace = 'shared'::regnamespace and pg_get_userbyid(proowner) <> $1)
              + (select count(*) from pg_class where relnamespace = 'shared'::regnamespace and pg_get_userbyid(relowner) <> $1)",
    )
    .bind(&first)
    .fetch_one(&admin)
    .await
    .unwrap();
    assert_eq!(others, 0);
    engine.pool().close().await;
    run(format!("reassign owned by {first}, {second} to current_user; drop owned by {first}, {second}; drop role {second}; drop role {first}")).await;
}
