//! The handle of one task.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tasker_engine::CancelReply;
use tasker_engine::queries::{EventRow, StepRow, TaskDetail, TaskRow};
use tasker_model::{Error, ErrorKind, Payload, Result, TaskId, TaskState};

use crate::home::Runtime;

/// Between two looks at a task that somebody waits for, at first.
const FIRST_LOOK: Duration = Duration::from_millis(5);
/// The same where a worker of this process will probably tell: each look costs the database a query.
const FIRST_LOOK_BESIDE_A_WORKER: Duration = Duration::from_millis(50);
/// And at most.
const LAST_LOOK: Duration = Duration::from_millis(500);
/// Who is said to have acted, in the task's history.
const ACTOR: &str = "application";

/// A task: one run of a workflow. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Task {
    runtime: Arc<Runtime>,
    id: TaskId,
    created: Option<bool>,
}

/// A task at its end.
#[derive(Debug, Clone)]
pub struct Ended {
    id: TaskId,
    state: TaskState,
    output: Option<Payload>,
    error: Option<Payload>,
}

impl Task {
    pub(crate) fn new(runtime: Arc<Runtime>, id: TaskId, created: Option<bool>) -> Self {
        Self { runtime, id, created }
    }

    /// Returns its id.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Says whether the submit made it. `false` where the key had been used with the same input, or where it was not submitted here.
    pub fn is_new(&self) -> bool {
        self.created == Some(true)
    }

    /// Reads its state. Fails with `not_found` where there is no such task, or none yet because its transaction is open.
    pub async fn status(&self) -> Result<TaskState> {
        Ok(self.row().await?.state)
    }

    /// Reads everything that is known of it.
    pub async fn detail(&self) -> Result<TaskDetail> {
        self.runtime.engine.task_detail(self.id).await
    }

    /// Reads its steps, in topological order.
    pub async fn steps(&self) -> Result<Vec<StepRow>> {
        Ok(self.detail().await?.steps)
    }

    /// Reads its history, oldest first.
    pub async fn events(&self) -> Result<Vec<EventRow>> {
        self.runtime.engine.events(self.id, None).await
    }

    /// Waits for its end, however long that takes. Cancel safe.
    pub async fn wait(&self) -> Result<Ended> {
        // A worker of this process tells at once; another's end is found by looking.
        let mut worker = self.runtime.worker();
        let mut pause = if worker.is_some() { FIRST_LOOK_BESIDE_A_WORKER } else { FIRST_LOOK };
        loop {
            if let Some(worker) = &worker {
                let _ = tokio::time::timeout(pause, worker.finished(self.id)).await;
            }
            if let Some(end) = self.runtime.engine.task_end(self.id).await? {
                return Ok(Ended { id: self.id, state: end.state, output: end.output, error: end.error });
            }
            if worker.is_none() {
                tokio::time::sleep(pause).await;
            }
            pause = (pause * 2).min(LAST_LOOK);
            worker = self.runtime.worker();
        }
    }

    /// Waits for its end, but no longer than this; fails with `timeout` then, and the task goes on.
    pub async fn wait_for(&self, time: Duration) -> Result<Ended> {
        tokio::time::timeout(time, self.wait()).await.unwrap_or_else(|_| {
            let message = format!("task {} has not ended after {} ms; it goes on", self.id, time.as_millis());
            Err(Error::new(ErrorKind::Timeout, message).with("task", self.id))
        })
    }

    /// Cancels it: nothing more starts, and running steps are asked to stop. Idempotent; the reason goes into its history.
    pub async fn cancel(&self, reason: &str) -> Result<CancelReply> {
        self.runtime.engine.cancel(self.id, ACTOR, reason).await
    }

    /// Undoes what it did: one that runs is cancelled, which undoes it; one that is complete is opened again, undone, and ends as cancelled.
    ///
    /// Fails with `invalid` where no step of it has an `undo`, `conflict` where it was undone or had nothing to undo.
    pub async fn compensate(&self, reason: &str) -> Result<CancelReply> {
        self.runtime.engine.compensate(self.id, ACTOR, reason).await
    }

    /// Sends it a signal: the step that waits for it is done, with the payload as its result. Where none waits yet it is kept for the one
    /// that will. Answers the name of the step that took it.
    ///
    /// Fails with `invalid` for a signal that no step of its workflow waits for and for a payload that the step's schema does not allow,
    /// with `conflict` where the task has ended.
    pub async fn signal(&self, name: &str, payload: &impl Serialize) -> Result<Option<String>> {
        self.runtime.engine.signal(self.id, name, &Payload::from_value(payload)?, ACTOR).await
    }

    async fn row(&self) -> Result<TaskRow> {
        self.runtime.engine.task_row(self.id).await
    }
}

impl Ended {
    /// Returns its last state.
    pub fn status(&self) -> TaskState {
        self.state
    }

    /// Says whether every step that had to be done is.
    pub fn is_complete(&self) -> bool {
        self.state == TaskState::Complete
    }

    /// Reads its result: that of the only last step, or, with several, an object of their results by step.
    ///
    /// Fails with the kind of the failure where the task did not complete.
    pub fn result<T: DeserializeOwned>(&self) -> Result<T> {
        match &self.output {
            Some(output) => output.to(),
            None => Err(self.failure()),
        }
    }

    /// Returns why it failed or was cancelled, as it is stored.
    pub fn error(&self) -> Option<&Payload> {
        self.error.as_ref()
    }

    /// Returns the application's own code of the failure, such as `CARD_DECLINED`, if it had one.
    pub fn code(&self) -> Option<String> {
        self.field("code")
    }

    /// Reads one field of the stored error, which holds the step's failure and what the engine added to it.
    fn field<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        self.error.as_ref()?.at(&[name])?.to().ok()
    }

    fn failure(&self) -> Error {
        let by_state = if self.state == TaskState::Cancelled { ErrorKind::Cancelled } else { ErrorKind::Unexpected };
        let kind = self.field("kind").unwrap_or(by_state);
        let why = self.field::<String>("message").map(|why| format!(": {why}")).unwrap_or_default();
        Error::new(kind, format!("task {} ended {}{why}", self.id, self.state)).with("task", self.id)
    }
}
