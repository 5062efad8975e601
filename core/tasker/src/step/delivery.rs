//! One attempt's delivery: the worker's context, the arguments by name, the application's states.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use tasker_model::{ErrorKind, Payload, StepFailure};
use tasker_worker::StepContext;

use super::States;
use crate::StepError;

/// What an extractor takes its value from.
#[derive(Debug)]
pub struct Delivery<'a> {
    context: &'a StepContext,
    states: &'a States,
    arguments: &'a BTreeMap<String, Payload>,
    parameter: &'a str,
}

impl<'a> Delivery<'a> {
    pub(super) fn new(context: &'a StepContext, states: &'a States, arguments: &'a BTreeMap<String, Payload>) -> Self {
        Self { context, states, arguments, parameter: "" }
    }

    /// The same delivery, for the parameter of this name.
    pub(super) fn at(&self, parameter: &'a str) -> Self {
        Self { parameter, ..*self }
    }

    /// Returns the worker's context of this attempt.
    pub fn context(&self) -> &StepContext {
        self.context
    }

    pub(super) fn state<T: Clone + 'static>(&self) -> Result<T, StepError> {
        self.states.get::<T>().ok_or_else(|| {
            let name = std::any::type_name::<T>();
            StepError::permanent(format!("no state of type `{name}` was given; add `.with_state(..)`"))
                .code("MISSING_STATE")
        })
    }

    /// Reads the parameter's value; a missing one counts as `null`, so that an `Option` is `None`.
    pub(super) fn value<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        match self.arguments.get(self.parameter) {
            Some(value) => read(value, &format!("parameter `{}`", self.parameter)),
            None => Payload::null().to().map_err(|_| {
                StepError::permanent(format!("parameter `{}` got no value; bind it with `with`", self.parameter))
                    .code("UNBOUND_PARAMETER")
            }),
        }
    }

    /// Reads the result of a step: what is bound to the parameter, else what the step of this name gave.
    pub(super) fn result<T: DeserializeOwned>(&self, step: &str) -> Result<T, StepError> {
        let results = &self.context.input().results;
        let Some(value) = self.arguments.get(self.parameter).or_else(|| results.get(step)) else {
            let message = format!(
                "`{}` takes the result of step `{step}`, which its step does not depend on; bind it with `with`",
                self.parameter
            );
            return Err(StepError::permanent(message).code("UNBOUND_PARAMETER"));
        };
        read(value, &format!("the result of step `{step}`"))
    }

    pub(super) fn item<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        match &self.context.input().step.item {
            Some(item) => read(item, "the item"),
            None => Payload::null().to().map_err(|_| {
                let message =
                    "this run is for no item: the step is no map, or it is a batch that has yet to divide its work";
                StepError::permanent(message).code("UNBOUND_PARAMETER")
            }),
        }
    }

    pub(super) fn input<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        read(&self.context.input().task.input, "the task's input")
    }
}

/// Reading is the same at every attempt: what does not fit will not fit later.
fn read<T: DeserializeOwned>(value: &Payload, what: &str) -> Result<T, StepError> {
    value.to().map_err(|error| {
        let message = format!("{what} cannot be read as `{}`: {}", std::any::type_name::<T>(), error.message);
        let failure = StepFailure::new(ErrorKind::InputInvalid, message).code("ARGUMENT_MISMATCH");
        StepError::of(failure)
    })
}

/// The context of the step that the current attempt runs in.
pub(crate) fn context(delivery: &Delivery<'_>) -> StepContext {
    delivery.context.clone()
}
