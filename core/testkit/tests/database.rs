//! Databases for tests, made by the crate that makes them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{Connection, PgConnection};
use tasker_testkit::{TestDatabase, database, server_url};

async fn shop(calls: &AtomicU32) -> TestDatabase {
    database("testkit_shop", async |url| {
        calls.fetch_add(1, Ordering::SeqCst);
        let mut connection = PgConnection::connect(url).await.unwrap();
        let sql = "create table item (name text); insert into item values ('tea')";
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        // Not closed: a set-up that leaves a connection open must not spoil the template.
        std::mem::forget(connection);
    })
    .await
}

async fn items(database: &TestDatabase) -> i64 {
    let pool = database.pool().await;
    sqlx::query_scalar("select count(*) from item").fetch_one(&pool).await.unwrap()
}

async fn exists(name: &str) -> bool {
    let mut connection = PgConnection::connect(server_url().await).await.unwrap();
    let query = sqlx::query_scalar("select exists (select from pg_database where datname = $1)");
    query.bind(name).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn each_database_is_a_copy_of_its_own_and_the_template_is_made_once() {
    let calls = AtomicU32::new(0);
    let (first, second, third) = tokio::join!(shop(&calls), shop(&calls), shop(&calls));
    let pool = first.pool().await;
    sqlx::query("insert into item values ('salt')").execute(&pool).await.unwrap();

    assert_eq!(items(&first).await, 2);
    assert_eq!(items(&second).await, 1);
    assert_eq!(items(&third).await, 1);
    // Zero when an earlier run of this binary made it on a server that lives on.
    assert!(calls.load(Ordering::SeqCst) <= 1);
}

#[tokio::test]
async fn a_database_is_deleted_with_its_value_although_connections_are_open() {
    let database = shop(&AtomicU32::new(0)).await;
    let name = database.name().to_owned();
    let pool = database.pool().await;
    let _open = pool.acquire().await.unwrap();
    assert!(exists(&name).await);
    drop(database);
    assert!(!exists(&name).await);
}

#[tokio::test]
async fn databases_and_templates_that_nobody_deleted_are_swept_when_a_template_is_made() {
    // The name holds the time of its making: 1 ms after the epoch.
    let old = "t_00000000000170008000000000000000";
    let mut connection = PgConnection::connect(server_url().await).await.unwrap();
    sqlx::raw_sql("create database t_00000000000170008000000000000000").execute(&mut connection).await.unwrap();
    sqlx::raw_sql("create database testkit_old_template").execute(&mut connection).await.unwrap();
    let comment = "comment on database testkit_old_template is 'tasker-testkit 1'";
    sqlx::raw_sql(comment).execute(&mut connection).await.unwrap();
    let fresh = shop(&AtomicU32::new(0)).await;

    let template = format!("testkit_{}", std::process::id());
    let _made_now = database(&template, async |_| ()).await;
    assert!(!exists(old).await);
    assert!(!exists("testkit_old_template").await);
    assert!(exists(fresh.name()).await);
}
