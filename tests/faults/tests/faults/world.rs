//! A database with the wait points, what the tests submit to it, and what must hold of it afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use tasker::{Schema, TaskId, Tasker};
use tasker_faults::{EFFECTS, Order, STEPS, TABLES, aside, storm};
use tasker_testkit::TestDatabase;
use tokio::time::{Instant, sleep};

use crate::program::Program;
use crate::proxy::Proxy;

/// What a test waits for at most.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// A database and everything that a fault test does to it.
pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) pool: PgPool,
    pub(crate) tasker: Tasker,
    pub(crate) tasks: Vec<TaskId>,
    /// Deleted at the end; none for a server of the test's own.
    _database: Option<TestDatabase>,
}

/// Installs everything in an empty database.
pub(crate) async fn install(url: &str) {
    let tasker = connect(url).await;
    tasker.migrate().await.unwrap();
    tasker.register().await.unwrap();
    sqlx::raw_sql(TABLES).execute(tasker.pool()).await.unwrap();
    tasker.pool().close().await;
}

async fn connect(url: &str) -> Tasker {
    let builder = Tasker::builder().database_url(url).schema(Schema::default().with_wait_points());
    let tasker = builder.connect().await.unwrap();
    let pool = tasker.pool().clone();
    tasker.workflow(storm()).workflow(aside()).with_state(pool)
}

impl World {
    /// Makes a database on the shared server.
    pub(crate) async fn new() -> Self {
        let database = tasker_testkit::database("tasker_faults", install).await;
        let url = database.url().to_owned();
        Self { _database: Some(database), ..Self::at(&url).await }
    }

    /// Uses a database that [`install`] prepared.
    pub(crate) async fn at(url: &str) -> Self {
        let tasker = connect(url).await;
        let pool = tasker.pool().clone();
        Self { url: url.to_owned(), pool, tasker, tasks: Vec::new(), _database: None }
    }

    /// Starts a worker and waits until it works.
    pub(crate) async fn worker(&self) -> Program {
        Program::start(&self.url, &[]).await
    }

    /// Starts a worker that stops itself at a point.
    pub(crate) async fn worker_stopping_at(&self, point: &str) -> Program {
        Program::start(&self.url, &[("FAULT_STOP_AT", point)]).await
    }

    /// Puts a proxy before the database; answers it with the URL through it.
    pub(crate) async fn proxy(&self) -> (Proxy, String) {
        let (before, rest) = self.url.split_once('@').unwrap();
        let (address, path) = rest.split_once('/').unwrap();
        let proxy = Proxy::start(address.to_owned()).await;
        let database = path.split('?').next().unwrap();
        let url = format!("{before}@127.0.0.1:{}/{database}?sslmode=disable", proxy.port());
        (proxy, url)
    }

    /// Submits tasks.
    pub(crate) async fn submit(&mut self, count: usize, order: Order) {
        for _ in 0..count {
            let task = self.tasker.submit("storm", order).await.unwrap();
            self.tasks.push(task.id());
        }
    }

    /// Opens a connection outside the pool.
    pub(crate) async fn open(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Reads a number. A connection of the pool may have been ended with the others: then the next one is asked.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        for _ in 0..20 {
            match sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.pool).await {
                Err(sqlx::Error::Io(_)) => {}
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("57P01") => {}
                answer => return answer.unwrap(),
            }
        }
        panic!("no connection of the pool works: {sql}");
    }

    /// Waits until a query gives true.
    pub(crate) async fn until(&self, what: &str, sql: &str) {
        let end = Instant::now() + PATIENCE;
        // A server that is away for a moment is asked again.
        while !matches!(sqlx::query_scalar::<_, bool>(AssertSqlSafe(sql)).fetch_one(&self.pool).await, Ok(true)) {
            assert!(Instant::now() < end, "in vain: {what}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until every task has ended; answers how long that took.
    pub(crate) async fn wait_for_all(&self) -> Duration {
        let start = Instant::now();
        let end = start + PATIENCE;
        loop {
            let sql = "select count(*) from tasker.task where finished_at is null";
            match sqlx::query_scalar::<_, i64>(sql).fetch_one(&self.pool).await {
                Ok(0) => return start.elapsed(),
                Ok(left) => assert!(Instant::now() < end, "{left} tasks do not end:\n{}", self.open_steps().await),
                Err(error) => assert!(Instant::now() < end, "the database does not answer: {error}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn open_steps(&self) -> String {
        let sql = "select coalesce(string_agg(concat_ws(' ', s.task_id, s.idx, s.state, 'gen', s.gen, 'attempt', s.attempt, s.error), E'\\n'), '') \
                   from tasker.step s join tasker.task k using (task_id) where k.finished_at is null and s.state = 'ready'";
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap_or_default()
    }

    /// Holds everything that is promised, of tasks that have all ended; `fault` names what was survived.
    pub(crate) async fn hold_promises(&self, fault: &str, resumed: Duration) {
        let tasks = i64::try_from(self.tasks.len()).unwrap();
        let states: BTreeMap<String, i64> =
            sqlx::query_as::<_, (String, i64)>("select state::text, count(*) from tasker.task group by 1")
                .fetch_all(&self.pool)
                .await
                .unwrap()
                .into_iter()
                .collect();
        assert_eq!(states, BTreeMap::from([("complete".to_owned(), tasks * 2)]), "{fault}");
        self.hold_invariants(fault).await;
        let effects = self.number("select count(*) from effect").await;
        let twice = self.number("select count(*) from (select from effect group by key having count(*) > 1) x").await;
        assert_eq!((effects, twice), (tasks * EFFECTS, 0), "{fault}: effects, and those that are there twice");
        let ran = self.number("select count(*) from counter where n >= 1").await;
        assert_eq!(ran, tasks * STEPS, "{fault}: steps that ran");
        let published = self.number("select count(*) from tasker.publication where event <> 'default.retried'").await;
        let twice = self
            .number("select count(*) from (select from tasker.publication where event <> 'default.retried' group by task_id, event having count(*) > 1) x")
            .await;
        assert_eq!(
            (published, twice),
            (tasks * 3, 0),
            "{fault}: events that were published, and those that were twice"
        );
        let told_of_retries =
            self.number("select count(*) from tasker.publication where event = 'default.retried'").await;
        let retries = self
            .number("select count(*) from tasker.event e join tasker.step s using (task_id, idx) where e.kind = 'retry' and s.publishes and e.idx = \
                     (select idx from tasker.workflow_event where name = 'retried' limit 1)")
            .await;
        assert_eq!(told_of_retries, retries, "{fault}: retries that were published");
        let false_news = self
            .number("select count(*) from told where id not in (select publication_id from tasker.publication)")
            .await;
        assert_eq!(false_news, 0, "{fault}: events that were delivered and never published");
        let again = self.number("select coalesce(sum(n), 0)::bigint from counter").await - ran;
        eprintln!("{fault}: resumed in {} ms; {tasks} tasks, {again} attempts beyond the first", resumed.as_millis());
    }

    /// Holds what is promised of tasks that fail: all of them do, and no effect is there twice.
    pub(crate) async fn hold_failures(&self, fault: &str) {
        let tasks = i64::try_from(self.tasks.len()).unwrap();
        let failed = self.number("select count(*) from tasker.task where state = 'failed'").await;
        assert_eq!(failed, tasks, "{fault}: failed tasks");
        self.hold_invariants(fault).await;
        let twice = self.number("select count(*) from (select from effect group by key having count(*) > 1) x").await;
        assert_eq!(twice, 0, "{fault}: effects that are there twice");
        let charged = self.number("select count(*) from effect where key like '%/charge'").await;
        let given_back = self.number("select count(*) from effect where key like '%/undo:charge'").await;
        assert_eq!(given_back, charged, "{fault}: charges that were undone");
        let open = self.number("select count(*) from tasker.task where finished_at is null").await;
        assert_eq!(open, 0, "{fault}: tasks that are not at their end");
    }

    /// Holds the engine's invariants, and that no deadlock was needed.
    pub(crate) async fn hold_invariants(&self, fault: &str) {
        let breaches: Vec<String> =
            sqlx::query_scalar("select concat_ws(' ', invariant, task_id, idx, detail) from tasker.check_invariants()")
                .fetch_all(&self.pool)
                .await
                .unwrap();
        assert!(breaches.is_empty(), "{fault}: {breaches:#?}");
        let deadlocks = self.number("select deadlocks from pg_stat_database where datname = current_database()").await;
        assert_eq!(deadlocks, 0, "{fault}: deadlocks");
    }

    /// Waits for the end of all tasks and holds the promises.
    pub(crate) async fn survive(&self, fault: &str) {
        let resumed = self.wait_for_all().await;
        self.hold_promises(fault, resumed).await;
    }
}
