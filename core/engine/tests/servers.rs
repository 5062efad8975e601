//! What differs from server to server: how it is met, the schema's name, other users of PGMQ, roles.
//!
//! `make test-servers` runs all suites against each kind of server; here is what they do not ask.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use support::*;
use tasker_engine::{Engine, ErrorKind, Options, PgBouncer, Planned, Schema};
use tasker_testkit::TestDatabase;

async fn empty() -> TestDatabase {
    tasker_testkit::database("tasker_bare", async |_| {}).await
}

/// Runs the seven steps and the other ways to end in a schema of any name.
async fn journey(db: &Db) {
    let schema = db.engine.schema().clone();
    let (_, revision) = db.register(DAG7).await;
    let mut hand = db.hand(&["h"]).await;
    let tasks = [db.submit(revision, "{}").await, db.submit(revision, "{}").await];
    assert_eq!(hand.drain().await, 14);
    let third = db.submit(revision, "{}").await;
    let claimed = hand.claim_one().await;
    hand.settle(&[retry(&claimed.lease, std::time::Duration::ZERO)]).await;
    let claimed = hand.claim_one().await;
    assert_eq!((claimed.lease.task_id, claimed.attempt), (third, 2));
    hand.settle(&[failed(&claimed.lease, "no")]).await;
    let fourth = db.submit(revision, "{}").await;
    db.engine.cancel(fourth, "ann", "not wanted").await.unwrap();
    let refused = hand.claim(1).await.refused;
    hand.settle(&[cancelled(&refused[0].claimed.lease)]).await;
    for (task, state) in [(tasks[0], "complete"), (tasks[1], "complete"), (third, "failed"), (fourth, "cancelled")] {
        assert_eq!(db.engine.task_row(task).await.unwrap().state.to_string(), state);
    }
    db.engine.sweep_deeply(&mut hand.conn).await.unwrap().unwrap();
    let broken = schema.fill("select count(*) from {schema}.check_invariants()");
    let broken: i64 = sqlx::query_scalar(AssertSqlSafe(broken)).fetch_one(&db.pool).await.unwrap();
    assert_eq!(broken, 0);
}

#[tokio::test]
async fn the_schema_may_have_another_name() {
    let database = empty().await;
    let schema = Schema::new("work_flow_2").unwrap();
    let migrating = Engine::connect(&Options { schema: schema.clone(), ..Options::new(database.url()) }).await.unwrap();
    migrating.migrate().await.unwrap();
    let engine = Engine::connect(&Options { schema, ..Options::new(database.engine_url()) }).await.unwrap();
    let db = Db { pool: database.pool().await, engine, database };
    journey(&db).await;
    let others: i64 = db.count("select count(*) from pg_namespace where nspname = 'tasker'").await;
    assert_eq!(others, 0, "nothing is in the schema that it is not");
}

/// The URL of the tests says how the server is met; that is how it is met.
#[tokio::test]
async fn the_connection_is_of_the_kind_that_its_url_says() {
    let db = db().await;
    let mut conn = PgConnection::connect(db.database.url()).await.unwrap();
    let (has_tls, is_socket): (bool, bool) =
        sqlx::query_as("select ssl, inet_client_addr() is null from pg_stat_ssl where pid = pg_backend_pid()")
            .fetch_one(&mut conn)
            .await
            .unwrap();
    assert_eq!(is_socket, db.database.url().contains("host=/"));
    if db.database.url().contains("sslmode=require") {
        assert!(has_tls);
    }
    assert_eq!(db.engine.is_pooled(), db.database.engine_url() != db.database.url());
    journey(&db).await;
}

#[tokio::test]
async fn a_direct_connection_is_not_taken_for_a_pgbouncer() {
    let db = db().await;
    let found = Engine::connect(&Options::new(db.database.url())).await.unwrap();
    assert!(!found.is_pooled());
    let told =
        Engine::connect(&Options { pgbouncer: PgBouncer::Yes, ..Options::new(db.database.url()) }).await.unwrap();
    assert!(told.is_pooled());
    let mut tx = told.pool().begin().await.unwrap();
    // In the caller's transaction, not beside it.
    let first: i64 = sqlx::query_scalar("select txid_current()").fetch_one(told.on(&mut tx)).await.unwrap();
    let second: i64 = sqlx::query_scalar("select txid_current()").fetch_one(told.on(&mut tx)).await.unwrap();
    assert_eq!(first, second);
    tx.rollback().await.unwrap();
    let named: i64 =
        sqlx::query_scalar("select count(*) from pg_prepared_statements").fetch_one(told.single()).await.unwrap();
    assert_eq!(named, 0, "statements have no names");
}

#[tokio::test]
async fn through_pgbouncer_only_a_direct_connection_migrates() {
    let database = empty().await;
    let pooled = Options { pgbouncer: PgBouncer::Yes, ..Options::new(database.url()) };
    let engine = Engine::connect(&pooled).await.unwrap();
    let error = engine.migrate().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("TASKER_DIRECT_DATABASE_URL"), "{error}");
    let direct = Options { direct_database_url: Some(database.url().to_owned()), ..pooled };
    Engine::connect(&direct).await.unwrap().migrate().await.unwrap();
    engine.migrate().await.unwrap();
    engine.check_installed().await.unwrap();
}

/// PGMQ's tables are there already, with queues of others: they stay as they are.
#[tokio::test]
async fn the_queues_of_others_outlive_us() {
    let database = empty().await;
    let pool = database.pool().await;
    pgmq::PGMQueueExt::new_with_pool(pool.clone()).await.install_sql_from_embedded().await.unwrap();
    pool.execute("select pgmq.create('orders'); select pgmq.create('tq_invoices'); select pgmq.create('tq9999_1');")
        .await
        .unwrap();
    pool.execute("select pgmq.send(q, '{\"id\": 1}') from unnest('{orders,tq_invoices,tq9999_1}'::text[]) as q")
        .await
        .unwrap();
    let engine = Engine::connect(&Options::new(database.url())).await.unwrap();
    engine.migrate().await.unwrap();
    let db = Db { pool: pool.clone(), engine: engine.clone(), database };
    journey(&db).await;
    drop(db.hand(&["h"]).await);
    engine.uninstall().await.unwrap();
    let left: Vec<String> =
        sqlx::query_scalar("select queue_name::text from pgmq.meta order by 1").fetch_all(&pool).await.unwrap();
    assert_eq!(left, ["orders", "tq9999_1", "tq_invoices"]);
    let messages: i64 = db
        .count("select (select count(*) from pgmq.q_orders) + (select count(*) from pgmq.q_tq_invoices) + (select count(*) from pgmq.q_tq9999_1)")
        .await;
    assert_eq!(messages, 3);
}

#[tokio::test]
async fn a_plan_says_what_a_migration_does_and_changes_nothing() {
    let database = empty().await;
    let engine = Engine::connect(&Options::new(database.url())).await.unwrap();
    let plan = engine.migration_plan().await.unwrap();
    let parts: BTreeSet<&str> = plan.iter().map(|one| one.part.split(' ').next().unwrap()).collect();
    assert_eq!(parts, BTreeSet::from(["PGMQ", "functions", "migration", "partitions", "schema"]));
    assert!(plan.iter().all(|one| one.locks.is_empty()), "nobody waits for a table that is new: {plan:#?}");
    assert!(engine.installation().await.unwrap().applied.is_empty());
    engine.migrate().await.unwrap();
    assert_eq!(engine.migration_plan().await.unwrap(), []);
}

/// The locks that a plan names are the strongest that PostgreSQL takes on each table.
#[tokio::test]
async fn planned_locks_are_those_that_postgresql_takes() {
    let database = empty().await;
    let pool = database.pool().await;
    pool.execute(
        "create table parent (id int primary key, at timestamptz); create table child (id int, parent_id int);
         create table many (at int) partition by range (at); create table part (at int);
         alter table child add constraint positive check (id > 0) not valid;
         create table names as select oid, relname from pg_class where relname in ('parent', 'child', 'many');",
    )
    .await
    .unwrap();
    for sql in [
        "create table other (id int references parent)",
        "create table many_1 partition of many for values from (1) to (2)",
        "create index child_id on child (id)",
        "create unique index if not exists child_id on only child (id)",
        "alter table child add column note text",
        "alter table child add constraint child_parent foreign key (parent_id) references parent (id)",
        "alter table child validate constraint positive",
        "alter table many attach partition part for values from (5) to (6)",
        "alter table child set (fillfactor = 80)",
        "insert into child (id) values (1)",
        "update child set id = 2 where id = 1",
        "delete from child where id = 2",
        "drop table child",
        "do $$ begin alter table child alter column id set not null; end $$",
        "create function one() returns int language sql as $$ select 1 $$",
        "create sequence numbers",
    ] {
        let planned = Planned::read("x", sql, &mut BTreeSet::new());
        let mut tx = pool.begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
        // A reader's lock bars nobody; the partition itself, new or not yet used, is nobody's.
        let taken: Vec<String> = sqlx::query_scalar(
            "select regexp_replace(regexp_replace(upper(regexp_replace(l.mode, 'Lock$', '')), 'EXCLUSIVE|SHARE|UPDATE|ROW|ACCESS', ' \\&', 'g'), '^ ', '')
               || ' on ' || c.relname
             from pg_locks l join names c on c.oid = l.relation
             where l.pid = pg_backend_pid() and l.mode not in ('AccessShareLock', 'RowShareLock')
             order by c.relname",
        )
        .fetch_all(&mut *tx)
        .await
        .unwrap();
        tx.rollback().await.unwrap();
        let mut named = planned[0].locks.clone();
        named.sort_by_key(|lock| lock.rsplit(' ').next().map(str::to_owned));
        // PostgreSQL may hold a weaker one of the same table as well.
        for lock in &named {
            assert!(taken.contains(lock), "{sql}: the plan names {lock}, PostgreSQL took {taken:?}");
        }
        let tables = |all: &[String]| {
            all.iter().filter_map(|l| l.rsplit(' ').next().map(str::to_owned)).collect::<BTreeSet<_>>()
        };
        assert_eq!(tables(&named), tables(&taken), "{sql}: {named:?}, {taken:?}");
    }
}
