//! What is there: tasks, steps, events, workflows, queues, workers, for the CLI and the HTTP surface. Reads only.
//!
//! The structs are the answers: their field names are stable, times are RFC 3339, payloads are the database's own text.

mod detail;
mod display;
mod events;
mod find;
mod health;
mod output;
mod publications;
mod queues;
mod tasks;
mod workers;
mod workflows;

pub use detail::{ChildRow, ParentRow, StepRow, TaskDetail};
pub use display::StepDisplay;
pub use events::{EVENTS_LIMIT, EventRow};
pub use health::{Breach, Facts, UnservedHandler};
pub use output::TaskEnd;
pub use publications::{DeliveryRow, PublicationDetail, PublicationFilter, PublicationRow, SubscriptionRow};
pub use queues::QueueRow;
pub(crate) use tasks::no_task;
pub use tasks::{TaskFilter, TaskRow};
pub use workers::{WorkerRow, WorkerState};
pub use workflows::{RevisionRow, WorkflowDetail, WorkflowRow, WorkflowStepRow};
