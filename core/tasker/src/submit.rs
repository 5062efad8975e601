//! Submitting a task, alone or with the application's own rows in one transaction.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::{BoxFuture, FutureExt};
use serde::Serialize;
use sqlx::PgConnection;
use tasker_engine::{Engine, Reply, Root, Submission, Submitted, clock, pgmq, to_error};
use tasker_model::{Error, ErrorKind, Payload, Priority, Result, Revision, WorkflowRef};

use crate::home::Runtime;
use crate::step::StepNames;
use crate::{Task, Tasker, Workflow};

/// Who is said to have submitted, in the task's history.
const ACTOR: &str = "application";

/// Names a workflow: `"name"`, `"namespace.name"`, or the [`Workflow`] itself.
#[derive(Debug)]
pub struct WorkflowName(Result<WorkflowRef>);

impl From<&str> for WorkflowName {
    fn from(name: &str) -> Self {
        Self(name.parse())
    }
}

impl From<&Workflow> for WorkflowName {
    fn from(workflow: &Workflow) -> Self {
        Self(Ok(workflow.reference()))
    }
}

/// Where the revision comes from.
#[derive(Debug)]
enum Of {
    Name(Tasker, WorkflowName),
    Workflow(Result<(Arc<Runtime>, Arc<Revision>)>),
}

#[derive(Debug, Clone, Copy)]
enum When {
    At(DateTime<Utc>),
    /// From the database's now.
    In(Duration),
}

impl When {
    fn fixed(self) -> Option<DateTime<Utc>> {
        match self {
            Self::At(at) => Some(at),
            Self::In(_) => None,
        }
    }
}

/// A task about to be submitted; `.await` submits it.
///
/// Fails with `input_invalid` where the input does not satisfy the workflow, `conflict` where the key was used with another
/// input, `not_found` for an unknown workflow.
#[must_use = "a submit does nothing until it is awaited"]
#[derive(Debug)]
pub struct Submit<'c> {
    of: Of,
    connection: Option<&'c mut PgConnection>,
    /// With no revision yet.
    submission: Result<Submission>,
    run_at: Option<When>,
    deadline: Option<When>,
}

impl Workflow {
    /// Submits a task on the caller's connection, in its transaction if it has one: the task exists if and only if that commits.
    ///
    /// The workflow must have been given to a Tasker. Its first submit registers it on a connection of the Tasker's own, unless
    /// [`Tasker::register`] or a worker did before.
    ///
    /// ```no_run
    /// # use tasker::prelude::*;
    /// # async fn create(orders: Workflow, pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut tx = pool.begin().await?;
    /// let id: i64 = sqlx::query_scalar("insert into orders default values returning id").fetch_one(&mut *tx).await?;
    /// let task = orders.submit(&mut tx, serde_json::json!({"order_id": id})).key(format!("order:{id}")).await?;
    /// tx.commit().await?;
    /// # Ok(()) }
    /// ```
    pub fn submit<'c>(&self, connection: &'c mut PgConnection, input: impl Serialize) -> Submit<'c> {
        let of = Of::Workflow(self.home().get(&self.reference()));
        Submit { connection: Some(connection), ..Submit::of(of, &input) }
    }
}

impl Submit<'static> {
    pub(crate) fn by_name(tasker: Tasker, name: WorkflowName, input: &impl Serialize) -> Self {
        Self::of(Of::Name(tasker, name), input)
    }

    /// Submits on the caller's connection instead, in its transaction if it has one.
    pub fn within(self, connection: &mut PgConnection) -> Submit<'_> {
        Submit { connection: Some(connection), ..self }
    }
}

impl Submit<'_> {
    fn of(of: Of, input: &impl Serialize) -> Self {
        Self {
            of,
            connection: None,
            submission: Payload::from_value(input).map(|input| Submission::new(0, input)),
            run_at: None,
            deadline: None,
        }
    }

    /// Gives an idempotency key: the same key with the same input answers the task that exists, with another input it is a conflict.
    pub fn key(self, key: impl Into<String>) -> Self {
        self.change(|submission| {
            submission.key = Some(key.into());
            Ok(())
        })
    }

    /// Gives tags, an object of at most 4 KiB, by which the task can be found.
    pub fn tags(self, tags: impl Serialize) -> Self {
        self.change(|submission| {
            submission.tags = Some(Payload::from_value(&tags)?);
            Ok(())
        })
    }

    /// Runs it this much later.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.run_at = Some(When::In(delay));
        self
    }

    /// Runs it not before this time.
    pub fn run_at(mut self, at: DateTime<Utc>) -> Self {
        self.run_at = Some(When::At(at));
        self
    }

    /// Gives the steps that have none of their own this priority.
    pub fn priority(self, priority: Priority) -> Self {
        self.change(|submission| {
            submission.priority = Some(priority);
            Ok(())
        })
    }

    /// Fails the task if it is not finished by this time.
    pub fn deadline(mut self, at: DateTime<Utc>) -> Self {
        self.deadline = Some(When::At(at));
        self
    }

    /// Fails the task if it is not finished after this long, counted from the submit.
    pub fn deadline_in(mut self, time: Duration) -> Self {
        self.deadline = Some(When::In(time));
        self
    }

    /// Gives an id that is carried to every step and to every log line.
    pub fn correlation_id(self, id: impl Into<String>) -> Self {
        self.change(|submission| {
            submission.correlation_id = Some(id.into());
            Ok(())
        })
    }

    /// Carries a W3C trace context to every step: `{"traceparent": "00-..."}`.
    pub fn trace(self, context: impl Serialize) -> Self {
        self.change(|submission| {
            submission.trace = Some(Payload::from_value(&context)?);
            Ok(())
        })
    }

    /// Leaves these steps out; what depends on them gets `null` and runs.
    pub fn skip(self, steps: impl StepNames) -> Self {
        self.change(|submission| {
            submission.skip = steps.names();
            Ok(())
        })
    }

    fn change(mut self, change: impl FnOnce(&mut Submission) -> Result<()>) -> Self {
        self.submission = self.submission.and_then(|mut submission| {
            change(&mut submission)?;
            Ok(submission)
        });
        self
    }

    async fn send(self) -> Result<Task> {
        let mut submission = self.submission?;
        let (runtime, revision, id) = revision(self.of).await?;
        submission.revision_id = id;
        let engine = &runtime.engine;
        let submitted = if let Some(connection) = self.connection {
            submission.run_at = time(self.run_at, engine, connection).await?;
            submission.deadline = time(self.deadline, engine, connection).await?;
            submission.check(&revision)?;
            insert(engine, connection, submission).await?
        } else {
            (submission.run_at, submission.deadline) = match (self.run_at, self.deadline) {
                (Some(When::In(_)), _) | (_, Some(When::In(_))) => {
                    let mut connection = engine.acquire().await?;
                    (
                        time(self.run_at, engine, &mut connection).await?,
                        time(self.deadline, engine, &mut connection).await?,
                    )
                }
                (run_at, deadline) => (run_at.and_then(When::fixed), deadline.and_then(When::fixed)),
            };
            submission.check(&revision)?;
            if let Some(worker) = runtime.worker() {
                first(&worker.submit(&[submission]).await?)?
            } else {
                insert(engine, &mut *engine.acquire().await?, submission).await?
            }
        };
        Ok(Task::new(runtime, submitted.task_id, Some(submitted.created)))
    }
}

impl<'c> IntoFuture for Submit<'c> {
    type Output = Result<Task>;
    type IntoFuture = BoxFuture<'c, Result<Task>>;

    fn into_future(self) -> Self::IntoFuture {
        self.send().boxed()
    }
}

async fn revision(of: Of) -> Result<(Arc<Runtime>, Arc<Revision>, i32)> {
    match of {
        Of::Workflow(home) => {
            let (runtime, revision) = home?;
            let id = runtime.register(&revision).await?;
            Ok((runtime, revision, id))
        }
        Of::Name(tasker, name) => {
            tasker.plan.check()?;
            let name = name.0?;
            let runtime = tasker.runtime;
            if let Some(revision) = tasker.plan.find(&name) {
                let id = runtime.register(revision).await?;
                Ok((runtime, Arc::clone(revision), id))
            } else {
                let (id, revision) = runtime.current(&name).await?;
                Ok((runtime, revision, id))
            }
        }
    }
}

/// Turns a time from now into a time by the database's clock, which is the one that counts.
async fn time(when: Option<When>, engine: &Engine, connection: &mut PgConnection) -> Result<Option<DateTime<Utc>>> {
    match when {
        None => Ok(None),
        Some(When::At(at)) => Ok(Some(at)),
        Some(When::In(time)) => {
            let now = clock::now(connection, engine.schema()).await?;
            let at = TimeDelta::from_std(time).ok().and_then(|time| now.checked_add_signed(time));
            at.map(Some)
                .ok_or_else(|| Error::new(ErrorKind::Invalid, "the delay is longer than time itself; shorten it"))
        }
    }
}

/// Makes the task for whoever reads the queue, and wakes those workers that sleep.
async fn insert(engine: &Engine, connection: &mut PgConnection, submission: Submission) -> Result<Submitted> {
    let reply: Reply = engine.submit(connection, &[submission], Some(ACTOR), Root::Anyone).await?;
    let submitted = first(&reply.submitted)?;
    let queues: Vec<i32> = reply.left.iter().map(|(queue, _)| *queue).collect();
    if !queues.is_empty() {
        // A NOTIFY in the caller's transaction holds a lock through its commit: only where somebody sleeps long enough to need it.
        let sleepers = engine.statement(
            "select q.id from unnest($1::int[]) as q(id) where exists (
               select from {schema}.worker w where w.idle_until > {schema}.now() and w.stopped_at is null and q.id = any(w.queues))",
        );
        let sleepers: Vec<i32> = sqlx::query_scalar(sleepers)
            .bind(&queues)
            .fetch_all(engine.on(connection))
            .await
            .map_err(|error| to_error("looking for idle workers", error))?;
        if !sleepers.is_empty() {
            pgmq::wake(engine, connection, &sleepers).await?;
        }
    }
    Ok(submitted)
}

fn first(submitted: &[Submitted]) -> Result<Submitted> {
    submitted.first().copied().ok_or_else(|| {
        Error::new(
            ErrorKind::Internal,
            "the database did not answer the submit; is its schema older than this program?",
        )
    })
}
