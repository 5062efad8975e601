//! What a stretch of work cost: statements, commits, WAL, fsyncs, processor time.

use anyhow::Result;
use sqlx::Row;

use crate::cpu;
use crate::server::Server;

/// The counters of a profiled server at one moment, or the difference of two.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counters {
    /// Sent by clients: each is a round trip.
    pub(crate) calls: f64,
    /// Those, and the ones inside functions.
    pub(crate) statements: f64,
    pub(crate) commits: f64,
    pub(crate) wal_bytes: f64,
    pub(crate) fsyncs: f64,
    /// Seconds of processor time, of the server and of this process.
    pub(crate) server: f64,
    pub(crate) own: f64,
}

impl Counters {
    /// Reads them, from a connection to another database. Processes that still hold counts are not waited for: close them first.
    pub(crate) async fn read(server: &Server, database: &str) -> Result<Self> {
        let mut connection = server.connect().await?;
        let version: i32 =
            sqlx::query_scalar("select current_setting('server_version_num')::int").fetch_one(&mut connection).await?;
        // PostgreSQL 18 counts the fsyncs of the WAL with all other I/O.
        let fsyncs = if version >= 180_000 {
            "select coalesce(sum(fsyncs), 0)::float8 from pg_stat_io where object = 'wal'"
        } else {
            "select wal_sync::float8 from pg_stat_wal"
        };
        let fsyncs: f64 = sqlx::query_scalar(fsyncs).fetch_one(&mut connection).await?;
        let row = sqlx::query(
            "select coalesce(sum(s.calls) filter (where s.toplevel), 0)::float8, coalesce(sum(s.calls), 0)::float8,
               d.xact_commit::float8, (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8
             from pg_stat_database d left join pg_stat_statements s on s.dbid = d.datid
             where d.datname = $1 group by d.xact_commit",
        )
        .bind(database)
        .fetch_one(&mut connection)
        .await?;
        Ok(Self {
            calls: row.try_get(0)?,
            statements: row.try_get(1)?,
            commits: row.try_get(2)?,
            wal_bytes: row.try_get(3)?,
            fsyncs,
            server: cpu::of_server(server.pid())?,
            own: cpu::of_this_process()?,
        })
    }

    /// What came since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            calls: self.calls - earlier.calls,
            statements: self.statements - earlier.statements,
            commits: self.commits - earlier.commits,
            wal_bytes: self.wal_bytes - earlier.wal_bytes,
            fsyncs: self.fsyncs - earlier.fsyncs,
            server: self.server - earlier.server,
            own: self.own - earlier.own,
        }
    }
}

/// Answers the statements that took most of the server's time since the last reset: text, calls, and milliseconds in it and below it.
pub(crate) async fn longest(server: &Server, database: &str, number: i64) -> Result<Vec<(String, f64, f64, f64)>> {
    let rows = sqlx::query(
        r"select left(regexp_replace(s.query, '\s+', ' ', 'g'), 72), s.calls::float8, s.rows::float8, s.total_exec_time
          from pg_stat_statements s join pg_database d on d.oid = s.dbid
          where d.datname = $1 order by s.total_exec_time desc limit $2",
    )
    .bind(database)
    .bind(number)
    .fetch_all(&mut server.connect().await?)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))).collect()
}
