//! What a step may return, and the outcome that comes of it.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::Serialize;
use tasker_model::{Outcome, Payload};

use super::{StepNames, to_payload};
use crate::StepError;

/// A result with something to keep beside it, which other steps do not see.
///
/// ```
/// use tasker::prelude::*;
///
/// let success = Success::new(42).metadata("provider", "acme");
/// ```
#[derive(Debug, Clone)]
pub struct Success<T> {
    value: T,
    metadata: Result<BTreeMap<String, Payload>, StepError>,
}

impl<T> Success<T> {
    /// Makes a success without metadata.
    pub fn new(value: T) -> Self {
        Self { value, metadata: Ok(BTreeMap::new()) }
    }

    /// Adds an entry to the metadata. What cannot be written as JSON fails the step as `result_rejected`.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Serialize) -> Self {
        if let Ok(metadata) = &mut self.metadata {
            match to_payload(&value) {
                Ok(value) => {
                    metadata.insert(key.into(), value);
                }
                Err(error) => self.metadata = Err(error),
            }
        }
        self
    }

    /// Returns the result.
    pub fn value(&self) -> &T {
        &self.value
    }
}

/// Chooses which of the step's routes run; the others are skipped, with all that depends on nothing else.
///
/// ```
/// use tasker::prelude::*;
///
/// #[tasker::step]
/// async fn triage(amount: f64) -> Decision { if amount > 100.0 { Decision::route("review") } else { Decision::route("refund") } }
///
/// let refunds = Workflow::new("refunds")
///     .step(triage.routes(("review", "refund")))
///     .step(step_fn("review", async || ()).after(Triage))
///     .step(step_fn("refund", async || ()).after(Triage));
/// assert!(refunds.revision().is_ok());
/// ```
#[derive(Debug, Clone)]
pub struct Decision<T = ()> {
    routes: Vec<String>,
    value: T,
}

impl Decision {
    /// Chooses these routes: a step's type, its name, or several of them in a tuple or list.
    pub fn route(steps: impl StepNames) -> Self {
        Self { routes: steps.names(), value: () }
    }

    /// Chooses none: every route is skipped.
    pub fn none() -> Self {
        Self { routes: Vec::new(), value: () }
    }

    /// Gives the step a result beside the choice.
    pub fn value<T>(self, value: T) -> Decision<T> {
        Decision { routes: self.routes, value }
    }
}

impl<T> Decision<T> {
    /// Returns the names of the chosen routes.
    pub fn routes(&self) -> &[String] {
        &self.routes
    }
}

/// The step is settled already, by [`Ctx::transaction`](super::Ctx::transaction).
#[derive(Debug)]
pub struct Settled<T = ()>(PhantomData<fn() -> T>);

impl<T> Settled<T> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

/// Marks [`IntoOutcome`] for a plain value.
#[derive(Debug)]
pub enum Plain {}
/// Marks [`IntoOutcome`] for [`Success`], [`Decision`], [`Settled`], [`RunChild`](super::RunChild) and [`WaitFor`](super::WaitFor).
#[derive(Debug)]
pub enum Stated {}
/// Marks [`IntoOutcome`] for a `Result` of something that has the mark `M`.
#[derive(Debug)]
pub struct Fallible<M>(PhantomData<M>);

/// What a step may return: a value that can be written as JSON, `()`, [`Success`], [`Decision`], [`Settled`],
/// [`RunChild`](super::RunChild), [`WaitFor`](super::WaitFor), or a `Result` of one of these with an error that becomes a [`StepError`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be what a step returns",
    label = "not a result that can be written as JSON",
    note = "return a `serde::Serialize` value, `()`, `Success<T>`, `Decision<T>`, `Settled<T>`, `RunChild`, `WaitFor`, or `Result<one of these, StepError>`"
)]
pub trait IntoOutcome<Mark> {
    /// Makes the outcome.
    fn into_outcome(self) -> Outcome;
}

impl<T: Serialize> IntoOutcome<Plain> for T {
    fn into_outcome(self) -> Outcome {
        match to_payload(&self) {
            Ok(value) => Outcome::success(value),
            Err(error) => error.into_outcome(),
        }
    }
}

impl<T: Serialize> IntoOutcome<Stated> for Success<T> {
    fn into_outcome(self) -> Outcome {
        match (to_payload(&self.value), self.metadata) {
            (Ok(value), Ok(metadata)) => Outcome::Success { value, metadata },
            (Err(error), _) | (_, Err(error)) => error.into_outcome(),
        }
    }
}

impl<T: Serialize> IntoOutcome<Stated> for Decision<T> {
    fn into_outcome(self) -> Outcome {
        match to_payload(&self.value) {
            Ok(value) => Outcome::Decision { steps: self.routes, value },
            Err(error) => error.into_outcome(),
        }
    }
}

impl<T> IntoOutcome<Stated> for Settled<T> {
    fn into_outcome(self) -> Outcome {
        Outcome::Settled
    }
}

impl<T, E, M> IntoOutcome<Fallible<M>> for Result<T, E>
where
    T: IntoOutcome<M>,
    E: Into<StepError>,
{
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(value) => value.into_outcome(),
            Err(error) => error.into().into_outcome(),
        }
    }
}
