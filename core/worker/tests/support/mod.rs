//! A migrated database for each test and workers over closures.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use sqlx::PgPool;
use tasker_engine::{Engine, Schema, Submission};
use tasker_model::{Outcome, Payload, Revision, TaskId, TaskState};
use tasker_testkit::TestDatabase;
use tasker_worker::{Handler, Handlers, Options, StepContext, Worker};

/// What a test waits for at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A database with the schema installed.
pub(crate) struct Db {
    pub(crate) database: TestDatabase,
    pub(crate) pool: PgPool,
    pub(crate) engine: Engine,
}

pub(crate) async fn db() -> Db {
    let database = tasker_testkit::database("tasker_worker", async |url| {
        let engine = Engine::connect(&tasker_engine::Options::new(url)).await.unwrap();
        engine.migrate().await.unwrap();
        engine.pool().close().await;
    })
    .await;
    let pool = database.pool().await;
    let engine = engine(&database, &pool).await;
    Db { database, pool, engine }
}

/// An engine on the tests' own pool, or through PgBouncer where the tests are run for that.
async fn engine(database: &TestDatabase, pool: &PgPool) -> Engine {
    let url = database.engine_url();
    if url == database.url() {
        return Engine::from_pool(pool.clone(), Schema::default());
    }
    let mut options = tasker_engine::Options::new(url);
    options.pool_size = 40;
    Engine::connect(&options).await.unwrap()
}

pub(crate) fn compile(yaml: &str) -> Arc<Revision> {
    let definition =
        tasker_model::parse::parse(yaml, "test.yaml").unwrap_or_else(|report| panic!("{}", report.render(false)));
    Arc::new(Revision::compile(definition).unwrap())
}

/// The seven steps of the benchmarks: 0 -> {1,2}, 1 -> 3, 2 -> 4, {3,4} -> 5 -> 6.
pub(crate) const DAG7: &str = "
name: dag7
steps:
  s0: { call: h }
  s1: { call: h, after: [s0] }
  s2: { call: h, after: [s0] }
  s3: { call: h, after: [s1] }
  s4: { call: h, after: [s2] }
  s5: { call: h, after: [s3, s4] }
  s6: { call: h, after: [s5] }
";

/// Makes a handler of a closure.
pub(crate) fn handler<F, Fut>(run: F) -> Arc<dyn Handler>
where
    F: Fn(StepContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    Arc::new(move |ctx: StepContext| run(ctx).boxed())
}

pub(crate) fn json(text: &str) -> Payload {
    Payload::parse(text).unwrap()
}

pub(crate) fn ok(text: &str) -> Outcome {
    Outcome::success(json(text))
}

pub(crate) fn handlers(all: &[(&str, Arc<dyn Handler>)]) -> Handlers {
    let mut handlers = Handlers::default();
    for (name, handler) in all {
        handlers.insert("default", name, Arc::clone(handler)).unwrap();
    }
    handlers
}

pub(crate) fn slots(concurrency: usize) -> Options {
    Options { concurrency, ..Options::default() }
}

impl Db {
    /// Starts a worker for one workflow and one handler `h`.
    pub(crate) async fn worker(&self, yaml: &str, options: Options, h: Arc<dyn Handler>) -> Worker {
        self.worker_of(yaml, options, handlers(&[("h", h)])).await
    }

    pub(crate) async fn worker_of(&self, yaml: &str, options: Options, handlers: Handlers) -> Worker {
        Worker::start(self.engine.clone(), vec![compile(yaml)], handlers, options).await.unwrap()
    }

    pub(crate) async fn revision(&self, yaml: &str) -> i32 {
        self.engine.register(&compile(yaml)).await.unwrap().revision_id
    }

    pub(crate) async fn state(&self, task: TaskId) -> String {
        sqlx::query_scalar("select state::text from tasker.task where task_id = $1")
            .bind(task.0)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// The states of a task's steps by idx, as one line.
    pub(crate) async fn steps(&self, task: TaskId) -> String {
        sqlx::query_scalar("select string_agg(state::text, ' ' order by idx) from tasker.step where task_id = $1")
            .bind(task.0)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// How many events of a kind a task has.
    pub(crate) async fn events(&self, task: TaskId, kind: &str) -> i64 {
        sqlx::query_scalar("select count(*) from tasker.event where task_id = $1 and kind = $2")
            .bind(task.0)
            .bind(kind)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// A field of a step's stored error.
    pub(crate) async fn step_error(&self, task: TaskId, idx: i32, field: &str) -> String {
        sqlx::query_scalar::<_, Option<String>>("select error->>$3 from tasker.step where task_id = $1 and idx = $2")
            .bind(task.0)
            .bind(idx)
            .bind(field)
            .fetch_one(&self.pool)
            .await
            .unwrap()
            .unwrap_or_default()
    }

    /// Waits for a task's end, whoever brings it.
    pub(crate) async fn ended(&self, task: TaskId) -> String {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let state = self.state(task).await;
            if state != "running" {
                return state;
            }
            assert!(tokio::time::Instant::now() < end, "task {task} is still running: {}", self.steps(task).await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a count reaches a number.
    pub(crate) async fn until(&self, sql: &'static str, expected: i64) {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let found: i64 = sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap();
            if found == expected {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "{sql} is {found}, not {expected}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Drains the worker and holds the engine's invariants.
    pub(crate) async fn close(&self, worker: &Worker) {
        worker.drain(Duration::from_secs(5)).await;
        self.hold_invariants().await;
    }

    pub(crate) async fn hold_invariants(&self) {
        let breaches: Vec<String> =
            sqlx::query_scalar("select concat_ws(' ', invariant, task_id, idx, detail) from tasker.check_invariants()")
                .fetch_all(&self.pool)
                .await
                .unwrap();
        assert!(breaches.is_empty(), "{breaches:#?}");
    }
}

/// Submits one task of the worker's own workflow.
pub(crate) async fn submit(worker: &Worker, workflow: &str, input: &str) -> TaskId {
    let revision = worker.revision_id(&workflow.parse().unwrap()).unwrap();
    worker.submit(&[Submission::new(revision, json(input))]).await.unwrap()[0].task_id
}

/// Waits for the end of a task that this worker brings.
pub(crate) async fn finished(worker: &Worker, task: TaskId) -> TaskState {
    tokio::time::timeout(PATIENCE, worker.finished(task)).await.unwrap()
}
