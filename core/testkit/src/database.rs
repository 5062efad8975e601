//! One database for each test, copied from a template that is set up once.
//!
//! The template's name carries a fingerprint of the test binary: a binary that was built anew, with
//! other migrations perhaps, makes a template of its own, also on a server that lives for long.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;
use std::{env, fs, thread};

use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::config;
use crate::server::{TEST_PGBOUNCER, server_url};

const MAX_CONNECTIONS: u32 = 40;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);
/// The advisory lock under which templates are made: `tasker` in ASCII.
const TEMPLATE_LOCK: i64 = 0x7461_736b_6572;
/// SQLSTATE `invalid_catalog_name`: the template does not exist.
const NO_SUCH_DATABASE: &str = "3D000";
/// PostgreSQL cuts names at 63 bytes; `_`, the fingerprint and `_new` need 21 of them.
const LONGEST_TEMPLATE: usize = 42;

/// A database for one test. Dropping it closes all connections to it and deletes it.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    url: String,
    server: &'static str,
}

impl TestDatabase {
    /// Returns the URL of the database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the URL that an engine takes: the database's own, or where `TASKER_TEST_PGBOUNCER` names a PgBouncer, its.
    pub fn engine_url(&self) -> String {
        match config::variable(TEST_PGBOUNCER) {
            Some(authority) => format!("postgres://{authority}/{}", self.name),
            None => self.url.clone(),
        }
    }

    /// Returns the name of the database.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens a new pool of at most 40 connections.
    ///
    /// # Panics
    /// Panics when the database cannot be reached.
    pub async fn pool(&self) -> PgPool {
        let options = PgPoolOptions::new().max_connections(MAX_CONNECTIONS).acquire_timeout(ACQUIRE_TIMEOUT);
        options.connect(&self.url).await.expect("the test database accepts connections")
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server, std::mem::take(&mut self.name));
        // The runtime of the test may be at its end, or busy with waiting for this drop.
        let deletion = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.is_ok_and(|runtime| runtime.block_on(delete(server, &name)).is_ok())
        });
        // A database that could not be deleted is deleted by a later sweep.
        let _ = deletion.join();
    }
}

/// Makes a database for one test: a copy of the template `template`, which the first call makes by
/// running `setup` with the URL of an empty database.
///
/// Safe between tests and between processes. `setup` has to close its connections, and must make the
/// same template in every call from one binary. `template` is `[a-z][a-z0-9_]*`, at most 42 characters.
///
/// # Panics
/// Panics when the server refuses; it is a test that asks.
pub async fn database(template: &str, setup: impl AsyncFnOnce(&str)) -> TestDatabase {
    let is_plain = template.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    assert!(is_plain && template.len() <= LONGEST_TEMPLATE, "`{template}` is not a name for a template");
    let server = server_url().await;
    let template = format!("{template}_{:016x}", fingerprint());
    let name = format!("t_{}", Uuid::now_v7().simple());
    let mut connection = connect(server).await;
    if !copy(&mut connection, &template, &name).await {
        make_template(&mut connection, server, &template, setup).await;
        let is_copied = copy(&mut connection, &template, &name).await;
        assert!(is_copied, "the template `{template}` was deleted while it was used");
    }
    // The server notices a dropped connection as well; an error would change nothing.
    let _ = connection.close().await;
    TestDatabase { url: with_database(server, &name), name, server }
}

/// Copies the template; false when there is none.
async fn copy(connection: &mut PgConnection, template: &str, name: &str) -> bool {
    match run(connection, format!("create database {name} template {template}")).await {
        Ok(()) => true,
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(NO_SUCH_DATABASE) => false,
        Err(error) => panic!("cannot make the test database: {error}"),
    }
}

/// Makes the template under another name and renames it when it is complete, so that nobody ever
/// copies half of one. One process at a time; whoever waited finds it made.
async fn make_template(connection: &mut PgConnection, server: &str, template: &str, setup: impl AsyncFnOnce(&str)) {
    let unfinished = format!("{template}_new");
    let ok = "the server lets the tests make databases";
    sqlx::query("select pg_advisory_lock($1)").bind(TEMPLATE_LOCK).execute(&mut *connection).await.expect(ok);
    let query = sqlx::query_scalar("select exists (select from pg_database where datname = $1)");
    let exists: bool = query.bind(template).fetch_one(&mut *connection).await.expect(ok);
    if !exists {
        sweep(connection).await.expect(ok);
        run(connection, format!("drop database if exists {unfinished} with (force)")).await.expect(ok);
        run(connection, format!("create database {unfinished}")).await.expect(ok);
        setup(&with_database(server, &unfinished)).await;
        // A template that nobody can connect to can always be copied.
        run(connection, format!("alter database {unfinished} with allow_connections false")).await.expect(ok);
        end_connections(connection, &unfinished).await.expect(ok);
        let made: i64 =
            sqlx::query_scalar("select extract(epoch from now())::bigint").fetch_one(&mut *connection).await.expect(ok);
        run(connection, format!("comment on database {unfinished} is 'tasker-testkit {made}'")).await.expect(ok);
        run(connection, format!("alter database {unfinished} rename to {template}")).await.expect(ok);
    }
    sqlx::query("select pg_advisory_unlock($1)").bind(TEMPLATE_LOCK).execute(&mut *connection).await.expect(ok);
}

/// Ends the connections that `setup` has dropped but the server has not noticed yet.
async fn end_connections(connection: &mut PgConnection, database: &str) -> sqlx::Result<()> {
    // With a time-out the function waits for the end.
    let end = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1";
    sqlx::query(end).bind(database).execute(connection).await.map(drop)
}

/// Deletes what killed test processes have left on a server that lives on: databases of an hour
/// ago that nobody uses (their names hold the time), templates of a day ago (their comments do).
async fn sweep(connection: &mut PgConnection) -> sqlx::Result<()> {
    let abandoned: Vec<String> = sqlx::query_scalar(
        "select datname::text
         from pg_database d
         where case
             when datname ~ '^t_[0-9a-f]{32}$'
             then ('x0000' || substr(datname, 3, 12))::bit(64)::bigint < (extract(epoch from now()) - 3600) * 1000
             when shobj_description(oid, 'pg_database') ~ '^tasker-testkit [0-9]+$'
             then split_part(shobj_description(oid, 'pg_database'), ' ', 2)::bigint < extract(epoch from now()) - 86400
             else false
         end
         and not exists (select from pg_stat_activity a where a.datname = d.datname)",
    )
    .fetch_all(&mut *connection)
    .await?;
    for name in abandoned {
        // Somebody has begun to use it, or has deleted it: either is fine.
        let _ = run(connection, format!("drop database if exists {name}")).await;
    }
    Ok(())
}

async fn delete(server: &str, name: &str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(server).await?;
    run(&mut connection, format!("drop database if exists {name} with (force)")).await?;
    connection.close().await
}

/// Runs a statement that takes no parameters; every name in it was checked or made here.
async fn run(connection: &mut PgConnection, sql: String) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
}

async fn connect(server: &str) -> PgConnection {
    match PgConnection::connect(server).await {
        Ok(connection) => connection,
        Err(error) => panic!("the PostgreSQL to test against does not accept connections: {error}"),
    }
}

/// Returns `url` with another database; its parameters stay.
fn with_database(url: &str, name: &str) -> String {
    let (base, parameters) = url.split_once('?').map_or((url, None), |(base, rest)| (base, Some(rest)));
    let authority = base.find("://").map_or(0, |scheme| scheme + 3);
    let end = base[authority..].find('/').map_or(base.len(), |slash| authority + slash);
    let parameters = parameters.map(|parameters| format!("?{parameters}")).unwrap_or_default();
    format!("{}/{name}{parameters}", &base[..end])
}

/// Tells one build of one test binary from another.
fn fingerprint() -> u64 {
    let binary = env::current_exe().expect("the test binary has a path");
    let metadata = fs::metadata(&binary).expect("the test binary exists");
    let mut hasher = DefaultHasher::new();
    (&binary, metadata.len(), metadata.modified().ok()).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn only_the_database_of_a_url_is_replaced() {
        for (url, expected) in [
            ("postgres://u:p@h:1/old", "postgres://u:p@h:1/new"),
            ("postgres://u:p@h:1", "postgres://u:p@h:1/new"),
            ("postgres://h/old?sslmode=disable&host=/run", "postgres://h/new?sslmode=disable&host=/run"),
            ("postgres://h?host=/run", "postgres://h/new?host=/run"),
        ] {
            assert_eq!(with_database(url, "new"), expected);
        }
    }
}
