//! Reads the observations: the columns that one question needs, day by day within each month.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Values by month, `2012-01`; within a month by day.
pub(crate) type ByMonth<T> = BTreeMap<String, T>;

/// Where the observations are.
#[derive(Debug, Clone)]
pub struct DataSet {
    path: PathBuf,
}

/// Which years to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Years {
    /// The first one.
    pub first: u16,
    /// The last one, which counts.
    pub last: u16,
}

/// Why the observations cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file is not there, or not readable.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the observations are not as they should be")]
    Format(#[from] csv::Error),
}

#[derive(Debug, Deserialize)]
pub(crate) struct Day {
    date: String,
    precipitation: Decimal,
    temp_max: Decimal,
    temp_min: Decimal,
    wind: Decimal,
    weather: String,
}

/// The temperatures of a day.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Temperature(pub(crate) Decimal, pub(crate) Decimal);

/// The wind of a day, and what the sky was like.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sky(pub(crate) Decimal, pub(crate) String);

impl DataSet {
    /// Takes the file of the observations.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub(crate) async fn temperatures(&self, years: Years) -> Result<ByMonth<Vec<Temperature>>, ReadError> {
        self.column(years, |day| Temperature(day.temp_max, day.temp_min)).await
    }

    pub(crate) async fn precipitation(&self, years: Years) -> Result<ByMonth<Vec<Decimal>>, ReadError> {
        self.column(years, |day| day.precipitation).await
    }

    pub(crate) async fn skies(&self, years: Years) -> Result<ByMonth<Vec<Sky>>, ReadError> {
        self.column(years, |day| Sky(day.wind, day.weather)).await
    }

    async fn column<T>(&self, years: Years, pick: impl Fn(Day) -> T) -> Result<ByMonth<Vec<T>>, ReadError> {
        let text = tokio::fs::read(&self.path).await;
        let text = text.map_err(|source| ReadError::File { path: self.path.clone(), source })?;
        let (first, last) = (format!("{:04}", years.first), format!("{:04}", years.last));
        let mut months: ByMonth<Vec<T>> = BTreeMap::new();
        for day in csv::Reader::from_reader(&text[..]).deserialize() {
            let day: Day = day?;
            let (Some(year), Some(month)) = (day.date.get(..4), day.date.get(..7)) else {
                continue;
            };
            if first.as_str() <= year && year <= last.as_str() {
                let month = month.to_owned();
                months.entry(month).or_default().push(pick(day));
            }
        }
        Ok(months)
    }
}
