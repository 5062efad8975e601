//! Fault tests: what is promised when something dies. After each: every task ended, every invariant holds, every effect is there
//! exactly once, every step ran at least once, no deadlock. `docs/reliability.md` says which test shows what.
//!
//! `FAULT_ROUNDS` repeats each test; one round unless set.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod clock;
mod config;
mod disk;
mod freeze;
mod kill;
mod network;
mod points;
mod program;
mod proxy;
mod server;
mod sweeps;
mod vacuum;
mod world;
