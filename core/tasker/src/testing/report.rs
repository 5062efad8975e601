//! What a test sees of a run.

use std::time::Duration;

use serde::de::DeserializeOwned;
use sqlx::PgConnection;
use tasker_engine::{Engine, to_error};
use tasker_model::{Error, ErrorKind, Payload, Result, StepFailure, StepState, TaskId, TaskState, nearest};
use tasker_worker::Published;

/// A task that ran to its end under a test.
#[derive(Debug, Clone)]
pub struct TestRun {
    /// Its id; its rows are there until the transaction ends.
    pub task_id: TaskId,
    /// Its last state.
    pub status: TaskState,
    /// Its steps, in topological order.
    pub steps: Vec<TestStep>,
    /// Its history, oldest first.
    pub events: Vec<TestEvent>,
    /// What it published for the application, oldest first.
    pub published: Vec<Published>,
    /// Why it failed.
    pub error: Option<Payload>,
    /// How much time passed by the test's clock.
    pub elapsed: Duration,
    sinks: Vec<String>,
}

/// One step of such a task.
#[derive(Debug, Clone)]
pub struct TestStep {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: StepState,
    /// How often it was tried; 0 where it never was.
    pub attempts: u32,
    /// Its result.
    pub result: Option<Payload>,
    /// Its last error.
    pub error: Option<StepFailure>,
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct TestEvent {
    /// What: `submitted, ready, done, retry, failed, skipped, cancelled, complete, ...`.
    pub kind: String,
    /// The step; none for an event of the task.
    pub step: Option<String>,
    /// The attempt.
    pub attempt: Option<i32>,
    /// Why.
    pub reason: Option<String>,
}

impl TestRun {
    /// Finds a step; fails with `not_found` and the nearest name.
    pub fn step(&self, name: &str) -> Result<&TestStep> {
        self.steps.iter().find(|step| step.name == name).ok_or_else(|| {
            let near = nearest(name, self.steps.iter().map(|step| step.name.as_str()));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            Error::new(ErrorKind::NotFound, format!("the task has no step `{name}`{hint}"))
        })
    }

    /// Reads the task's result: that of its only last step, or an object of the last steps' results.
    pub fn result<T: DeserializeOwned>(&self) -> Result<T> {
        if self.status != TaskState::Complete {
            let why = self.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(Error::new(ErrorKind::Invalid, format!("the task ended {}{why}", self.status)));
        }
        if let [only] = &self.sinks[..] {
            return self.step(only)?.value();
        }
        let mut results = std::collections::BTreeMap::new();
        for sink in &self.sinks {
            let step = self.step(sink)?;
            if step.state == StepState::Done {
                results.insert(sink, step.result.clone().unwrap_or_default());
            }
        }
        Payload::from_value(&results)?.to()
    }

    /// The kinds of a step's events, oldest first.
    pub fn history(&self, step: &str) -> Vec<&str> {
        let of_step = self.events.iter().filter(|event| event.step.as_deref() == Some(step));
        of_step.map(|event| event.kind.as_str()).collect()
    }
}

impl TestStep {
    /// Reads its result.
    pub fn value<T: DeserializeOwned>(&self) -> Result<T> {
        match &self.result {
            Some(result) => result.to(),
            None => {
                Err(Error::new(ErrorKind::Invalid, format!("step `{}` is {} and has no result", self.name, self.state)))
            }
        }
    }
}

/// Name, is it a sink, state, attempt, result, error, was it tried.
type StepColumns = (String, bool, String, i32, Option<String>, Option<String>, bool);
/// Kind, step, attempt, reason.
type EventColumns = (String, Option<String>, Option<i32>, Option<String>);

pub(super) async fn read(
    engine: &Engine,
    connection: &mut PgConnection,
    task: TaskId,
    elapsed: Duration,
) -> Result<TestRun> {
    let doing = "reading the run under test";
    let (status, error): (String, Option<String>) =
        sqlx::query_as(engine.statement("select state::text, error::text from {schema}.task where task_id = $1"))
            .bind(task.0)
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| to_error(doing, error))?;
    let rows: Vec<StepColumns> = sqlx::query_as(engine.statement(
        "select coalesce(s.name, w.name), coalesce(w.is_sink, false), s.state::text, s.attempt,
           case when s.auto then {schema}.step_result(s.task_id, s.idx) else s.result end::text, s.error::text,
           exists (select from {schema}.event e where e.task_id = s.task_id and e.idx = s.idx and e.kind in ('done', 'retry', 'failed'))
         from {schema}.step s join {schema}.task k on k.task_id = s.task_id
         left join {schema}.workflow_step w on w.revision_id = k.revision_id and w.idx = s.idx
         where s.task_id = $1 order by s.idx",
    ))
    .bind(task.0)
    .fetch_all(&mut *connection)
    .await
    .map_err(|error| to_error(doing, error))?;
    let events: Vec<EventColumns> = sqlx::query_as(engine.statement(
        "select e.kind, coalesce(s.name, w.name), e.attempt, e.reason
         from {schema}.event e join {schema}.task k on k.task_id = e.task_id
         left join {schema}.workflow_step w on w.revision_id = k.revision_id and w.idx = e.idx
         left join {schema}.step s on s.task_id = e.task_id and s.idx = e.idx
         where e.task_id = $1 order by e.event_id",
    ))
    .bind(task.0)
    .fetch_all(&mut *connection)
    .await
    .map_err(|error| to_error(doing, error))?;
    let published: Vec<String> = sqlx::query_scalar(
        engine.statement("select payload::text from {schema}.publication where task_id = $1 order by seq"),
    )
    .bind(task.0)
    .fetch_all(&mut *connection)
    .await
    .map_err(|error| to_error(doing, error))?;
    let sinks = rows.iter().filter(|row| row.1).map(|row| row.0.clone()).collect();
    let step = |(name, _, state, attempt, result, error, was_tried): StepColumns| -> Result<TestStep> {
        Ok(TestStep {
            name,
            state: state.parse()?,
            attempts: if was_tried { u32::try_from(attempt).unwrap_or_default() } else { 0 },
            result: result.as_deref().map(Payload::parse).transpose()?,
            error: error.as_deref().map(|text| Payload::parse(text)?.to()).transpose()?,
        })
    };
    Ok(TestRun {
        task_id: task,
        status: status.parse()?,
        steps: rows.into_iter().map(step).collect::<Result<_>>()?,
        events: events
            .into_iter()
            .map(|(kind, step, attempt, reason)| TestEvent { kind, step, attempt, reason })
            .collect(),
        published: published.iter().map(|text| Published::read(&Payload::parse(text)?, 0)).collect::<Result<_>>()?,
        error: error.as_deref().map(Payload::parse).transpose()?,
        elapsed,
        sinks,
    })
}
