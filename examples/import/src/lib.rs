//! A file of sales, imported by several ranges at a time: each row is there exactly once, whatever dies on the way.

mod file;
mod generate;
mod sales;
mod summary;
mod workflow;

pub use file::{ReadError, Rejected, Row, count_rows, read_rows};
pub use generate::generate;
pub use sales::Sales;
pub use summary::{Day, Summary};
pub use workflow::{SalesFile, import_sales};
