//! The shop as it was before it had workflows: plain functions over plain types, each with its own errors.

pub mod cart;
pub mod gateway;
mod model;
pub mod orders;
pub mod payments;
pub mod stock;

pub use gateway::Gateway;
pub use model::{Cart, Confirmation, Currency, Customer, Goods, Line, Order, Payment, Shop};
