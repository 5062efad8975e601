//! The functions that a test runs: the real ones, those put in their place, and failures that come first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt};
use tasker_model::{DynamicName, Error, ErrorKind, Outcome, Result, RevisionStep};
use tasker_worker::{Handler, StepContext};

use crate::step::{Body, States};

/// Failures that are still to come, by step.
pub(super) type Failures = Arc<Mutex<BTreeMap<String, VecDeque<Outcome>>>>;

#[derive(Debug, Clone, Default)]
pub(super) struct TestHandlers {
    /// By the handler's name.
    pub(super) real: BTreeMap<String, Body>,
    /// By the step's name.
    pub(super) fakes: BTreeMap<String, Body>,
    pub(super) failures: Failures,
    pub(super) states: States,
}

/// One step's function, or the failure that comes first.
struct TestHandler {
    step: String,
    body: Body,
    failures: Failures,
    states: States,
}

impl TestHandlers {
    /// Puts a function in a step's place; it takes over the parameters' names.
    pub(super) fn replace(&mut self, step: &str, handler: Option<&str>, mut fake: Body) {
        let real = handler.and_then(|handler| self.real.get(handler));
        if let Some(real) = real.filter(|real| real.parameters.len() == fake.parameters.len()) {
            for (parameter, named) in fake.parameters.iter_mut().zip(&real.parameters) {
                if parameter.name.is_empty() {
                    parameter.name.clone_from(&named.name);
                }
            }
        }
        self.fakes.insert(step.to_owned(), fake);
    }

    pub(super) fn fail_next(&mut self, step: &str, failure: Outcome) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.entry(step.to_owned()).or_default().push_back(failure);
    }

    /// The handler of a step, or of a dynamic one of this name that belongs to it.
    pub(super) fn of(&self, step: &RevisionStep, dynamic: Option<&str>) -> Result<Arc<dyn Handler>> {
        let is_undo = dynamic.is_some_and(|name| DynamicName::of(name).undoes.is_some());
        let name = if is_undo { format!("undo:{}", step.name) } else { step.name.clone() };
        let handler = if is_undo { step.undo.as_deref().unwrap_or_default() } else { &step.handler };
        let body = self.fakes.get(&name).or_else(|| self.real.get(handler)).ok_or_else(|| {
            if !step.calls_handler() && !is_undo {
                let message = format!("step `{name}` calls no function; run the workflow to see it");
                return Error::new(ErrorKind::Invalid, message);
            }
            Error::new(
                ErrorKind::Invalid,
                format!(
                    "step `{name}` calls `{handler}`, which is no function of this program; give one with `override_step`"
                ),
            )
        })?;
        Ok(Arc::new(TestHandler {
            step: name,
            body: body.clone(),
            failures: Arc::clone(&self.failures),
            states: self.states.clone(),
        }))
    }
}

impl Handler for TestHandler {
    fn call(&self, context: StepContext) -> BoxFuture<'static, Outcome> {
        let failure = {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.get_mut(&self.step).and_then(VecDeque::pop_front)
        };
        match failure {
            Some(failure) => std::future::ready(failure).boxed(),
            None => self.body.run(&context, &self.states),
        }
    }
}
