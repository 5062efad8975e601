//! How a Tasker reaches its database, and how its worker runs.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tasker_engine::{Engine, PgBouncer, Schema};
use tasker_model::{Error, ErrorKind, Result};
use tasker_worker::Options;

use crate::{Tasker, config};

/// The largest number of connections of a pool that nobody sized.
const POOL_SIZE: u32 = 10;

/// Settings of a [`Tasker`], taken before it connects.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    database_url: Option<String>,
    schema: Schema,
    pool: Option<PgPool>,
    pool_size: Option<u32>,
    pgbouncer: PgBouncer,
    direct_database_url: Option<String>,
    worker: Options,
}

impl Builder {
    /// Names the database: `postgres://user:password@host:port/database`.
    pub fn database_url(mut self, url: &str) -> Self {
        self.database_url = Some(url.to_owned());
        self
    }

    /// Uses a pool that the application has. The worker's committers and heartbeat make their own connections beside it.
    pub fn pool(mut self, pool: PgPool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Limits Tasker's own pool; 10 connections unless said.
    pub fn pool_size(mut self, connections: u32) -> Self {
        self.pool_size = Some(connections);
        self
    }

    /// Says whether the database is reached through PgBouncer in transaction mode; found out unless said. A pool that was given is asked
    /// too: its own connections must then prepare nothing by name.
    pub fn pgbouncer(mut self, pgbouncer: PgBouncer) -> Self {
        self.pgbouncer = pgbouncer;
        self
    }

    /// Names the server itself, for [`Tasker::migrate`], where `database_url` is that of a PgBouncer.
    pub fn direct_database_url(mut self, url: &str) -> Self {
        self.direct_database_url = Some(url.to_owned());
        self
    }

    /// Names the database schema; `tasker` unless said.
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = schema;
        self
    }

    /// Says how many steps this process runs at once; 10 unless said.
    pub fn concurrency(mut self, slots: usize) -> Self {
        self.worker.concurrency = slots;
        self
    }

    /// Narrows the queues this process serves: `namespace` or `namespace/queue`. All that its steps need, unless said.
    pub fn queues<S: Into<String>>(mut self, queues: impl IntoIterator<Item = S>) -> Self {
        self.worker.queues = queues.into_iter().map(Into::into).collect();
        self
    }

    /// Says how long a step stays with a process that gives no sign of life; 30 s unless said, at least 2 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.worker.lease = lease;
        self
    }

    /// Limits the pause between two looks into the queues; 500 ms unless said.
    pub fn poll_max(mut self, pause: Duration) -> Self {
        self.worker.poll_max = pause;
        self
    }

    /// Says how long running steps may take at shutdown; 25 s unless said.
    pub fn drain(mut self, grace: Duration) -> Self {
        self.worker.drain = grace;
        self
    }

    /// Names the worker, for people; host and process id unless said.
    pub fn worker_name(mut self, name: &str) -> Self {
        self.worker.name = Some(name.to_owned());
        self
    }

    /// Takes what the environment sets: `DATABASE_URL`, `TASKER_SCHEMA`, `TASKER_POOL_SIZE`, `TASKER_CONCURRENCY`,
    /// `TASKER_QUEUES`, `TASKER_LEASE_SECONDS`, `TASKER_POLL_MAX_MS`, `TASKER_DRAIN_SECONDS`, `TASKER_PGBOUNCER` (`auto`, `true`,
    /// `false`), `TASKER_DIRECT_DATABASE_URL`.
    pub fn env(self) -> Result<Self> {
        config::from_environment(self)
    }

    /// Refuses a pool that can hold nothing.
    fn size(&self) -> Result<u32> {
        match self.pool_size {
            Some(0) => Err(Error::new(ErrorKind::Invalid, "the pool's size is 0; it must be at least 1")),
            size => Ok(size.unwrap_or(POOL_SIZE)),
        }
    }

    /// Connects. Fails with `invalid` without a database, with `unavailable` where it cannot be reached.
    pub async fn connect(self) -> Result<Tasker> {
        let pool_size = self.size()?;
        let engine = match (self.pool, self.database_url) {
            (Some(pool), _) => Engine::from_pool(pool, self.schema).through_pgbouncer(self.pgbouncer).await?,
            (None, Some(database_url)) => {
                let mut options = tasker_engine::Options::new(database_url);
                options.schema = self.schema;
                options.pool_size = pool_size;
                options.pgbouncer = self.pgbouncer;
                options.direct_database_url = self.direct_database_url;
                Engine::connect(&options).await?
            }
            (None, None) => return Err(no_database()),
        };
        Ok(Tasker::over(engine, self.worker))
    }

    /// Makes a Tasker that connects when it is first used: enough to describe workflows where there is no database.
    pub fn connect_lazy(self) -> Result<Tasker> {
        let pool_size = self.size()?;
        if let Some(pool) = self.pool {
            return Ok(Tasker::over(Engine::from_pool(pool, self.schema), self.worker));
        }
        let options: PgConnectOptions =
            self.database_url.ok_or_else(no_database)?.parse().map_err(|cause: sqlx::Error| {
                Error::new(ErrorKind::Invalid, format!("the database address is not a postgres:// URL: {cause}"))
                    .caused_by(cause)
            })?;
        let pool = PgPoolOptions::new()
            .max_connections(pool_size)
            .acquire_timeout(Duration::from_secs(10))
            .connect_lazy_with(options.application_name("tasker"));
        Ok(Tasker::over(Engine::from_pool(pool, self.schema), self.worker))
    }
}

fn no_database() -> Error {
    Error::new(
        ErrorKind::Invalid,
        "no database is named; set DATABASE_URL and call `env()`, or give `database_url` or `pool`",
    )
}
