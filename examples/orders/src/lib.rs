//! The orders of a small shop, as a workflow over the services that the shop has.

pub mod services;
mod workflow;

pub use workflow::order_processing;
