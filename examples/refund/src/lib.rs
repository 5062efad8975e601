//! Refunds: small ones by themselves, large ones after a person approved them, and undone where they cannot be booked.

mod workflow;

pub mod services;

pub use workflow::{Approval, Outcome, refund};
