//! The worker: claims steps, runs their handlers, settles what came of them, and keeps its leases alive meanwhile.
//!
//! The way of a step through one process: `claimer` (or a settle call's hand-off) brings it, `run` runs it in a slot, its outcome
//! waits in the `outbox`, a `committer` settles it with all that gathered and brings the next ones. `heartbeat` renews leases on a
//! thread of its own, `listener` and `notifier` carry hints between processes, `sweeper` looks after what nobody holds, `relay` brings
//! published events to who wants them.

mod answer;
mod awaited;
mod checkpoint;
mod claimer;
mod committer;
mod context;
mod finished;
mod handler;
mod heartbeat;
pub mod http;
mod leases;
mod listener;
mod notifier;
mod options;
mod outbox;
mod outcome;
mod pace;
mod process;
mod relay;
mod revisions;
mod run;
mod signal;
mod slots;
mod step;
mod subscriber;
mod sweeper;
mod transaction;
mod webhook;
mod worker;

pub use awaited::{BAD_WAIT, NOT_A_PLAIN_STEP};
pub use checkpoint::SaveCheckpoint;
pub use context::{Progress, SharedConnection, StepContext};
pub use handler::{Handler, Handlers};
pub use http::Http;
pub use options::Options;
pub use outcome::{NOT_A_BATCH, NOT_A_DECISION, NOT_A_MAP, UNKNOWN_ROUTE, refused, to_change};
pub use signal::wait_for_shutdown_signal;
pub use step::{revision_step, run_claimed, step_input};
pub use subscriber::{Published, Subscriber};
pub use transaction::{Settled, TransactionError};
pub use worker::{Drained, StopReason, Worker};
