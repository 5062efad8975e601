//! A step with its settings, before it is part of a workflow.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tasker_model::{Batch, Priority, Retry, Source, StepDefinition};

use super::{Body, Call, IntoUndo, Need, StepDef, StepFunction, Undo};

/// One step: a function and the settings it runs with.
#[derive(Debug, Clone)]
pub struct Step {
    pub(crate) name: String,
    /// The handler's name; a closure has none of its own and takes `workflow.step`.
    pub(crate) handler: Option<String>,
    pub(crate) body: Body,
    pub(crate) undo: Option<Undo>,
    settings: StepDefinition,
    with: BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Step {
    pub(crate) fn of<S: StepDef, F: StepFunction<Mark>, Mark>(function: F) -> Self {
        let mut body = Body::new(function);
        for (parameter, named) in body.parameters.iter_mut().zip(S::parameters()) {
            if !named.name.is_empty() {
                named.name.clone_into(&mut parameter.name);
            }
            parameter.schema = named.schema;
        }
        body.result = S::result_schema();
        S::configure(Self::new(S::NAME, Some(S::NAME.to_owned()), body))
    }

    pub(crate) fn closure<F: StepFunction<Mark>, Mark>(name: &str, function: F) -> Self {
        Self::new(name, None, Body::new(function))
    }

    fn new(name: &str, handler: Option<String>, body: Body) -> Self {
        Self {
            name: name.to_owned(),
            handler,
            body,
            undo: None,
            settings: StepDefinition::new(name, name),
            with: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// Names a closure's parameters by position, so that values can be bound to them.
    ///
    /// ```
    /// use tasker::prelude::*;
    ///
    /// let double = step_fn("double", async |n: i64| n * 2).parameters(["n"]);
    /// assert!(Workflow::new("numbers").step(double).revision().is_ok());
    /// ```
    pub fn parameters<const N: usize>(mut self, names: [&str; N]) -> Self {
        if N != self.body.parameters.len() {
            let has = self.body.parameters.len();
            self.problems.push(format!("step `{}` has {has} parameters, but {N} names were given", self.name));
        }
        for (parameter, name) in self.body.parameters.iter_mut().zip(names) {
            name.clone_into(&mut parameter.name);
        }
        self
    }

    /// Writes the step's part of a workflow's definition.
    pub(crate) fn define(&self, workflow: &str) -> Result<StepDefinition, Vec<String>> {
        let mut problems = self.problems.clone();
        let mut definition = self.settings.clone();
        definition.name.clone_from(&self.name);
        definition.call = self.handler_name(workflow);
        definition.undo = self.undo.as_ref().map(|undo| undo.handler_name(workflow));
        for (param, source) in &self.with {
            match source.parse::<Source>() {
                Ok(source) => {
                    definition.with.insert(param.clone(), source);
                }
                Err(error) => problems.push(format!("step `{}`, parameter `{param}`: {error}", self.name)),
            }
        }
        for (at, parameter) in self.body.parameters.iter().enumerate() {
            match parameter.need {
                Need::Result(step) => {
                    definition.with.entry(parameter.name.clone()).or_insert_with(|| Source::step(step));
                }
                Need::Value { .. } if parameter.name.is_empty() => problems.push(format!(
                    "step `{}`: parameter {} has no name to bind a value to; name it with `.parameters([..])`, or use \
                     #[tasker::step]",
                    self.name,
                    at + 1
                )),
                _ => {}
            }
        }
        if problems.is_empty() { Ok(definition) } else { Err(problems) }
    }

    /// The name that YAML calls it by.
    pub(crate) fn own_name(&self) -> String {
        self.handler.clone().unwrap_or_else(|| self.name.clone())
    }

    pub(crate) fn handler_name(&self, workflow: &str) -> String {
        self.handler.clone().unwrap_or_else(|| format!("{workflow}.{}", self.name))
    }
}

/// Marks [`IntoStep`] for what is a [`Step`] already.
#[derive(Debug)]
pub enum Ready {}

/// A function marked with `#[tasker::step]`, or a [`Step`]; the settings of steps are its methods.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no step",
    label = "not a function marked with `#[tasker::step]`",
    note = "mark the function with `#[tasker::step]`, or give it a name: `step_fn(\"name\", function)`"
)]
pub trait IntoStep<Mark>: Sized {
    /// Makes the step.
    fn into_step(self) -> Step;

    /// Says how often it is tried: a number of attempts in all, or a whole [`Retry`]. Three unless said.
    fn retry(self, retry: impl IntoRetry) -> Step {
        self.change(|settings| settings.retry = retry.into_retry())
    }

    /// Says how long one attempt may take; a minute unless said.
    fn timeout(self, timeout: Duration) -> Step {
        self.change(|settings| {
            settings.timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        })
    }

    /// Names the queue it waits in.
    fn queue(self, queue: &str) -> Step {
        self.change(|settings| queue.clone_into(&mut settings.queue))
    }

    /// Gives it a priority of its own, whatever the task's is.
    fn priority(self, priority: Priority) -> Step {
        self.change(|settings| settings.priority = Some(priority))
    }

    /// Runs it after these steps, without taking their results: `.after((ChargePayment, ReserveStock))` or `.after("name")`.
    fn after(self, steps: impl StepNames) -> Step {
        self.change(|settings| {
            for name in steps.names() {
                if !settings.after.contains(&name) {
                    settings.after.push(name);
                }
            }
        })
    }

    /// Lets it choose between these steps, which must depend on it: those that its [`Decision`](super::Decision) does not name are
    /// skipped.
    fn routes(self, steps: impl StepNames) -> Step {
        self.change(|settings| settings.routes = steps.names())
    }

    /// Runs it once for each item of a list, `.map("validate_cart.items")` or `.map("input.lines")`; it takes its item by
    /// [`Item`](super::Item) or a parameter called `item`. The results, in the order of the items, are the step's result.
    fn map(self, list: &str) -> Step {
        let mut step = self.into_step();
        match list.parse() {
            Ok(list) => step.settings.map = Some(list),
            Err(error) => step.problems.push(format!("step `{}`: {error}", step.name)),
        }
        step
    }

    /// Says how many items of the list run at a time; 256 unless said.
    fn max_in_flight(self, items: u32) -> Step {
        self.change(|settings| settings.max_in_flight = Some(items))
    }

    /// Lets it divide its work into ranges that run side by side; it returns a [`Batched`](super::Batched).
    fn batch(self, batch: Batch) -> Step {
        self.change(|settings| settings.batch = Some(batch))
    }

    /// Says what undoes it, once it is done, where its task fails or is cancelled: `.undo(refund)`, or the name of a handler.
    ///
    /// ```
    /// use tasker::prelude::*;
    ///
    /// #[tasker::step]
    /// async fn charge(total: u64) -> String { format!("charge of {total}") }
    /// #[tasker::step]
    /// async fn refund(result: String, total: u64) { println!("{result} of {total} is given back") }
    ///
    /// let orders = Workflow::new("orders").step(charge.undo(refund));
    /// assert_eq!(orders.revision().unwrap().steps[0].undo.as_deref(), Some("refund"));
    /// ```
    fn undo<M>(self, undo: impl IntoUndo<M>) -> Step {
        undo.undo_of(self.into_step())
    }

    /// Binds a parameter: `.with("total", "validate_cart.total")`, `.with("email", "input.email")`.
    fn with(self, parameter: &str, source: &str) -> Step {
        let mut step = self.into_step();
        step.with.insert(parameter.to_owned(), source.to_owned());
        step
    }

    /// Gives it another name than its function's, so that one function can be two steps of a workflow.
    fn named(self, name: &str) -> Step {
        let mut step = self.into_step();
        name.clone_into(&mut step.name);
        step
    }

    /// Gives the handler constants, which it finds in its context's input as `step.config`.
    fn config(self, config: impl Serialize) -> Step {
        let mut step = self.into_step();
        match serde_json::to_value(config) {
            Ok(config) => step.settings.config = Some(config),
            Err(error) => step.problems.push(format!("the config of step `{}` is no JSON: {error}", step.name)),
        }
        step
    }

    #[doc(hidden)]
    fn change(self, change: impl FnOnce(&mut StepDefinition)) -> Step {
        let mut step = self.into_step();
        change(&mut step.settings);
        step
    }
}

impl IntoStep<Ready> for Step {
    fn into_step(self) -> Step {
        self
    }
}

impl<F, S, Fut, Mark> IntoStep<(S, Mark)> for F
where
    F: StepFunction<Mark, Future = Call<S, Fut>>,
    S: StepDef,
{
    fn into_step(self) -> Step {
        Step::of::<S, F, Mark>(self)
    }
}

/// What can be given as a retry policy: the number of attempts in all, the first included, or a [`Retry`].
pub trait IntoRetry {
    /// Makes the policy.
    fn into_retry(self) -> Retry;
}

impl IntoRetry for u32 {
    fn into_retry(self) -> Retry {
        Retry::attempts(self)
    }
}

impl IntoRetry for Retry {
    fn into_retry(self) -> Retry {
        self
    }
}

/// Names of steps: a step's type, its name, or several of them in a tuple or list.
pub trait StepNames {
    /// Returns the names.
    fn names(self) -> Vec<String>;
}

impl<S: StepDef> StepNames for S {
    fn names(self) -> Vec<String> {
        vec![S::NAME.to_owned()]
    }
}

impl StepNames for &str {
    fn names(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl<const N: usize> StepNames for [&str; N] {
    fn names(self) -> Vec<String> {
        self.into_iter().map(str::to_owned).collect()
    }
}

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<$($name: StepNames),*> StepNames for ($($name,)*) {
            #[allow(non_snake_case, reason = "each parameter is named as its type is")]
            fn names(self) -> Vec<String> {
                let ($($name,)*) = self;
                [$($name.names()),*].concat()
            }
        }
    };
}

tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);
