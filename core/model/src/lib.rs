//! Pure types and rules of Tasker, without any I/O: definitions and their diagnostics, the compiled
//! graph, bindings, the wire contract (step input, outcome), retry, states and the one error kind.
//!
//! ```
//! use tasker_model::{Revision, parse::parse};
//!
//! let text = "
//! name: order_processing
//! steps:
//!   validate: { call: orders.validate_cart }
//!   charge: { call: orders.charge_payment, with: { total: validate.total }, retry: 5 }
//! ";
//! let definition = parse(text, "order_processing.yaml").expect("a correct definition");
//! let revision = Revision::compile(definition).expect("a correct definition");
//! assert_eq!(revision.steps[1].parents, [0]);
//!
//! let report = parse(&text.replace("validate.total", "validte.total"), "order_processing.yaml").unwrap_err();
//! assert_eq!(
//!     report.short().trim(),
//!     "order_processing.yaml:5:57: error[TSK0120]: step `charge` depends on `validte`, which does not exist \
//!      (did you mean `validate`?)"
//! );
//! ```

pub mod binding;
mod check;
pub mod definition;
pub mod diagnostic;
pub mod duration;
pub mod error;
pub mod event;
pub mod fan;
pub mod graph;
pub mod id;
pub mod input;
pub mod limits;
pub mod outcome;
pub mod parse;
pub mod payload;
pub mod retry;
pub mod revision;
mod schema;
pub mod signature;
pub mod source;
pub mod state;
pub mod wait;

pub use definition::{Definition, Durability, OnFailure, Priority, StepDefinition};
pub use diagnostic::{Diagnostic, Report, Severity, nearest};
pub use error::{Error, ErrorKind, Result};
pub use event::{EventDefinition, On};
pub use fan::{Batch, DynamicName, Failures, Fan};
pub use graph::Graph;
pub use id::{StepRef, TaskId, WorkflowRef};
pub use input::StepInput;
pub use outcome::{Checkpoint, Outcome, StepFailure};
pub use payload::Payload;
pub use retry::{Backoff, Retry};
pub use revision::{Revision, RevisionStep};
pub use signature::{Param, Signature, Signatures};
pub use source::Source;
pub use state::{StepState, TaskState};
