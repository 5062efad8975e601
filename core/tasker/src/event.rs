//! What a workflow publishes, and functions that it comes to.

use std::sync::Arc;

use futures::FutureExt as _;
use tasker_model::{EventDefinition, On, StepFailure};
use tasker_worker::{Published, Subscriber};

use crate::StepError;
use crate::step::StepNames;

/// When a workflow publishes an event for the application: after a step of it, or after the whole task. It is written in the transaction
/// that stores the step's result, and goes to subscribers ([`Tasker::on`](crate::Tasker::on)), queues and webhooks.
///
/// ```
/// use tasker::Event;
/// use tasker::prelude::*;
///
/// #[tasker::step]
/// async fn charge_payment() -> Result<String, StepError> { Ok("p1".to_owned()) }
///
/// let orders = Workflow::new("orders")
///     .step(charge_payment)
///     .event("payment_taken", Event::success_of(ChargePayment))
///     .event("payment_retried", Event::retry_of(ChargePayment))
///     .event("order_failed", Event::failure());
/// assert_eq!(orders.revision().unwrap().definition.events.len(), 3);
/// ```
#[derive(Debug, Clone)]
pub struct Event {
    on: On,
    steps: Option<Vec<String>>,
}

impl Event {
    /// When the task is complete.
    pub fn success() -> Self {
        Self { on: On::Success, steps: None }
    }

    /// When the task has failed. A cancelled task publishes nothing.
    pub fn failure() -> Self {
        Self { on: On::Failure, steps: None }
    }

    /// When the step is done; the event carries its result.
    pub fn success_of(step: impl StepNames) -> Self {
        Self { on: On::Success, steps: Some(step.names()) }
    }

    /// When the step has failed and is not tried again; the event carries the error.
    pub fn failure_of(step: impl StepNames) -> Self {
        Self { on: On::Failure, steps: Some(step.names()) }
    }

    /// When an attempt of the step has failed and another follows; the event carries the error.
    pub fn retry_of(step: impl StepNames) -> Self {
        Self { on: On::Retry, steps: Some(step.names()) }
    }

    pub(crate) fn define(&self, name: &str) -> Result<EventDefinition, String> {
        let step = match self.steps.as_deref() {
            None => None,
            Some([step]) => Some(step.clone()),
            Some(steps) => {
                return Err(format!("event `{name}` is of {} steps; make one event for each", steps.len()));
            }
        };
        Ok(EventDefinition { on: self.on, step })
    }
}

/// Makes a subscriber of a function.
pub(crate) fn subscriber<F, Fut>(take: F) -> Arc<dyn Subscriber>
where
    F: Fn(Published) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), StepError>> + Send + 'static,
{
    Arc::new(move |event: Published| {
        let taken = take(event);
        async move {
            taken.await.map_err(|error| {
                error.failure().cloned().unwrap_or_else(|| StepFailure::unexpected("the subscriber stopped"))
            })
        }
        .boxed()
    })
}
