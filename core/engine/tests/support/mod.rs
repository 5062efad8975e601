//! A migrated database for each test, and a worker in a hand's grip: every call of the protocol is made by the test itself.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, reason = "a module of several test crates")]

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use tasker_engine::{
    Caller, Change, Claimed, Engine, Lease, NewWorker, Reply, Root, Schema, Settlement, Submission, pgmq,
};
use tasker_model::outcome::StepFailure;
use tasker_model::revision::Revision;
use tasker_model::{ErrorKind, Payload, TaskId};
use tasker_testkit::TestDatabase;

/// A database with the schema installed.
pub struct Db {
    pub database: TestDatabase,
    pub pool: PgPool,
    pub engine: Engine,
}

pub async fn db() -> Db {
    let database = tasker_testkit::database("tasker_engine", async |url| {
        let engine = Engine::connect(&tasker_engine::Options::new(url)).await.unwrap();
        engine.migrate().await.unwrap();
        tasker_engine::clock::set_test_mode(&mut engine.acquire().await.unwrap(), &Schema::default(), true)
            .await
            .unwrap();
        engine.pool().close().await;
    })
    .await;
    let pool = database.pool().await;
    let engine = engine(&database, &pool).await;
    Db { database, pool, engine }
}

/// An engine on the tests' own pool, or through PgBouncer where the tests are run for that.
pub async fn engine(database: &TestDatabase, pool: &PgPool) -> Engine {
    let url = database.engine_url();
    if url == database.url() {
        return Engine::from_pool(pool.clone(), Schema::default());
    }
    let mut options = tasker_engine::Options::new(url);
    options.pool_size = 40;
    options.direct_database_url = Some(database.url().to_owned());
    let engine = Engine::connect(&options).await.unwrap();
    assert!(engine.is_pooled(), "a PgBouncer is not noticed");
    engine
}

pub fn compile(yaml: &str) -> Revision {
    let definition =
        tasker_model::parse::parse(yaml, "test.yaml").unwrap_or_else(|report| panic!("{}", report.render(false)));
    Revision::compile(definition).unwrap()
}

/// The seven steps of the benchmarks: 0 -> {1,2}, 1 -> 3, 2 -> 4, {3,4} -> 5 -> 6.
pub const DAG7: &str = "
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

/// Joins what is written for each of 0, 1, ... n-1.
pub fn each(n: usize, write: impl Fn(usize) -> String) -> String {
    (0..n).map(write).collect::<Vec<_>>().concat()
}

/// A worker whose steps the test takes and settles itself.
pub struct Hand {
    pub engine: Engine,
    pub conn: PgConnection,
    pub caller: Caller,
}

impl Db {
    pub async fn register(&self, yaml: &str) -> (Revision, i32) {
        let revision = compile(yaml);
        let id = self.engine.register(&revision).await.unwrap().revision_id;
        (revision, id)
    }

    pub async fn hand(&self, handlers: &[&str]) -> Hand {
        self.hand_of("rust", handlers).await
    }

    pub async fn hand_of(&self, kind: &str, handlers: &[&str]) -> Hand {
        let worker_id = self
            .engine
            .start_worker(&NewWorker {
                name: "test".into(),
                kind: kind.into(),
                host: "localhost".into(),
                pid: 1,
                version: "0".into(),
                concurrency: 100,
                lease: Duration::from_secs(30),
            })
            .await
            .unwrap();
        let names: Vec<_> = handlers.iter().map(|h| ("default".to_owned(), (*h).to_owned())).collect();
        let announced = self.engine.announce(worker_id, kind, &names).await.unwrap();
        let handlers: Vec<i32> = announced.iter().map(|a| a.handler_id).collect();
        let queues = self.engine.serve_queues(worker_id, kind, &handlers, &[]).await.unwrap();
        Hand {
            engine: self.engine.clone(),
            conn: self.engine.open().await.unwrap(),
            caller: Caller {
                worker_id,
                queues,
                handlers,
                exclude: vec![],
                want: 0,
                handoff: 0,
                turn: 0,
                lease: Duration::from_secs(30),
                relaxed: false,
            },
        }
    }

    pub async fn submit(&self, revision_id: i32, input: &str) -> TaskId {
        self.submit_with(Submission::new(revision_id, Payload::parse(input).unwrap())).await
    }

    pub async fn submit_with(&self, submission: Submission) -> TaskId {
        let mut conn = self.engine.acquire().await.unwrap();
        self.engine.submit(&mut conn, &[submission], None, Root::Anyone).await.unwrap().submitted[0].task_id
    }

    pub async fn task_state(&self, task: TaskId) -> String {
        self.text("select state::text from tasker.task where task_id = $1", task).await
    }

    /// The states of a task's steps by idx, as one line.
    pub async fn steps(&self, task: TaskId) -> String {
        self.text("select string_agg(state::text, ' ' order by idx) from tasker.step where task_id = $1", task).await
    }

    /// The kinds of a task's events in order, steps as `idx:kind`.
    pub async fn events(&self, task: TaskId) -> String {
        self.text("select string_agg(coalesce(idx || ':', '') || kind, ' ' order by event_id) from tasker.event where task_id = $1", task).await
    }

    pub async fn text(&self, sql: &'static str, task: TaskId) -> String {
        sqlx::query_scalar::<_, Option<String>>(sql)
            .bind(task.0)
            .fetch_one(&self.pool)
            .await
            .unwrap()
            .unwrap_or_default()
    }

    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    pub async fn messages(&self) -> i64 {
        self.count("select count(*) from tasker.all_messages()").await
    }

    /// Every invariant, over everything.
    pub async fn check(&self) {
        let broken: Vec<(String, Option<uuid::Uuid>, Option<i32>, String)> =
            sqlx::query_as("select * from tasker.check_invariants()").fetch_all(&self.pool).await.unwrap();
        assert!(broken.is_empty(), "broken invariants: {broken:#?}");
    }

    /// Applies all internal messages.
    pub async fn internal(&self) {
        let mut conn = self.engine.acquire().await.unwrap();
        loop {
            let messages = self.engine.take_internal(&mut conn, 10).await.unwrap();
            if messages.is_empty() {
                return;
            }
            for message in messages {
                self.engine.apply_internal(&mut conn, &message).await.unwrap();
            }
        }
    }

    /// The task that runs as a step of this one.
    pub async fn child_of(&self, task: TaskId, idx: i32) -> TaskId {
        let id: uuid::Uuid =
            sqlx::query_scalar("select task_id from tasker.task where parent_task = $1 and parent_idx = $2")
                .bind(task.0)
                .bind(idx)
                .fetch_one(&self.pool)
                .await
                .unwrap();
        TaskId(id)
    }

    /// A step's result as it is stored.
    pub async fn result(&self, task: TaskId, idx: i32) -> Option<String> {
        sqlx::query_scalar("select result::text from tasker.step where task_id = $1 and idx = $2")
            .bind(task.0)
            .bind(idx)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Lets the waits of all tasks come due, and applies what that means.
    pub async fn let_time_pass(&self) {
        sqlx::query("update tasker.timer set due_at = now() - interval '1 second' where kind = 'wait'")
            .execute(&self.pool)
            .await
            .unwrap();
        sqlx::query("update tasker.step set item = jsonb_set(item, '{due_at}', to_jsonb(now() - interval '1 second')) where item ? 'due_at' and state = 'ready'")
            .execute(&self.pool)
            .await
            .unwrap();
        let mut conn = self.engine.open().await.unwrap();
        pgmq::publish(&self.engine, &mut conn).await.unwrap();
        self.internal().await;
    }
}

impl Hand {
    /// Claims one step, whose task's input is not known to be valid yet.
    pub async fn claim_unvalidated(&mut self) -> Claimed {
        let refused = self.claim(1).await.refused.remove(0);
        self.settle(&[outcome(&refused.claimed.lease, Change::Validated)]).await;
        self.claim_one().await
    }

    pub async fn claim(&mut self, want: usize) -> Reply {
        let caller = Caller { want, ..self.caller.clone() };
        pgmq::receive(&self.engine, &mut self.conn, &caller).await.unwrap()
    }

    pub async fn claim_one(&mut self) -> Claimed {
        let mut reply = self.claim(1).await;
        assert_eq!(reply.leased.len(), 1, "{reply:?}");
        reply.leased.remove(0)
    }

    /// Settles without taking anything in return.
    pub async fn settle(&mut self, outcomes: &[Settlement]) -> Reply {
        pgmq::settle(&self.engine, &mut self.conn, &self.caller.clone(), outcomes).await.unwrap()
    }

    /// Settles and takes up to `want` of the steps that this makes ready.
    pub async fn settle_for(&mut self, outcomes: &[Settlement], want: usize) -> Reply {
        self.settle_and_read(outcomes, want, 0).await
    }

    /// Settles, takes up to `handoff` steps that this makes ready, and reads up to `read` from the queue.
    pub async fn settle_and_read(&mut self, outcomes: &[Settlement], handoff: usize, read: usize) -> Reply {
        let caller = Caller { want: handoff + read, handoff, ..self.caller.clone() };
        pgmq::settle(&self.engine, &mut self.conn, &caller, outcomes).await.unwrap()
    }

    /// Runs everything to the end with results `{"step": idx}`; answers how many steps ran.
    pub async fn drain(&mut self) -> usize {
        let mut ran = 0;
        let mut hands = self.claim(100).await.leased;
        while !hands.is_empty() {
            ran += hands.len();
            let outcomes: Vec<_> =
                hands.iter().map(|c| done(&c.lease, &format!(r#"{{"step":{}}}"#, c.lease.idx))).collect();
            hands = self.settle_and_read(&outcomes, 100, 100).await.leased;
        }
        ran
    }
}

pub fn outcome(lease: &Lease, change: Change) -> Settlement {
    Settlement { lease: *lease, change, duration: Some(Duration::from_millis(7)) }
}

pub fn done(lease: &Lease, value: &str) -> Settlement {
    outcome(lease, Change::Success { value: Payload::parse(value).unwrap(), metadata: None })
}

pub fn failed(lease: &Lease, message: &str) -> Settlement {
    outcome(lease, Change::Failure { error: StepFailure::permanent(message) })
}

pub fn retry(lease: &Lease, delay: Duration) -> Settlement {
    outcome(lease, Change::Retry { error: StepFailure::unexpected("try again"), delay })
}

pub fn cancelled(lease: &Lease) -> Settlement {
    outcome(lease, Change::Cancelled { error: StepFailure::new(ErrorKind::Cancelled, "stopped") })
}
