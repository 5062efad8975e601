//! Subscribers: functions of the application that published events come to.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tasker_model::{Payload, Result, StepFailure, TaskId};
use uuid::Uuid;

/// Takes an event. Each comes to one process that has the subscriber, at least once: an error or a panic brings it again, later.
pub trait Subscriber: Send + Sync + 'static {
    /// Takes it. A failure that is not retryable gives it up at once.
    fn call(&self, event: Published) -> BoxFuture<'static, Result<(), StepFailure>>;
}

impl<F> Subscriber for F
where
    F: Fn(Published) -> BoxFuture<'static, Result<(), StepFailure>> + Send + Sync + 'static,
{
    fn call(&self, event: Published) -> BoxFuture<'static, Result<(), StepFailure>> {
        self(event)
    }
}

/// An event that a workflow published.
#[derive(Debug, Clone, Deserialize)]
pub struct Published {
    /// Its id, the same for all who get it and in every attempt.
    pub id: Uuid,
    /// Its name, `namespace.name`.
    pub event: String,
    /// The workflow, `namespace.name`.
    pub workflow: String,
    /// The task.
    pub task_id: TaskId,
    /// The step; none for an event of the task itself.
    pub step: Option<String>,
    /// The attempt of the step that caused it.
    pub attempt: Option<i32>,
    /// When, in RFC 3339.
    pub at: String,
    /// The task's tags.
    #[serde(default)]
    pub tags: BTreeMap<String, serde_json::Value>,
    /// The submitter's correlation id.
    pub correlation_id: Option<String>,
    /// Why, of a failure or a retry: `kind`, `message`, `code` and more.
    pub error: Option<serde_json::Value>,
    /// All of it, as JSON.
    #[serde(skip)]
    pub payload: Payload,
    /// Which delivery of it this is, from 1.
    #[serde(skip)]
    pub delivery_attempt: i32,
}

impl Published {
    /// Reads one from its JSON. Fails with `invalid` for what is none.
    pub fn read(payload: &Payload, delivery_attempt: i32) -> Result<Self> {
        let event: Self = payload.to()?;
        Ok(Self { payload: payload.clone(), delivery_attempt, ..event })
    }

    /// Reads the step's result. Fails with `invalid` where it is another type, null where there is none.
    pub fn result<T: DeserializeOwned>(&self) -> Result<T> {
        self.payload.at(&["result"]).unwrap_or_default().to()
    }
}
