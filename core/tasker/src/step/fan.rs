//! What a map or a batch runs with, and what its step returns.

use std::ops::Deref;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tasker_model::{Outcome, Payload, StepFailure};

use super::outcome::{IntoOutcome, Stated};
use super::{Delivery, FromStep, Need, to_payload};
use crate::StepError;

/// The item of a map, or the range of a batch, that this run is for. Where there is none, as in the call by which a batch divides its work,
/// it is read from `null`: take `Item<Option<T>>`.
///
/// ```
/// use tasker::prelude::*;
/// use tasker::Item;
///
/// #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// struct Line { sku: String }
///
/// #[tasker::step]
/// async fn pack(line: Item<Line>) -> Result<String, StepError> { Ok(format!("packed {}", line.sku)) }
///
/// #[tasker::step]
/// async fn ship(pack: Vec<String>) -> Result<usize, StepError> { Ok(pack.len()) }
///
/// let orders = Workflow::new("orders").step(pack.map("input.lines").max_in_flight(20)).step(ship);
/// assert_eq!(orders.revision().unwrap().step_by_name("ship").unwrap().parents, [0]);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Item<T>(pub T);

impl<T: DeserializeOwned + Send + 'static> FromStep for Item<T> {
    fn need() -> Need {
        Need::Nothing
    }

    fn from_step(delivery: &Delivery<'_>) -> Result<Self, StepError> {
        delivery.item().map(Self)
    }
}

impl<T> Deref for Item<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Gives a map its items: more than a result could hold, up to 100,000 and 4 MiB. The map's definition names this step as its list:
/// `.map("plan")`.
#[derive(Debug, Clone)]
pub struct MapItems<T> {
    map: String,
    items: Vec<T>,
}

impl<T> MapItems<T> {
    /// Gives these items to the map of that name.
    pub fn of(map: &str, items: impl IntoIterator<Item = T>) -> Self {
        Self { map: map.to_owned(), items: items.into_iter().collect() }
    }
}

impl<T: Serialize> IntoOutcome<Stated> for MapItems<T> {
    fn into_outcome(self) -> Outcome {
        match self.items.iter().map(to_payload).collect() {
            Ok(items) => Outcome::Map { step: self.map, items },
            Err(error) => error.into_outcome(),
        }
    }
}

/// What the handler of a batch returns: first how its work divides, then for each range its result.
///
/// ```
/// use tasker::prelude::*;
/// use tasker::{Batch, BatchResult, Batched, Item, Range};
///
/// #[tasker::step]
/// async fn import(range: Item<Option<Range>>) -> Result<Batched<u64>, StepError> {
///     let Item(Some(range)) = range else { return Ok(Batched::items(50_000)) };
///     Ok(Batched::done(range.to - range.from))
/// }
///
/// #[tasker::step]
/// async fn total(import: BatchResult<u64>) -> Result<u64, StepError> { Ok(import.results.iter().sum()) }
///
/// let rows = Workflow::new("rows").step(import.batch(Batch::of_size(1_000).parallel(4))).step(total);
/// assert!(rows.revision().is_ok());
/// ```
#[derive(Debug, Clone)]
pub struct Batched<T>(Kind<T>);

#[derive(Debug, Clone)]
enum Kind<T> {
    Divided { items: u64, ranges: Result<Vec<Payload>, StepError> },
    Done(T),
}

impl<T> Batched<T> {
    /// There are so many items: the size of the batch makes their ranges, each a [`Range`](crate::Range).
    pub fn items(items: u64) -> Self {
        Self(Kind::Divided { items, ranges: Ok(Vec::new()) })
    }

    /// There are so many items, in these ranges: whatever a run needs to find its part.
    pub fn ranges<R: Serialize>(items: u64, ranges: impl IntoIterator<Item = R>) -> Self {
        let ranges = ranges.into_iter().map(|range| to_payload(&range)).collect();
        Self(Kind::Divided { items, ranges })
    }

    /// The range is done, with this result.
    pub fn done(value: T) -> Self {
        Self(Kind::Done(value))
    }
}

impl<T: Serialize> IntoOutcome<Stated> for Batched<T> {
    fn into_outcome(self) -> Outcome {
        match self.0 {
            Kind::Divided { items, ranges: Ok(cursors) } => Outcome::Batches { items, cursors },
            Kind::Divided { ranges: Err(error), .. } => error.into_outcome(),
            Kind::Done(value) => match to_payload(&value) {
                Ok(value) => Outcome::success(value),
                Err(error) => error.into_outcome(),
            },
        }
    }
}

/// The result of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchResult<T> {
    /// How many items there were.
    pub items: u64,
    /// The results of the ranges that succeeded, in the order of the ranges.
    pub results: Vec<T>,
    /// The ranges that failed, where that is isolated.
    pub failed: Vec<FailedRange>,
}

/// A range of a batch that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailedRange {
    /// The step that ran it: `import[3]`.
    pub step: String,
    /// The range.
    pub range: Payload,
    /// Why it failed.
    pub error: StepFailure,
}
