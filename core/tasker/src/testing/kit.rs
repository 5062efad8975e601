//! The kit: a workflow, and what its test puts in place of reality.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool};
use tasker_engine::{Caller, Engine, NewWorker, Schema, Submission, clock, to_error};
use tasker_model::limits::BATCH_OUTCOMES;
use tasker_model::{DynamicName, Error, ErrorKind, Payload, Result, Revision, nearest};
use tokio::sync::OnceCell;

use super::drive::Drive;
use super::handlers::TestHandlers;
use super::{StepTest, TestRun};
use crate::step::{Body, IntoStep, StepDef, StepFunction, StepNames};
use crate::{StepError, Workflow};

/// What is committed before the first run.
#[derive(Debug, Clone)]
struct Prepared {
    /// The workflow's own revision first, then those of its children.
    revisions: Vec<(i32, Arc<Revision>)>,
    caller: Caller,
}

/// Runs one workflow, or one of its steps, under a test.
#[derive(Debug, Clone)]
pub struct TestTasker {
    revision: Result<Arc<Revision>, String>,
    pub(super) handlers: TestHandlers,
    engine: Option<Engine>,
    skip: Vec<String>,
    signals: Vec<(String, Result<Payload, String>)>,
    /// The workflows of its child tasks.
    children: Vec<Result<Arc<Revision>, String>>,
    /// Who settles: made once, when the first run needs it.
    prepared: Arc<OnceCell<Prepared>>,
}

impl TestTasker {
    /// Takes the workflow's definition and its steps' functions.
    pub fn new(workflow: &Workflow) -> Self {
        let mut handlers = TestHandlers::default();
        for (handler, step) in workflow.handlers() {
            handlers.real.insert(handler, step.body.clone());
        }
        Self {
            revision: workflow.compile().map_err(|error| error.message),
            handlers,
            engine: None,
            skip: Vec::new(),
            signals: Vec::new(),
            children: Vec::new(),
            prepared: Arc::default(),
        }
    }

    /// Gives the steps a value, as [`Tasker::with_state`](crate::Tasker::with_state) does.
    pub fn with_state<T: Clone + Send + Sync + 'static>(mut self, state: T) -> Self {
        self.handlers.states.insert(state);
        self
    }

    /// Adds a workflow that runs as a child of this one, with its steps' functions.
    pub fn with_workflow(mut self, workflow: &Workflow) -> Self {
        for (handler, step) in workflow.handlers() {
            self.handlers.real.insert(handler, step.body.clone());
        }
        self.children.push(workflow.compile().map_err(|error| error.message));
        self
    }

    /// Adds a function that a workflow from YAML calls.
    pub fn handler<Mark>(mut self, step: impl IntoStep<Mark>) -> Self {
        let step = step.into_step();
        self.handlers.real.insert(step.own_name(), step.body);
        self
    }

    /// Puts another function in the place of a step's, or of what undoes it: `undo:NAME`.
    pub fn override_step<Mark>(mut self, step: &str, function: impl StepFunction<Mark>) -> Self {
        let revision = self.revision.clone().ok();
        let name = DynamicName::of(step);
        let found = revision.as_ref().and_then(|revision| revision.step_by_name(name.step));
        let handler =
            found.and_then(|step| if name.undoes.is_some() { step.undo.as_deref() } else { Some(&*step.handler) });
        self.handlers.replace(step, handler, Body::new(function));
        self
    }

    /// Makes the step's next attempt fail without running it. Each call adds one failure.
    pub fn fail_next(mut self, step: &str, error: StepError) -> Self {
        self.handlers.fail_next(step, error.into_outcome());
        self
    }

    /// Leaves these steps out, as [`Submit::skip`](crate::Submit::skip) does.
    pub fn skip(mut self, steps: impl StepNames) -> Self {
        self.skip = steps.names();
        self
    }

    /// Sends a signal to each task that it runs, at once: it is kept for the step that waits for it. Each call adds one.
    pub fn signal(mut self, name: &str, payload: impl Serialize) -> Self {
        self.signals.push((name.to_owned(), Payload::from_value(&payload).map_err(|error| error.message)));
        self
    }

    /// Uses this database for [`TestTasker::run`]: one for tests only. The kit makes Tasker's schema in it if need be, marks it for
    /// tests and registers the workflow; everything else is rolled back.
    pub fn on(self, pool: &PgPool) -> Self {
        self.on_schema(pool, Schema::default())
    }

    /// The same, with a schema other than `tasker`.
    pub fn on_schema(mut self, pool: &PgPool, schema: Schema) -> Self {
        self.engine = Some(Engine::from_pool(pool.clone(), schema));
        self.prepared = Arc::default();
        self
    }

    /// Runs one step without a database.
    pub fn step<S: StepDef>(&self) -> StepTest<'_> {
        self.step_named(S::NAME)
    }

    /// Runs the step of this name without a database.
    pub fn step_named(&self, name: &str) -> StepTest<'_> {
        StepTest::new(self, name)
    }

    /// Submits a task and runs it to its end in a transaction of its own, which is rolled back.
    pub async fn run(&self, input: impl Serialize) -> Result<TestRun> {
        let doing = "running the workflow under test";
        let mut connection = self.engine()?.open().await?;
        let mut transaction = connection.begin().await.map_err(|error| to_error(doing, error))?;
        let run = self.run_in(&mut transaction, input).await;
        transaction.rollback().await.map_err(|error| to_error(doing, error))?;
        run
    }

    /// Submits a task and runs it to its end in the test's own transaction, beside the test's rows. The test rolls it back.
    ///
    /// `ctx.transaction` of the steps works in savepoints of this transaction; what steps do on other connections does not see it.
    pub async fn run_in(&self, connection: &mut PgConnection, input: impl Serialize) -> Result<TestRun> {
        let revision = self.revision()?;
        let input = Payload::from_value(&input)?;
        let engine = self.engine()?;
        let Prepared { revisions, caller } =
            self.prepared.get_or_try_init(|| self.prepare(engine, &revision)).await?.clone();
        let payload = |(name, payload): &(String, Result<Payload, String>)| match payload {
            Ok(payload) => Ok((name.clone(), payload.clone())),
            Err(message) => Err(Error::new(ErrorKind::Invalid, format!("the payload of signal `{name}`: {message}"))),
        };
        let signals = self.signals.iter().map(payload).collect::<Result<_>>()?;
        let submission = Submission { skip: self.skip.clone(), ..Submission::new(revisions[0].0, input) };
        let drive = Drive { engine, revisions, caller, handlers: &self.handlers, signals };
        drive.run(connection, submission).await
    }

    pub(super) fn revision(&self) -> Result<Arc<Revision>> {
        self.revision.clone().map_err(|message| Error::new(ErrorKind::Invalid, message))
    }

    /// The engine, or one that reaches no database, for what needs none.
    pub(super) fn engine_or_none(&self) -> Engine {
        self.engine.clone().unwrap_or_else(|| {
            let nowhere = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(1);
            let pool = PgPoolOptions::new().acquire_timeout(Duration::from_millis(100)).connect_lazy_with(nowhere);
            Engine::from_pool(pool, Schema::default())
        })
    }

    pub(super) fn is_without_database(&self) -> bool {
        self.engine.is_none()
    }

    fn engine(&self) -> Result<&Engine> {
        self.engine.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "a whole workflow runs in a database; name one for tests with `.on(&pool)`")
        })
    }

    /// Commits what must be there before any transaction of a test: the schema, the mark, the revision, its queues.
    async fn prepare(&self, engine: &Engine, revision: &Arc<Revision>) -> Result<Prepared> {
        for step in self.handlers.fakes.keys() {
            let name = DynamicName::of(step).step;
            if !self.children.iter().flatten().any(|child| child.step_by_name(name).is_some()) {
                step_of(revision, name)?;
            }
        }
        if !engine.installation().await.is_ok_and(|found| found.is_current()) {
            engine.migrate().await?;
        }
        let mut connection = engine.acquire().await?;
        clock::set_test_mode(&mut connection, engine.schema(), true).await?;
        drop(connection);
        let mut revisions = Vec::new();
        for revision in std::iter::once(Ok(Arc::clone(revision))).chain(self.children.iter().cloned()) {
            let revision = revision.map_err(|message| Error::new(ErrorKind::Invalid, message))?;
            revisions.push((engine.register(&revision).await?.revision_id, revision));
        }
        let worker = NewWorker {
            name: "test kit".to_owned(),
            kind: "rust".to_owned(),
            host: "test".to_owned(),
            pid: i32::try_from(std::process::id()).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            concurrency: 1,
            lease: super::drive::LEASE,
        };
        let worker_id = engine.start_worker(&worker).await?;
        let handlers_of = |revision: &Revision| {
            let namespace = revision.definition.namespace.clone();
            let own = revision.steps.iter().filter(|step| step.calls_handler()).map(|step| step.handler.clone());
            let undo = revision.steps.iter().filter_map(|step| step.undo.clone());
            own.chain(undo).map(|handler| (namespace.clone(), handler)).collect::<Vec<_>>()
        };
        let mut names: Vec<(String, String)> =
            revisions.iter().flat_map(|(_, revision)| handlers_of(revision)).collect();
        names.sort();
        names.dedup();
        let announced = engine.announce(worker_id, "rust", &names).await?;
        let handlers: Vec<i32> = announced.iter().map(|handler| handler.handler_id).collect();
        let queues = engine.serve_queues(worker_id, "rust", &handlers, &[]).await?;
        // Nothing outside the tests' transactions is run: for everybody else this worker is gone.
        engine.stop_worker(worker_id).await?;
        let caller = Caller {
            worker_id,
            queues,
            handlers,
            exclude: Vec::new(),
            want: BATCH_OUTCOMES,
            handoff: BATCH_OUTCOMES,
            turn: 0,
            lease: super::drive::LEASE,
            relaxed: false,
        };
        Ok(Prepared { revisions, caller })
    }
}

/// Finds a step, or says which one was meant.
pub(super) fn step_of<'r>(revision: &'r Revision, name: &str) -> Result<&'r tasker_model::RevisionStep> {
    revision.step_by_name(name).ok_or_else(|| {
        let near = nearest(name, revision.steps.iter().map(|step| step.name.as_str()));
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        let workflow = revision.definition.reference();
        Error::new(ErrorKind::NotFound, format!("workflow {workflow} has no step `{name}`{hint}"))
    })
}
