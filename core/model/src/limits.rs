//! Every size and count that Tasker refuses to exceed. Meeting one is a named error, never a truncation.
//! Sizes are bytes of the UTF-8 text as sent.

use std::time::Duration;

/// Input of a task: a row that stays cheap to read at every claim; larger data belongs in a store of its own.
pub const INPUT_BYTES: usize = 256 * 1024;
/// Result of a step, for the same reason.
pub const RESULT_BYTES: usize = 256 * 1024;
/// Details of a failure: they are kept in the history of every attempt.
pub const ERROR_DETAILS_BYTES: usize = 256 * 1024;
/// Nesting of any payload: below the recursion limits of all four languages' JSON parsers.
pub const NESTING: usize = 64;
/// Exponent of a number, either way: beyond it the languages' floats disagree or overflow.
pub const EXPONENT: i64 = 308;
/// Items of one map: each becomes a row while its task is open.
pub const MAP_ITEMS: usize = 100_000;
/// The item list of a map or the cursors of a batch, kept in one row.
pub const ITEMS_BYTES: usize = 4 * 1024 * 1024;
/// Steps of a definition: they are locked together when a task ends.
pub const STEPS: usize = 2_000;
/// The most events that one workflow publishes.
pub const EVENTS: usize = 200;
/// Tags of a task: they are indexed.
pub const TAGS_BYTES: usize = 4 * 1024;
/// Context handed to steps by one claim: bounds the memory of a worker and of the answer.
pub const CONTEXT_BYTES: usize = 4 * 1024 * 1024;
/// Outcomes settled in one call: above it a batch gains nothing and holds locks longer.
pub const BATCH_OUTCOMES: usize = 256;
/// Bytes of one settle call.
pub const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Deliveries of a message that may end without any outcome before the step is called poison.
pub const DELIVERIES: i32 = 5;
/// Tasks made by one call: one statement and one commit, which others may wait for.
pub const SUBMIT_TASKS: usize = 100_000;
/// Bytes of the inputs of one such call: what server and client hold in memory at once.
pub const SUBMIT_BYTES: usize = 64 * 1024 * 1024;
/// Idempotency key of a task: fits a btree entry with room for namespace and workflow.
pub const KEY_BYTES: usize = 512;
/// Characters of a handler's name.
pub const HANDLER_NAME_CHARS: usize = 200;
/// Bytes of a definition's text.
pub const DEFINITION_BYTES: usize = 1024 * 1024;
/// Attempts that a retry policy may ask for.
pub const ATTEMPTS: u32 = 1_000;
/// What is due within this time may lie in a queue; what is due later waits as a timer.
pub const NEAR_FUTURE: Duration = Duration::from_secs(2);
/// The longest delay anything may ask for: a date beyond it is a mistake of units.
pub const LONGEST_DELAY: Duration = Duration::from_hours(8784);
/// The longest that a step may wait for a time or a signal: twenty years, beyond which a unit was mistaken.
pub const LONGEST_WAIT: Duration = Duration::from_hours(20 * 8766);
/// How long a cancelled handler may take to notice before its step is taken away.
pub const CANCEL_GRACE: Duration = Duration::from_secs(10);
/// How deep children of children go: one that runs itself is met before it fills the database.
pub const CHILD_DEPTH: u32 = 16;
