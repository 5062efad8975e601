//! The handle to one Tasker: its pool, its schema and the texts of its hot statements.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, SqlSafeStr, SqlStr};
use tasker_model::{Error, ErrorKind, Result};

use crate::pgbouncer::{self, PgBouncer, Single};
use crate::{Schema, to_error};

/// How long an idle connection of the pool is taken to live.
const FRESH: Duration = Duration::from_secs(1);

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct Options {
    /// `postgres://user:password@host:port/database`.
    pub database_url: String,
    /// The schema; `tasker` by default.
    pub schema: Schema,
    /// The pool's largest number of connections; 10 by default. A worker's committers, heartbeat and notifier have their own beside it.
    pub pool_size: u32,
    /// Whether PgBouncer in transaction mode is between; found out by default.
    pub pgbouncer: PgBouncer,
    /// The server itself, for migrating where `database_url` is that of a PgBouncer.
    pub direct_database_url: Option<String>,
}

impl Options {
    /// Takes the defaults for a database.
    pub fn new(database_url: impl Into<String>) -> Self {
        Self {
            database_url: database_url.into(),
            schema: Schema::default(),
            pool_size: 10,
            pgbouncer: PgBouncer::Auto,
            direct_database_url: None,
        }
    }
}

/// One Tasker in one database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    pool: PgPool,
    connect: Arc<PgConnectOptions>,
    /// To the server itself where `connect` leads to a PgBouncer.
    direct: Option<Arc<PgConnectOptions>>,
    is_pooled: bool,
    schema: Schema,
    pub(crate) sql: Arc<Statements>,
}

impl Engine {
    /// Connects. Does not migrate: see [`Engine::migrate`].
    pub async fn connect(options: &Options) -> Result<Self> {
        if options.pool_size == 0 {
            return Err(Error::new(ErrorKind::Invalid, "the pool's size is 0; it must be at least 1"));
        }
        let connect = connect_options(&options.database_url)?;
        let direct = options.direct_database_url.as_deref().map(connect_options).transpose()?;
        let is_pooled = match options.pgbouncer {
            PgBouncer::Auto => pgbouncer::is_between(&connect).await?,
            PgBouncer::Yes => true,
            PgBouncer::No => false,
        };
        let pool = PgPoolOptions::new()
            .max_connections(options.pool_size)
            .acquire_timeout(Duration::from_secs(10))
            // A connection that was used a moment ago is not asked whether it lives: that costs each submit a round trip.
            .test_before_acquire(false)
            .before_acquire(|conn, about| {
                Box::pin(async move {
                    if about.idle_for > FRESH {
                        conn.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(connect.clone())
            .await
            .map_err(|error| to_error("connecting to the database", error))?;
        let engine = Self::over(pool, connect, options.schema.clone());
        Ok(Self { direct: direct.map(Arc::new), is_pooled, ..engine })
    }

    /// Wraps a pool that the application has already; further connections are made with the pool's own options. It is taken to lead to the
    /// server itself: see [`Engine::through_pgbouncer`].
    pub fn from_pool(pool: PgPool, schema: Schema) -> Self {
        let connect = (*pool.connect_options()).clone();
        Self::over(pool, connect, schema)
    }

    /// Says whether the pool leads through PgBouncer in transaction mode; with `Auto` it is found out by a further connection.
    pub async fn through_pgbouncer(self, pgbouncer: PgBouncer) -> Result<Self> {
        // Newer servers write floats exactly without it, and PgBouncer refuses it.
        let connect = (*self.connect).clone().extra_float_digits(None);
        let is_pooled = match pgbouncer {
            PgBouncer::Auto => pgbouncer::is_between(&connect).await?,
            PgBouncer::Yes => true,
            PgBouncer::No => false,
        };
        Ok(Self { connect: Arc::new(connect), is_pooled, ..self })
    }

    fn over(pool: PgPool, connect: PgConnectOptions, schema: Schema) -> Self {
        let sql = Arc::new(Statements::new(&schema));
        Self { pool, connect: Arc::new(connect), direct: None, is_pooled: false, schema, sql }
    }

    /// Returns the pool for everything that is not a worker's hot path.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Returns the schema.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Opens a connection of its own, outside the pool: for committers, heartbeats and listeners.
    pub async fn open(&self) -> Result<PgConnection> {
        self.connect.connect().await.map_err(|error| to_error("connecting to the database", error))
    }

    /// Opens a connection to the server itself, for what needs a session. Fails with `invalid` where only PgBouncer is known.
    pub(crate) async fn open_direct(&self) -> Result<PgConnection> {
        self.direct_options()?.connect().await.map_err(|error| to_error("connecting to the database", error))
    }

    pub(crate) fn direct_options(&self) -> Result<&PgConnectOptions> {
        match &self.direct {
            Some(direct) => Ok(direct),
            None if self.is_pooled => Err(Error::new(
                ErrorKind::Invalid,
                "this needs a connection to the server itself, not through PgBouncer; set TASKER_DIRECT_DATABASE_URL",
            )),
            None => Ok(&self.connect),
        }
    }

    /// Says whether PgBouncer in transaction mode is between: nothing that a session must remember works, LISTEN among it.
    pub fn is_pooled(&self) -> bool {
        self.is_pooled
    }

    /// Runs one statement on a connection of the pool: where PgBouncer is between, in a transaction of its own.
    pub fn single(&self) -> Single<'_> {
        Single::on_pool(&self.pool, self.is_pooled)
    }

    /// Runs one statement on this connection: where PgBouncer is between and the connection is in no transaction, in one of its own.
    pub fn on<'c>(&self, conn: &'c mut PgConnection) -> Single<'c> {
        Single::on_connection(conn, self.is_pooled)
    }

    /// Takes a connection from the pool. Fails with `busy` where others held all of them for too long.
    pub async fn acquire(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>> {
        self.pool.acquire().await.map_err(|error| {
            let size = self.pool.options().get_max_connections();
            if !matches!(error, sqlx::Error::PoolTimedOut) || self.pool.size() < size || self.pool.num_idle() > 0 {
                return to_error("taking a connection from the pool", error);
            }
            let waited = self.pool.options().get_acquire_timeout();
            let message = format!(
                "no connection became free within {waited:?}: all {size} of the pool are in use; do less at once, or make the pool larger (TASKER_POOL_SIZE)"
            );
            Error::new(ErrorKind::Busy, message).caused_by(error)
        })
    }

    /// Fills the schema's name into a statement's text. For statements off the hot path; the hot ones are kept filled.
    pub fn statement(&self, sql: &str) -> SqlStr {
        AssertSqlSafe(self.schema.fill(sql)).into_sql_str()
    }
}

fn connect_options(url: &str) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url).map_err(|error| {
        Error::new(ErrorKind::Invalid, format!("the database address is not a postgres:// URL: {error}"))
            .caused_by(error)
    })?;
    Ok(options
        // Newer servers write floats exactly without it, and PgBouncer refuses it.
        .extra_float_digits(None)
        .application_name("tasker")
        .log_statements(tracing::log::LevelFilter::Trace)
        .log_slow_statements(tracing::log::LevelFilter::Debug, Duration::from_secs(1)))
}

/// The texts of the hot statements, filled once. Their names carry the protocol's number.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) submit: SqlStr,
    pub(crate) submit_many: SqlStr,
    pub(crate) claim: SqlStr,
    pub(crate) settle: SqlStr,
    pub(crate) settle_here: SqlStr,
    pub(crate) save_checkpoint: SqlStr,
    pub(crate) pump: SqlStr,
    pub(crate) take_internal: SqlStr,
    pub(crate) apply_internal: SqlStr,
    pub(crate) heartbeat: SqlStr,
    pub(crate) task_end: SqlStr,
}

impl Statements {
    fn new(schema: &Schema) -> Self {
        let call = |function: &str, arguments: usize| {
            let list = (1..=arguments).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
            AssertSqlSafe(schema.fill(&format!("select * from {{schema}}.{function}({list})"))).into_sql_str()
        };
        Self {
            submit: call("submit_v1", 18),
            submit_many: AssertSqlSafe(schema.fill(include_str!("submit/submit_many.sql"))).into_sql_str(),
            claim: call("claim_v1", 7),
            settle: call("settle_v1", 22),
            settle_here: call("settle_here", 10),
            save_checkpoint: call("save_checkpoint_v1", 10),
            pump: call("pump_v1", 1),
            take_internal: call("take_internal_v1", 2),
            apply_internal: call("apply_internal_v1", 4),
            heartbeat: call("heartbeat_v1", 11),
            task_end: AssertSqlSafe(schema.fill(include_str!("queries/task_end.sql"))).into_sql_str(),
        }
    }
}
