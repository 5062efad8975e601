//! Working through PgBouncer in transaction mode, where each transaction may be on another server connection.
//!
//! Nothing of a session can be relied on there: no named statements, no startup options, no session locks or settings, no LISTEN. sqlx
//! prepares and executes in two round trips, so each statement runs unnamed in a transaction of its own, unless the caller has one.
//! Without PgBouncer a [`Single`] hands the statement on as it is.

use std::str::FromStr;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{ConnectOptions as _, Connection as _, Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr};
use tasker_model::{Error, ErrorKind, Result};

use crate::{Engine, to_error};

/// A setting that only a server itself keeps from the connection's startup: PgBouncer refuses or drops it.
const PROBE: &str = "tasker.direct";

/// Whether the database is reached through PgBouncer in transaction mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PgBouncer {
    /// It is found out when connecting.
    #[default]
    Auto,
    /// It is: everything that a session would have to remember is avoided.
    Yes,
    /// It is not, or in session mode.
    No,
}

impl FromStr for PgBouncer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "true" => Ok(Self::Yes),
            "false" => Ok(Self::No),
            other => {
                Err(Error::new(ErrorKind::Invalid, format!("pgbouncer must be auto, true or false, not `{other}`")))
            }
        }
    }
}

/// Says whether something between this program and the server takes a connection's startup options away.
pub(crate) async fn is_between(connect: &PgConnectOptions) -> Result<bool> {
    let doing = "connecting to the database";
    let probe = connect.clone().options([(PROBE, "on")]);
    let mut conn = match probe.connect().await {
        Ok(conn) => conn,
        Err(sqlx::Error::Database(error)) if error.message().contains("startup parameter") => return Ok(true),
        Err(error) => return Err(to_error(doing, error)),
    };
    let kept: Option<String> = sqlx::raw_sql("select current_setting('tasker.direct', true) as kept")
        .fetch_one(&mut conn)
        .await
        .and_then(|row| sqlx::Row::try_get(&row, "kept"))
        .map_err(|error| to_error(doing, error))?;
    // It served its purpose.
    let _ = conn.close().await;
    Ok(kept.as_deref() != Some("on"))
}

impl Engine {
    /// Makes an open transaction fit for statements that others write: through PgBouncer the names that this connection has prepared are
    /// those of another server connection, and that one may hold names of others.
    pub async fn forget_statements(&self, conn: &mut PgConnection) -> Result<()> {
        if !self.is_pooled() {
            return Ok(());
        }
        let doing = "forgetting prepared statements";
        conn.clear_cached_statements().await.map_err(|error| to_error(doing, error))?;
        conn.execute("deallocate all").await.map_err(|error| to_error(doing, error)).map(drop)
    }
}

/// Runs one statement on a pool or a connection, in a way that PgBouncer allows where it is between.
#[derive(Debug)]
pub struct Single<'c> {
    on: On<'c>,
    is_pooled: bool,
}

#[derive(Debug)]
enum On<'c> {
    Pool(&'c PgPool),
    Connection(&'c mut PgConnection),
}

impl<'c> Single<'c> {
    pub(crate) fn on_pool(pool: &'c PgPool, is_pooled: bool) -> Self {
        Self { on: On::Pool(pool), is_pooled }
    }

    pub(crate) fn on_connection(conn: &'c mut PgConnection, is_pooled: bool) -> Self {
        Self { on: On::Connection(conn), is_pooled }
    }

    /// Runs it in a transaction and answers everything at once.
    async fn collect<'q, E: Execute<'q, Postgres> + 'q>(
        self,
        query: E,
    ) -> sqlx::Result<Vec<Either<PgQueryResult, PgRow>>> {
        let mut held;
        let conn = match self.on {
            On::Connection(conn) => conn,
            On::Pool(pool) => {
                held = pool.acquire().await?;
                &mut *held
            }
        };
        let query = Unnamed(query);
        if conn.is_in_transaction() {
            return conn.fetch_many(query).try_collect().await;
        }
        let mut tx = conn.begin().await?;
        let result = (&mut *tx).fetch_many(query).try_collect().await;
        // At once, not with the next use: until then the server's connection is kept from others.
        if result.is_ok() {
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        result
    }
}

impl<'c> Executor<'c> for Single<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.on {
            On::Pool(pool) if !self.is_pooled => pool.fetch_many(query),
            On::Connection(conn) if !self.is_pooled => conn.fetch_many(query),
            _ => stream::once(self.collect(query))
                .map_ok(|all| stream::iter(all.into_iter().map(Ok)))
                .try_flatten()
                .boxed(),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.on {
            On::Pool(pool) if !self.is_pooled => pool.fetch_optional(query),
            On::Connection(conn) if !self.is_pooled => conn.fetch_optional(query),
            _ => Box::pin(async move { Ok(self.collect(query).await?.into_iter().find_map(Either::right)) }),
        }
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        match self.on {
            On::Pool(pool) => pool.prepare_with(sql, parameters),
            On::Connection(conn) => conn.prepare_with(sql, parameters),
        }
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<sqlx::Describe<Postgres>>>
    where
        'c: 'e,
    {
        match self.on {
            On::Pool(pool) => pool.describe(sql),
            On::Connection(conn) => conn.describe(sql),
        }
    }
}

/// A query that is prepared without a name.
struct Unnamed<E>(E);

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Unnamed<E> {
    fn sql(self) -> SqlStr {
        self.0.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.0.statement()
    }

    fn take_arguments(&mut self) -> std::result::Result<Option<PgArguments>, sqlx::error::BoxDynError> {
        self.0.take_arguments()
    }

    fn persistent(&self) -> bool {
        false
    }
}
