//! The orders of a small shop, as a workflow over the services that the shop has.

mod ending;
mod file;
mod placing;
pub mod services;
mod workflow;

pub use ending::{Ending, Outcome};
pub use file::{Article, Entry, Expectation, OrderFile};
pub use placing::{PlaceError, place};
pub use workflow::order_processing;
