//! The sweeper: what looks after everything that nobody holds. Run by every worker and server; one at a time in the whole database.

use std::time::Duration;

use rand::Rng;
use sqlx::{Connection as _, PgConnection, Postgres, Transaction};
use tasker_model::outcome::StepFailure;
use tasker_model::retry::Retry;
use tasker_model::{Payload, Result, TaskId};

use crate::hot::Reply;
use crate::{Engine, to_error};

/// Steps of tasks younger than this are not repaired: their message may be on its way.
const REPAIR_AGE: &str = "10 minutes";

/// What was in flight at the first look for lost messages has ended by the second.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// A queue table with more dead entries than this is vacuumed.
const DEAD_ENTRIES: i64 = 3_000;

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Workers that were gone.
    pub workers: i32,
    /// Steps whose worker did not time them out.
    pub timed_out: usize,
    /// Timers, holds and messages that belonged to nothing.
    pub leftovers: i64,
    /// Ready steps that got the message they lacked.
    pub repaired: i64,
    /// Expired idempotency keys.
    pub keys: i64,
}

impl Engine {
    /// Runs the frequent part: gone workers and steps over their timeout. Answers nothing where another process sweeps at the moment.
    pub async fn sweep(
        &self,
        conn: &mut PgConnection,
        policy: &impl RetryPolicies,
    ) -> Result<Option<(Swept, Vec<Reply>)>> {
        let doing = "sweeping";
        let Some(mut tx) = self.begin_sweep(conn).await? else { return Ok(None) };
        let workers: i32 = sqlx::query_scalar(self.statement("select {schema}.sweep_workers()"))
            .fetch_one(self.on(&mut tx))
            .await
            .map_err(|e| to_error(doing, e))?;
        let overdue: Vec<(uuid::Uuid, i32, i32, i32, i32, i32, i32)> = sqlx::query_as(self.statement(
            "select o.task_id, o.idx, o.gen, o.attempt, o.revision_id, o.timeout_ms, coalesce(s.origin, o.idx) \
             from {schema}.overdue_steps() o join {schema}.step s on s.task_id = o.task_id and s.idx = o.idx",
        ))
        .fetch_all(self.on(&mut tx))
        .await
        .map_err(|e| to_error(doing, e))?;
        tx.commit().await.map_err(|e| to_error(doing, e))?;
        let mut swept = Swept { workers, ..Swept::default() };
        let mut replies = Vec::new();
        // Without the lock: each is fenced by the step's generation, so a second sweeper finds it done.
        for (task, idx, generation, attempt, revision_id, timeout_ms, step) in overdue {
            let retry = policy.retry(revision_id, step).await?;
            let reply = self.expire_step(conn, TaskId(task), idx, generation, attempt, timeout_ms, &retry).await?;
            swept.timed_out += 1;
            replies.push(reply);
        }
        self.vacuum_queues(conn).await?;
        Ok(Some((swept, replies)))
    }

    /// Runs the rare part: leftovers, missing messages, expired keys, event partitions. Meant for once an hour.
    pub async fn sweep_deeply(&self, conn: &mut PgConnection) -> Result<Option<Swept>> {
        let doing = "sweeping";
        let Some(mut tx) = self.begin_sweep(conn).await? else { return Ok(None) };
        let (leftovers, keys): (i64, i64) =
            sqlx::query_as(self.statement("select {schema}.sweep_leftovers(), {schema}.sweep_keys(10000)"))
                .fetch_one(self.on(&mut tx))
                .await
                .map_err(|e| to_error(doing, e))?;
        tx.commit().await.map_err(|e| to_error(doing, e))?;
        let repaired = self.repair(conn).await?;
        sqlx::query(self.statement("select {schema}.make_partitions(8)"))
            .execute(self.on(conn))
            .await
            .map_err(|e| to_error(doing, e))?;
        Ok(Some(Swept { leftovers, repaired, keys, ..Swept::default() }))
    }

    /// Sends messages for ready steps that have lost theirs: those that two looks, a moment apart, find without any owner. Without the
    /// sweepers' lock: the second look holds the steps, so a second sweeper finds them repaired.
    async fn repair(&self, conn: &mut PgConnection) -> Result<i64> {
        let doing = "looking for lost messages";
        let suspects: Vec<(uuid::Uuid, i32, i32)> =
            sqlx::query_as(self.statement(
                "select task_id, idx, gen from {schema}.ownerless_steps({schema}.now() - $1::text::interval)",
            ))
            .bind(REPAIR_AGE)
            .fetch_all(self.on(conn))
            .await
            .map_err(|e| to_error(doing, e))?;
        if suspects.is_empty() {
            return Ok(0);
        }
        tokio::time::sleep(SECOND_LOOK).await;
        let repaired: i64 = sqlx::query_scalar(self.statement("select {schema}.repair_steps($1, $2, $3)"))
            .bind(suspects.iter().map(|s| s.0).collect::<Vec<_>>())
            .bind(suspects.iter().map(|s| s.1).collect::<Vec<_>>())
            .bind(suspects.iter().map(|s| s.2).collect::<Vec<_>>())
            .fetch_one(self.on(conn))
            .await
            .map_err(|e| to_error(doing, e))?;
        if repaired > 0 {
            tracing::error!(repaired, "ready steps had no message and were sent again; this should never happen");
        }
        Ok(repaired)
    }

    /// Vacuums queue tables with some thousands of dead entries: a read walks over them until then. Only an owner may; for other roles the
    /// tables' autovacuum settings do it, later.
    async fn vacuum_queues(&self, conn: &mut PgConnection) -> Result<()> {
        let doing = "vacuuming the queues";
        let tables: Vec<String> = sqlx::query_scalar(
            "select format('pgmq.%I', s.relname) from pg_stat_user_tables s join pg_class c on c.oid = s.relid \
             where s.schemaname = 'pgmq' and s.n_dead_tup > $1 and starts_with(s.relname, $2) and pg_has_role(c.relowner, 'usage')",
        )
        .bind(DEAD_ENTRIES)
        .bind(format!("q_{}", self.schema().queue_prefix()))
        .fetch_all(self.on(conn))
        .await
        .map_err(|e| to_error(doing, e))?;
        for table in tables {
            let vacuum = sqlx::AssertSqlSafe(format!("vacuum (truncate false, skip_locked) {table}"));
            sqlx::raw_sql(vacuum).execute(&mut *conn).await.map_err(|e| to_error(doing, e))?;
        }
        Ok(())
    }

    /// Times out a step as a verb does: its holder's outcome will be lost.
    #[expect(clippy::too_many_arguments, reason = "a step's address, its attempt and its policy")]
    async fn expire_step(
        &self,
        conn: &mut PgConnection,
        task: TaskId,
        idx: i32,
        generation: i32,
        attempt: i32,
        timeout_ms: i32,
        retry: &Retry,
    ) -> Result<Reply> {
        let failures = u32::try_from(attempt).unwrap_or(u32::MAX);
        let limit = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or_default());
        let delay = retry.allows_another(failures).then(|| retry.delay(failures, None, rand::rng().random()));
        let rows = sqlx::query(self.statement("select * from {schema}.expire_step_v1($1, $2, $3, $4, $5)"))
            .bind(task.0)
            .bind(idx)
            .bind(generation)
            .bind(Payload::from_value(&StepFailure::timeout(limit))?.get())
            .bind(delay.map(|d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
            .fetch_all(self.on(conn))
            .await
            .map_err(|e| to_error("timing out a step", e))?;
        Reply::read(&rows)
    }

    /// Begins a transaction that holds the sweepers' lock to its end; none where another process has it. The lock is the transaction's,
    /// not the session's: PgBouncer may give a session's to anybody.
    async fn begin_sweep<'c>(&self, conn: &'c mut PgConnection) -> Result<Option<Transaction<'c, Postgres>>> {
        let doing = "taking the sweepers' lock";
        let mut tx = conn.begin().await.map_err(|e| to_error(doing, e))?;
        let sql = self.statement("select pg_try_advisory_xact_lock(hashtextextended('{schema_text}.sweep', 0))");
        let is_ours: bool =
            sqlx::query_scalar(sql).fetch_one(self.on(&mut tx)).await.map_err(|e| to_error(doing, e))?;
        if is_ours {
            return Ok(Some(tx));
        }
        tx.rollback().await.map_err(|e| to_error(doing, e))?;
        Ok(None)
    }
}

/// Where the sweeper finds a step's retry policy: the worker keeps revisions compiled.
pub trait RetryPolicies {
    /// Answers the policy of step `idx` of a revision, which is also that of the dynamic steps it stands for.
    fn retry(&self, revision_id: i32, idx: i32) -> impl Future<Output = Result<Retry>> + Send;
}
