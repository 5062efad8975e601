//! One attempt at one step, without a database.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::DateTime;
use serde::{Serialize, de::DeserializeOwned};
use tasker_engine::{Change, Claimed, Lease};
use tasker_model::{Error, ErrorKind, Payload, Result, Revision, RevisionStep, StepFailure, TaskId};
use tasker_worker::run_claimed;

use super::TestTasker;
use super::kit::step_of;
use crate::step::StepDef;

/// A step about to run under a test, with what it is given.
#[derive(Debug, Clone)]
pub struct StepTest<'k> {
    kit: &'k TestTasker,
    name: String,
    input: Result<Payload, String>,
    results: BTreeMap<String, Result<Payload, String>>,
    attempt: i32,
    item: Option<Result<Payload, String>>,
}

/// How a step's attempt ended.
#[derive(Debug, Clone)]
pub struct StepRun {
    /// What would be stored.
    pub change: Change,
}

impl<'k> StepTest<'k> {
    pub(super) fn new(kit: &'k TestTasker, name: &str) -> Self {
        Self {
            kit,
            name: name.to_owned(),
            input: Ok(Payload::empty_object()),
            results: BTreeMap::new(),
            attempt: 1,
            item: None,
        }
    }

    /// Gives the task's input; `{}` unless said. It is not checked against the workflow's schema.
    pub fn input(mut self, input: impl Serialize) -> Self {
        self.input = payload(&input);
        self
    }

    /// Gives the result of a step that this one depends on.
    pub fn dep<S: StepDef>(self, result: &S::Output) -> Self
    where
        S::Output: Serialize,
    {
        self.result(S::NAME, result)
    }

    /// The same by name.
    pub fn result(mut self, step: &str, result: impl Serialize) -> Self {
        self.results.insert(step.to_owned(), payload(&result));
        self
    }

    /// Runs it for this item of a map, or this range of a batch. A batch without one is asked how its work divides.
    pub fn item(mut self, item: impl Serialize) -> Self {
        self.item = Some(payload(&item));
        self
    }

    /// Says which attempt it is; the first unless said.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = i32::try_from(attempt).unwrap_or(i32::MAX).max(1);
        self
    }

    /// Runs it. Fails only where the test asks for what is not there; a failing step is an answer.
    pub async fn run(self) -> Result<StepRun> {
        let revision = self.kit.revision()?;
        let step = step_of(&revision, &self.name)?;
        let handler = self.kit.handlers.of(step, None)?;
        let claimed = self.claimed(&revision, step)?;
        let engine = self.kit.engine_or_none();
        let change = run_claimed(&engine, &revision, &claimed, &handler, None).await?;
        let is_without_database = self.kit.is_without_database();
        match change {
            Some(change) if !(is_without_database && needs_database(&change)) => Ok(StepRun { change }),
            _ => Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "step `{}` uses `ctx.transaction`, which needs a real step in a database; run the whole workflow with `run`",
                    self.name
                ),
            )),
        }
    }

    fn claimed(&self, revision: &Revision, step: &RevisionStep) -> Result<Claimed> {
        let read =
            |given: &Result<Payload, String>| given.clone().map_err(|message| Error::new(ErrorKind::Invalid, message));
        let mut results = BTreeMap::new();
        for (name, result) in &self.results {
            let parent = step_of(revision, name)?;
            if !step.parents.contains(&parent.idx) {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("step `{}` does not depend on `{name}`", step.name),
                ));
            }
            results.insert(parent.idx, read(result)?);
        }
        Ok(Claimed {
            lease: Lease {
                queue_id: 0,
                band: 1,
                msg_id: 0,
                read_ct: 1,
                task_id: TaskId::generate(),
                idx: step.idx,
                generation: 0,
            },
            run: 0,
            attempt: self.attempt,
            revision_id: 0,
            handler_id: 0,
            step_name: self.item.as_ref().map(|_| format!("{}[0]", step.name)),
            created_at: DateTime::UNIX_EPOCH,
            deadline: None,
            input: read(&self.input)?,
            tags: Payload::empty_object(),
            correlation_id: None,
            trace: None,
            results: Some(Payload::from_value(&results)?),
            item: self.item.as_ref().map(read).transpose()?,
            checkpoint: None,
            age: Duration::ZERO,
        })
    }
}

/// Says whether the step failed for want of a connection of the engine's.
fn needs_database(change: &Change) -> bool {
    matches!(change, Change::Retry { error, .. } | Change::Failure { error } | Change::ItemFailure { error }
        if error.kind == ErrorKind::Unavailable && error.message.starts_with("taking a connection from the pool"))
}

fn payload(value: &impl Serialize) -> Result<Payload, String> {
    Payload::from_value(value).map_err(|error| error.message)
}

impl StepRun {
    /// Says whether it has a result.
    pub fn is_success(&self) -> bool {
        matches!(self.change, Change::Success { .. } | Change::Decision { .. })
    }

    /// Reads its result; fails with the step's failure where it has none.
    pub fn value<T: DeserializeOwned>(&self) -> Result<T> {
        match (&self.change, self.error()) {
            (Change::Success { value, .. } | Change::Decision { value, .. }, _) => value.to(),
            (_, Some(error)) => Err(Error::new(error.kind, format!("the step failed: {}", error.message))),
            (other, None) => Err(Error::new(ErrorKind::Invalid, format!("the step has no result: {other:?}"))),
        }
    }

    /// Reads an entry of the metadata that the step gave with its success.
    pub fn metadata<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        match &self.change {
            Change::Success { metadata: Some(metadata), .. } => metadata.at(&[key])?.to().ok(),
            _ => None,
        }
    }

    /// Returns the routes that it chose, sorted; nothing where it did not decide.
    pub fn routes(&self) -> Option<&[String]> {
        match &self.change {
            Change::Decision { routes, .. } => Some(routes),
            _ => None,
        }
    }

    /// Returns why it failed.
    pub fn error(&self) -> Option<&StepFailure> {
        match &self.change {
            Change::Retry { error, .. }
            | Change::Failure { error }
            | Change::ItemFailure { error }
            | Change::Cancelled { error }
            | Change::InputInvalid { error }
            | Change::Deadline { error } => Some(error),
            Change::Success { .. }
            | Change::Decision { .. }
            | Change::Ranges { .. }
            | Change::MapItems { .. }
            | Change::Checkpoint { .. }
            | Change::Child { .. }
            | Change::Wait { .. }
            | Change::Release { .. }
            | Change::Validated
            | Change::Paused => None,
        }
    }

    /// Returns after how long it would be tried again; nothing where it succeeded or failed for good.
    pub fn retry_in(&self) -> Option<Duration> {
        match &self.change {
            Change::Retry { delay, .. } => Some(*delay),
            _ => None,
        }
    }
}
