//! The handle that an application holds: its workflows, its states, its database.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use sqlx::PgPool;
use tasker_engine::Engine;
use tasker_model::{Result, Signatures, TaskId};
use tasker_worker::{Options, Published, Worker};

use crate::event::subscriber;
use crate::home::Runtime;
use crate::plan::Plan;
use crate::step::IntoStep;
use crate::{Builder, StepError, Submit, Task, Work, Workflow, WorkflowName};

/// Tasker in an application. Cheap to clone; works as axum's state.
///
/// What is given to it is checked as a whole by [`Tasker::check`], [`Tasker::work`] and [`Tasker::start`].
#[derive(Debug, Clone)]
pub struct Tasker {
    pub(crate) plan: Arc<Plan>,
    pub(crate) runtime: Arc<Runtime>,
}

impl Tasker {
    /// Connects to the database of `DATABASE_URL`, with what else the environment sets: see [`Builder::env`].
    pub async fn connect_env() -> Result<Self> {
        Self::builder().env()?.connect().await
    }

    /// Connects to a database.
    pub async fn connect(database_url: &str) -> Result<Self> {
        Self::builder().database_url(database_url).connect().await
    }

    /// Uses a pool that the application has.
    pub fn from_pool(pool: PgPool) -> Self {
        Self::over(Engine::from_pool(pool, tasker_engine::Schema::default()), Options::default())
    }

    /// Starts with settings other than the defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn over(engine: Engine, worker: Options) -> Self {
        Self { plan: Arc::new(Plan::new(worker)), runtime: Arc::new(Runtime::new(engine)) }
    }

    /// Adds a workflow.
    pub fn workflow(mut self, workflow: Workflow) -> Self {
        let home = workflow.home().clone();
        if let Some(revision) = self.plan_mut().add(workflow) {
            home.set(&self.runtime, &revision);
        }
        self
    }

    /// Adds a workflow from a YAML file. Its steps call handlers by name: those added with [`Tasker::handler`], or other workers'.
    pub fn workflow_yaml(mut self, path: impl AsRef<Path>) -> Self {
        let file = path.as_ref().display().to_string();
        let read = std::fs::read_to_string(path);
        match read {
            Err(error) => self.plan_mut().problem(format!("workflow file {file} cannot be read: {error}")),
            Ok(text) => match Workflow::from_yaml(&text, &file) {
                Ok(workflow) => return self.workflow(workflow),
                Err(error) => self.plan_mut().problem(error.message),
            },
        }
        self
    }

    /// Adds a handler that YAML calls by its name, in the namespaces of the YAML workflows given here, else in `default`.
    pub fn handler<Mark>(mut self, step: impl IntoStep<Mark>) -> Self {
        self.plan_mut().add_handler(None, step.into_step());
        self
    }

    /// Adds a handler in one namespace: for workflows that this program does not define.
    pub fn handler_in<Mark>(mut self, namespace: &str, step: impl IntoStep<Mark>) -> Self {
        self.plan_mut().add_handler(Some(namespace), step.into_step());
        self
    }

    /// Calls a function for each event that `event` names: `namespace.name`, a name in the namespace `default`, or `*` for all. `name` is
    /// that of the subscription, which a worker makes in the database when it starts and which stays there: what is published while no
    /// process runs comes later. Each event goes to one process, at least once; after an error or a panic it comes again, at most twelve
    /// times in all, unless the error is permanent. [`Published::id`] tells one that came before.
    ///
    /// ```no_run
    /// # use tasker::prelude::*;
    /// # async fn mail(_: &str) -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn run() -> tasker::Result<()> {
    /// let tasker = Tasker::connect_env().await?.on("orders.payment_taken", "mailer", async |event: tasker::Published| {
    ///     let payment: String = event.result()?;
    ///     mail(&payment).await?;
    ///     Ok(())
    /// });
    /// # tasker.work().await
    /// # }
    /// ```
    pub fn on<F, Fut>(mut self, event: &str, name: &str, take: F) -> Self
    where
        F: Fn(Published) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), StepError>> + Send + 'static,
    {
        self.plan_mut().subscribe(event, name, subscriber(take));
        self
    }

    /// Gives the steps a value, found by its type: `State<T>`. Another of the same type replaces it.
    pub fn with_state<T: Clone + Send + Sync + 'static>(mut self, state: T) -> Self {
        self.plan_mut().states.insert(state);
        self
    }

    /// Says how many steps this process runs at once.
    pub fn concurrency(mut self, slots: usize) -> Self {
        self.plan_mut().worker.concurrency = slots;
        self
    }

    /// Narrows the queues this process serves: `namespace` or `namespace/queue`.
    pub fn queues<S: Into<String>>(mut self, queues: impl IntoIterator<Item = S>) -> Self {
        self.plan_mut().worker.queues = queues.into_iter().map(Into::into).collect();
        self
    }

    fn plan_mut(&mut self) -> &mut Plan {
        Arc::make_mut(&mut self.plan)
    }

    /// Checks everything that a worker would: workflows, bindings, handlers, states. The error lists every mistake.
    pub fn check(&self) -> Result<()> {
        self.plan.handlers().map(drop)
    }

    /// Tells what the steps' functions take and give, as `tasker workflow lint --handlers FILE` reads it.
    pub fn describe(&self) -> Signatures {
        self.plan.signatures()
    }

    /// Makes or updates Tasker's schema in the database. Safe to call from many processes at once.
    pub async fn migrate(&self) -> Result<()> {
        self.runtime.engine.migrate().await
    }

    /// Registers the workflows, each in its own transaction. A worker does so when it starts, and the first submit does for its workflow.
    pub async fn register(&self) -> Result<()> {
        self.plan.check()?;
        for revision in self.plan.revisions() {
            self.runtime.register(&revision).await?;
        }
        Ok(())
    }

    /// Submits a task: `tasker.submit("orders.order_processing", &input).key("order:1").await?`.
    ///
    /// On Tasker's own connection, unless [`Submit::within`] gives one; if the worker of this process has free slots, the first steps go
    /// straight to it.
    pub fn submit(&self, workflow: impl Into<WorkflowName>, input: impl Serialize) -> Submit<'static> {
        Submit::by_name(self.clone(), workflow.into(), &input)
    }

    /// Returns the handle of a task. Does not look whether there is one.
    pub fn task(&self, id: TaskId) -> Task {
        Task::new(Arc::clone(&self.runtime), id, None)
    }

    /// Runs the steps of the workflows, until SIGTERM, SIGINT or [`Work::with_graceful_shutdown`] ends it.
    pub fn work(&self) -> Work {
        Work::new(self.clone())
    }

    /// Starts a worker and returns while it runs. End it with [`Worker::drain`].
    pub async fn start(&self) -> Result<Worker> {
        let handlers = self.plan.handlers()?;
        let engine = self.runtime.engine.clone();
        let worker = Worker::start(engine, self.plan.revisions(), handlers, self.plan.worker.clone()).await?;
        self.runtime.set_worker(Some(worker.clone()));
        Ok(worker)
    }

    /// Returns the engine, for what the facade does not offer.
    pub fn engine(&self) -> &Engine {
        &self.runtime.engine
    }

    /// Returns the pool.
    pub fn pool(&self) -> &PgPool {
        self.runtime.engine.pool()
    }
}
