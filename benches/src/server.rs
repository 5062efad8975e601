//! A PostgreSQL of our own: in a temporary directory, on a free port, deleted afterwards.

use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tasker_postgres::{Options, Postgres};
use uuid::Uuid;

use crate::database::Database;

/// What is read back from the server and printed with every result.
const SETTINGS: [&str; 14] = [
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "wal_level",
    "wal_compression",
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "autovacuum",
    "max_connections",
    "commit_delay",
    "jit",
    "shared_preload_libraries",
];

/// How the server differs from the durable one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Everything as in production: each commit is on disk before it is answered.
    Durable,
    /// `fsync = off`, and nothing else: what the disk's part of a figure is.
    NoFsync,
    /// Durable, with `pg_stat_statements` counting every statement, nested ones too.
    Profiled,
}

/// A running server, stopped and deleted when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// Present until the drop.
    postgres: Option<Postgres>,
    url: String,
    pid: u32,
    version: String,
}

impl Server {
    /// Starts one; blocks for a second or two.
    pub(crate) fn start(kind: Kind) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("tasker-bench-{}", Uuid::now_v7()));
        let mut settings = vec![("max_connections", "300"), ("shared_buffers", "1GB"), ("max_wal_size", "4GB")];
        match kind {
            Kind::Durable => {}
            Kind::NoFsync => settings.push(("fsync", "off")),
            Kind::Profiled => settings.extend([
                ("shared_preload_libraries", "pg_stat_statements"),
                ("pg_stat_statements.track", "all"),
                ("pg_stat_statements.max", "10000"),
            ]),
        }
        let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let postgres = Postgres::start(&Options { settings, ..Options::new(directory) })?;
        Ok(Self {
            url: postgres.url().to_owned(),
            pid: postgres.pid(),
            version: postgres.version().to_owned(),
            postgres: Some(postgres),
        })
    }

    /// Its first process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Opens a connection to the database that no benchmark uses.
    pub(crate) async fn connect(&self) -> Result<PgConnection> {
        PgConnection::connect(&self.url).await.context("connecting to the benchmark's PostgreSQL")
    }

    /// Reads the settings that matter back from the server.
    pub(crate) async fn settings(&self) -> Result<Vec<(String, String)>> {
        let sql = "select name, current_setting(name, true) from unnest($1::text[]) with ordinality as s(name, ord) order by ord";
        let rows = sqlx::query(sql).bind(&SETTINGS[..]).fetch_all(&mut self.connect().await?).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<Option<String>, _>(1)?.unwrap_or_default()))).collect()
    }

    /// Makes an empty database and installs the engine in it.
    pub(crate) async fn database(&self, name: &str) -> Result<Database> {
        let mut connection = self.connect().await?;
        sqlx::query(AssertSqlSafe(format!("create database {name}"))).execute(&mut connection).await?;
        let (base, _) = self.url.rsplit_once('/').context("the server's URL names no database")?;
        let database = Database::new(name.to_owned(), format!("{base}/{name}"));
        database.tasker().connect().await?.migrate().await?;
        Ok(database)
    }

    /// Deletes a database that nobody uses any more; answers the deadlocks that it saw.
    pub(crate) async fn drop(&self, database: Database) -> Result<i64> {
        let mut connection = self.connect().await?;
        // A connection tells what it counted when it ends; one that idles may keep it for ten seconds.
        let left = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = $1";
        while sqlx::query_scalar::<_, i64>(left).bind(database.name()).fetch_one(&mut connection).await? > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let deadlocks = sqlx::query_scalar("select deadlocks from pg_stat_database where datname = $1")
            .bind(database.name())
            .fetch_one(&mut connection)
            .await?;
        sqlx::query(AssertSqlSafe(format!("drop database {} with (force)", database.name())))
            .execute(&mut connection)
            .await?;
        Ok(deadlocks)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(postgres) = self.postgres.take() {
            let directory = postgres.data_dir().to_owned();
            drop(postgres);
            // A directory of the system's temporary ones: what cannot be deleted goes with them.
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}
