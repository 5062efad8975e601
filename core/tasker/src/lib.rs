//! Tasker in Rust: workflows over ordinary async functions, kept in PostgreSQL.
//!
//! ```no_run
//! use tasker::prelude::*;
//!
//! # #[derive(Clone)] struct Gateway;
//! # impl Gateway { async fn charge(&self, _: f64, _: &str) -> Result<String, std::io::Error> { Ok(String::new()) } }
//! #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
//! struct OrderIn { items: Vec<f64>, token: String }
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Payment { id: String }
//!
//! #[tasker::step]
//! async fn validate_cart(Input(order): Input<OrderIn>) -> Result<f64, StepError> {
//!     if order.items.is_empty() {
//!         return Err(StepError::permanent("the cart is empty").code("EMPTY_CART"));
//!     }
//!     Ok(order.items.iter().sum())
//! }
//!
//! // `Dep<ValidateCart>` is the edge: the charge runs after the validation and has its result.
//! #[tasker::step]
//! async fn charge_payment(
//!     Input(order): Input<OrderIn>,
//!     total: Dep<ValidateCart>,
//!     State(gateway): State<Gateway>,
//! ) -> Result<Payment, StepError> {
//!     let id = gateway.charge(*total, &order.token).await.retryable_if(|error| error.kind() == std::io::ErrorKind::TimedOut)?;
//!     Ok(Payment { id })
//! }
//!
//! #[tokio::main]
//! async fn main() -> tasker::Result<()> {
//!     let orders = Workflow::new("order_processing")
//!         .namespace("orders")
//!         .input::<OrderIn>()
//!         .step(validate_cart)
//!         .step(charge_payment.retry(5));
//!     let tasker = Tasker::connect_env().await?.workflow(orders).with_state(Gateway);
//!     tasker.work().await
//! }
//! ```
//!
//! A task is submitted on the application's own connection, and exists if that transaction commits
//! ([`Workflow::submit`]), or on Tasker's ([`Tasker::submit`]). [`testing`] runs one step without a database, or a whole
//! workflow in a transaction that is rolled back.

// What `#[tasker::step]` writes names this crate, here as everywhere.
extern crate self as tasker;

mod command;
mod config;
mod connect;
mod error;
mod event;
mod handle;
mod home;
mod logging;
mod plan;
pub mod step;
mod submit;
mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod work;
mod workflow;

pub use command::run;
pub use connect::Builder;
pub use error::{ResultExt, StepError};
pub use event::Event;
pub use handle::Tasker;
pub use step::{
    BatchResult, Batched, Call, Child, Ctx, Decision, Dep, FailedRange, Input, IntoStep, Item, Items, MapItems,
    OptionalDep, RunChild, Settled, State, Step, StepDef, StepFunction, Success, Wait, WaitFor,
};
pub use submit::{Submit, WorkflowName};
pub use task::{Ended, Task};
pub use tasker_engine::queries::{EventRow, StepRow, TaskDetail};
pub use tasker_engine::{CancelReply, Engine, PgBouncer, Schema};
#[cfg(feature = "macros")]
pub use tasker_macros::step;
pub use tasker_model::fan::Range;
pub use tasker_model::{
    Backoff, Batch, Durability, Error, ErrorKind, Failures, OnFailure, Payload, Priority, Result, Retry, Signatures,
    StepFailure, StepState, TaskId, TaskState,
};
pub use tasker_worker::{Published, Worker, wait_for_shutdown_signal};
pub use work::Work;
pub use workflow::Workflow;

/// Everything that a file with steps and workflows uses.
pub mod prelude {
    pub use crate::step::{Ctx, Decision, Dep, Input, IntoStep, OptionalDep, Settled, State, StepDef, Success};
    pub use crate::{OnFailure, Priority, ResultExt, Retry, StepError, Task, TaskState, Tasker, Workflow, step_fn};
}

/// Makes a step of any async function or closure of extractors, under this name.
///
/// ```
/// use std::time::Duration;
/// use tasker::prelude::*;
///
/// let notify = step_fn("notify", async |ctx: Ctx| ctx.attempt()).timeout(Duration::from_secs(5));
/// assert!(Workflow::new("hello").step(notify).revision().is_ok());
/// ```
pub fn step_fn<Mark>(name: &str, function: impl StepFunction<Mark>) -> Step {
    Step::closure(name, function)
}
