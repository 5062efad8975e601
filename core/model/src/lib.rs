//! Pure types and rules of Tasker, without any I/O: definitions and their diagnostics, the compiled
//! graph, bindings, the wire contract (step input, outcome), retry, states and the one error kind.

pub mod binding;
mod check;
pub mod definition;
pub mod diagnostic;
pub mod duration;
pub mod error;
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

pub use definition::{Definition, Durability, OnFailure, Priority, StepDefinition};
pub use diagnostic::{Diagnostic, Report, Severity, nearest};
pub use error::{Error, ErrorKind, Result};
pub use graph::Graph;
pub use id::{StepRef, TaskId, WorkflowRef};
pub use input::StepInput;
pub use outcome::{Outcome, StepFailure};
pub use payload::Payload;
pub use retry::{Backoff, Retry};
pub use revision::{Revision, RevisionStep};
pub use signature::{Param, Signature, Signatures};
pub use source::Source;
pub use state::{StepState, TaskState};
