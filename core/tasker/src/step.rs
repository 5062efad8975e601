//! Steps: functions whose signature says what they need, and the settings they run with.
//!
//! What cannot be a step is refused by the compiler, at the place that does not fit:
//!
//! ```compile_fail
//! #[tasker::step]
//! fn charge() {} // a step is an `async fn`
//! ```
//! ```compile_fail
//! # use tasker::prelude::*;
//! struct Order; // cannot be read from JSON
//! #[tasker::step]
//! async fn charge(order: Order) {}
//! ```
//! ```compile_fail
//! struct Receipt; // cannot be written as JSON
//! #[tasker::step]
//! async fn charge() -> Receipt { Receipt }
//! ```
//! ```compile_fail
//! #[tasker::step(retires = 5)] // unknown option
//! async fn charge() {}
//! ```

use std::pin::Pin;
use std::task::{Context, Poll};

use serde::Serialize;

mod builder;
mod checkpoint;
mod child;
mod definition;
mod delivery;
mod extract;
mod fan;
mod function;
mod outcome;
mod state;
mod undo;
mod wait;

pub use builder::{IntoRetry, IntoStep, Ready, Step, StepNames};
pub use checkpoint::SaveCheckpoint;
pub use child::{Child, RunChild, WaitFor};
pub(crate) use definition::schema;
pub use definition::{Named, Schema, StepDef};
pub use delivery::Delivery;
pub(crate) use delivery::context;
pub use extract::{Ctx, Dep, FromStep, Input, Items, Need, OptionalDep, State};
pub use fan::{BatchResult, Batched, FailedRange, Item, MapItems};
pub(crate) use function::Body;
pub use function::StepFunction;
pub use outcome::{Decision, Fallible, IntoOutcome, Plain, Settled, Stated, Success};
pub(crate) use state::States;
pub(crate) use undo::Undo;
pub use undo::{ByName, IntoUndo};
pub use wait::Wait;

#[doc(hidden)]
pub use definition::{HasSchema, NoSchema, SchemaOf};

/// What a function marked with `#[tasker::step]` returns: its future, which knows which step it belongs to.
///
/// Awaiting it gives what the function gives, so that a test can call the function as it is.
pub struct Call<S, F> {
    future: Pin<Box<F>>,
    step: std::marker::PhantomData<fn() -> S>,
}

impl<S, F> Call<S, F> {
    #[doc(hidden)]
    pub fn new(future: F) -> Self {
        Self { future: Box::pin(future), step: std::marker::PhantomData }
    }
}

impl<S, F: Future> Future for Call<S, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.future.as_mut().poll(context)
    }
}

impl<S: StepDef, F> std::fmt::Debug for Call<S, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Call").field(&S::NAME).finish()
    }
}

#[doc(hidden)]
pub fn check_parameter<T: FromStep>() {}

#[doc(hidden)]
pub fn check_result<R: IntoOutcome<M>, M>() {}

/// Writes a value as the JSON that is stored.
pub(crate) fn to_payload(value: &(impl Serialize + ?Sized)) -> Result<tasker_model::Payload, crate::StepError> {
    tasker_model::Payload::from_value(value)
        .map_err(|error| crate::StepError::of(tasker_model::StepFailure::result_rejected(error.message)))
}
