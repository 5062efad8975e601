//! Tests of steps and workflows with the worker's own functions.
//!
//! One step, without a database:
//!
//! ```
//! use tasker::prelude::*;
//! use tasker::testing::TestTasker;
//!
//! #[tasker::step]
//! async fn validate_cart(items: Vec<f64>) -> Result<f64, StepError> { Ok(items.iter().sum()) }
//!
//! #[tasker::step]
//! async fn charge_payment(total: Dep<ValidateCart>) -> Result<String, StepError> { Ok(format!("paid {}", *total)) }
//!
//! # #[tokio::main] async fn main() -> tasker::Result<()> {
//! let orders = Workflow::new("orders").step(validate_cart).step(charge_payment);
//! let run = TestTasker::new(&orders).step::<ChargePayment>().dep::<ValidateCart>(&42.5).run().await?;
//! assert_eq!(run.value::<String>()?, "paid 42.5");
//! # Ok(()) }
//! ```
//!
//! A whole workflow, in a transaction that is rolled back, with the engine's own rules; time passes without waiting:
//!
//! ```no_run
//! # use tasker::prelude::*;
//! # use tasker::testing::TestTasker;
//! # async fn test(orders: Workflow, pool: sqlx::PgPool) -> tasker::Result<()> {
//! let kit = TestTasker::new(&orders).on(&pool).fail_next("charge_payment", StepError::retryable("gateway timed out"));
//! let run = kit.run(serde_json::json!({"items": [1.5]})).await?;
//! assert_eq!(run.status, TaskState::Complete);
//! assert_eq!(run.step("charge_payment")?.attempts, 2);
//! # Ok(()) }
//! ```
//!
//! What the kit does not cover: NOTIFY, the order of commits, and what another connection sees.

mod drive;
mod handlers;
mod kit;
mod lent;
mod report;
mod single;

pub use kit::TestTasker;
pub use report::{TestEvent, TestRun, TestStep};
pub use single::{StepRun, StepTest};
