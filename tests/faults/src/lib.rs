//! The workflow of the fault tests and the program that works on it.
//!
//! Every step raises a counter outside its transaction, which a crash may raise twice. The steps with an effect insert it
//! through `ctx.transaction` into a table without a unique key: were a result ever applied twice, it would show.

mod config;
pub mod stop;
mod workflow;

pub use config::slots;
pub use workflow::{EFFECTS, Order, STEPS, TABLES, aside, storm, teller};
