//! Steps that run many times at once: for each item of a list, or for each range of their work.

use serde::{Deserialize, Serialize};

use crate::{definition::OnFailure, source::Source};

/// How many items of a map run at a time, unless it says: enough for a few busy workers.
pub const DEFAULT_IN_FLIGHT: u32 = 256;
/// How many items one range of a batch has, unless it says.
pub const DEFAULT_BATCH_SIZE: u64 = 1_000;
/// How many ranges of a batch run at a time, unless it says.
pub const DEFAULT_PARALLEL: u32 = 8;

/// What the failure of one item or range means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failures {
    /// No other begins; the step fails.
    #[default]
    FailFast,
    /// The others run; then the step fails.
    Continue,
    /// The others run; the step succeeds and lists those that failed.
    Isolate,
}

impl Failures {
    /// Every policy with the name that a definition writes.
    pub const NAMES: [(&'static str, Failures); 3] =
        [("fail_fast", Failures::FailFast), ("continue", Failures::Continue), ("isolate", Failures::Isolate)];

    /// Returns the name that a definition writes.
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize].0
    }
}

impl From<OnFailure> for Failures {
    fn from(policy: OnFailure) -> Self {
        match policy {
            OnFailure::FailFast => Self::FailFast,
            OnFailure::Continue => Self::Continue,
        }
    }
}

/// A step that divides its work into ranges. Its handler is called once without a range and says how much there is; then once for each
/// range. The step's result is `{"items": n, "results": [..], "failed": [..]}`, the results in the order of the ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// How many items a range has where the handler names only their number.
    #[serde(default = "default_size", skip_serializing_if = "is_default_size")]
    pub size: u64,
    /// How many ranges run at a time.
    #[serde(default = "default_parallel", skip_serializing_if = "is_default_parallel")]
    pub parallel: u32,
    /// What a range that failed means for the others.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_failure: Failures,
}

impl Default for Batch {
    fn default() -> Self {
        Self { size: DEFAULT_BATCH_SIZE, parallel: DEFAULT_PARALLEL, on_failure: Failures::default() }
    }
}

/// A part of the work of a batch: the items from `from` on, up to `to`, which is the first that is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first item, counted from 0.
    pub from: u64,
    /// One past the last item.
    pub to: u64,
}

impl Batch {
    /// Starts one whose ranges have so many items.
    pub fn of_size(size: u64) -> Self {
        Self { size, ..Self::default() }
    }

    /// Says how many ranges run at a time; eight unless said.
    pub fn parallel(mut self, parallel: u32) -> Self {
        self.parallel = parallel;
        self
    }

    /// Says what a range that failed means for the others.
    pub fn on_failure(mut self, failures: Failures) -> Self {
        self.on_failure = failures;
        self
    }

    /// Divides so many items into ranges of the batch's size.
    pub fn ranges(&self, items: u64) -> impl Iterator<Item = Range> + use<> {
        let size = self.size.max(1);
        (0..items.div_ceil(size)).map(move |at| Range { from: at * size, to: ((at + 1) * size).min(items) })
    }
}

/// How a step of a revision fans out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fan {
    /// Where the list of a map is; nothing for a batch.
    pub list: Option<Source>,
    /// How a batch divides its items; nothing for a map.
    pub batch: Option<Batch>,
    /// How many run at a time.
    pub in_flight: u32,
    /// What the failure of one means for the others.
    pub failures: Failures,
}

/// The name of a dynamic step, taken apart: `charge[3]`, `undo:charge`, `undo:charge[3]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DynamicName<'n> {
    /// The step of the definition.
    pub step: &'n str,
    /// The place in the list, of an item or range.
    pub at: Option<u32>,
    /// The step that it undoes.
    pub undoes: Option<&'n str>,
}

impl<'n> DynamicName<'n> {
    /// Takes a step's name apart; that of a step of the definition has neither place nor undone step.
    pub fn of(name: &'n str) -> Self {
        let (undoes, plain) = match name.strip_prefix("undo:") {
            Some(undone) => (Some(undone), undone),
            None => (None, name),
        };
        let place = plain.strip_suffix(']').and_then(|open| open.split_once('['));
        match place.and_then(|(step, at)| Some((step, at.parse().ok()?))) {
            Some((step, at)) => Self { step, at: Some(at), undoes },
            None => Self { step: plain, at: None, undoes },
        }
    }

    /// Says whether it is an item of a map or a range of a batch.
    pub fn is_item(&self) -> bool {
        self.at.is_some() && self.undoes.is_none()
    }
}

fn default_size() -> u64 {
    DEFAULT_BATCH_SIZE
}

fn default_parallel() -> u32 {
    DEFAULT_PARALLEL
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_default_size(size: &u64) -> bool {
    *size == DEFAULT_BATCH_SIZE
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_default_parallel(parallel: &u32) -> bool {
    *parallel == DEFAULT_PARALLEL
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let parts = |name| {
            let name = DynamicName::of(name);
            (name.step, name.at, name.undoes)
        };
        assert_eq!(parts("charge"), ("charge", None, None));
        assert_eq!(parts("charge[0]"), ("charge", Some(0), None));
        assert_eq!(parts("undo:charge"), ("charge", None, Some("charge")));
        assert_eq!(parts("undo:charge[12]"), ("charge", Some(12), Some("charge[12]")));
        assert!(DynamicName::of("a[1]").is_item() && !DynamicName::of("undo:a[1]").is_item());
    }

    #[test]
    fn ranges_cover_every_item_once() {
        let batch = Batch { size: 100, ..Batch::default() };
        let ranges: Vec<Range> = batch.ranges(250).collect();
        assert_eq!(ranges.iter().map(|r| (r.from, r.to)).collect::<Vec<_>>(), [(0, 100), (100, 200), (200, 250)]);
        assert_eq!(batch.ranges(0).count(), 0);
        assert_eq!(batch.ranges(u64::MAX).next().unwrap().to, 100);
    }
}
