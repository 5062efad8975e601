//! Every rule that changes the state of tasks and steps, as functions in PostgreSQL and the calls to them.
//!
//! **Lock order**, P1 in the SQL's comments (every writer): (1) messages, by queue id, band and message id; (2) steps: own steps and their children in one
//! statement ordered by (task, idx), or all steps of a task where an outcome may end it; (3) tasks by id; (4) holds, targets and
//! limits by key. State and `gen` are tested after the lock, in a later statement. Operator verbs take the same order and never touch
//! messages. A deadlock is a bug; callers still repeat 40P01 and 40001 five times (see [`retrying!`]).
//!
//! One call of [`pgmq::settle`] is one statement, one commit, for as many outcomes as have gathered.

pub mod clock;
mod control;
pub mod deliveries;
mod engine;
mod error;
pub mod hot;
mod install;
mod pgbouncer;
pub mod pgmq;
mod plan;
pub mod queries;
mod register;
mod release;
mod roles;
mod schema;
mod settle;
mod submit;
pub mod subscriptions;
pub mod sweep;
mod timers;
mod workers;

pub use control::CancelReply;
pub use engine::{Engine, Options};
pub use error::{Repeats, is_data_error, is_retryable, to_error};
pub use hot::{Claimed, Finished, Lease, Refusal, Refused, Reply, Submitted, Verdict};
pub use install::Installation;
pub use pgbouncer::{PgBouncer, Single};
pub use plan::Planned;
pub use register::Registered;
pub use schema::Schema;
pub use settle::{Caller, Change, Settlement};
pub use submit::{Root, Submission};
pub use tasker_model::{Error, ErrorKind, Result};
pub use timers::InternalMessage;
pub use workers::{Announced, Beat, BeatAnswer, NewWorker};
