//! Analytics as a workflow: three extracts side by side, a transform for each, an aggregate, insights.

mod observations;
mod statistics;
mod workflow;

pub use observations::{DataSet, ReadError, Years};
pub use statistics::{Peak, Report, Spell};
pub use workflow::weather_insights;
