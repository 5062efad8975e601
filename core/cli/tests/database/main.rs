//! The program against a real database.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod completions;
mod dev;
mod events;
mod hostile;
mod journey;
mod json;
mod program;
mod rows;
mod schema;
mod worker;
