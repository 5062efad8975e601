//! Events that a workflow publishes for the application.

use serde::{Deserialize, Serialize};

/// What must have happened for an event to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// The step is done, or the task is complete.
    Success,
    /// The step has failed and is not tried again, or the task has failed. A cancelled task publishes nothing.
    Failure,
    /// An attempt of the step has failed and another follows.
    Retry,
}

impl On {
    /// Each with the word that a definition writes.
    pub const NAMES: [(&'static str, On); 3] =
        [("success", On::Success), ("failure", On::Failure), ("retry", On::Retry)];

    /// Returns the word that a definition writes.
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize].0
    }
}

/// One event: what happens to which step, or to the whole task. Its name is the key under which it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventDefinition {
    /// When it is published.
    pub on: On,
    /// The step; the whole task where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}
