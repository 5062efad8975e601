//! What came of one attempt at a step: the wire form of every outcome.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{error::ErrorKind, id::WorkflowRef, payload::Payload};

mod check;
mod wire;

/// What a handler, or the worker in its place, reports for a step.
///
/// On the wire an object tagged by `outcome`, for example `{"outcome":"success","value":{"total":12.50}}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The step is done.
    Success {
        /// Its result.
        value: Payload,
        /// What is worth keeping beside the result; not seen by other steps.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        metadata: BTreeMap<String, Payload>,
    },
    /// The attempt failed.
    Failure {
        /// Why.
        error: StepFailure,
    },
    /// The step is done and names which of its routes live; the others are skipped.
    Decision {
        /// The chosen successors.
        steps: Vec<String>,
        /// Its result.
        value: Payload,
    },
    /// The step divides its work into ranges.
    Batches {
        /// How many items there are in all.
        items: u64,
        /// One cursor a range.
        cursors: Vec<Payload>,
    },
    /// The named map step fans out over these items.
    Map {
        /// The map step.
        step: String,
        /// One item a dynamic step.
        items: Vec<Payload>,
    },
    /// The step has come this far and goes on from here.
    Checkpoint {
        /// Where to resume.
        cursor: Payload,
        /// Items handled so far.
        items: u64,
        /// What has been gathered so far.
        #[serde(skip_serializing_if = "Option::is_none")]
        accumulated: Option<Payload>,
    },
    /// The step's result is that of another task.
    Child {
        /// What to run.
        workflow: WorkflowRef,
        /// Its input.
        input: Payload,
    },
    /// The step waits for a signal or a time.
    Wait {
        /// The signal's name; nothing for a timer.
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<String>,
        /// The time, if it waits for one.
        #[serde(skip_serializing_if = "Option::is_none")]
        until: Option<DateTime<Utc>>,
        /// How long to wait for the signal.
        #[serde(skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
        /// The result if the signal does not come in time; without it the step fails as `wait_timeout`.
        #[serde(skip_serializing_if = "Option::is_none")]
        default: Option<Payload>,
    },
    /// The handler settled the step in its own transaction; nothing is left to do.
    Settled,
    /// The handler stopped because it was asked to.
    Cancelled,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepFailure {
    /// The class of the failure.
    pub kind: ErrorKind,
    /// The application's own code, for example `CARD_DECLINED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// A sentence for people.
    pub message: String,
    /// The exception's class or the error's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Where it was raised, innermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backtrace: Vec<String>,
    /// Whether another attempt may help.
    pub retryable: bool,
    /// When to try again, if the handler knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What a program may want to know.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::payload::present")]
    pub details: Option<Payload>,
}

/// What a checkpoint saves, and what a step that goes on finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Where to resume.
    pub cursor: Payload,
    /// Items handled so far.
    #[serde(default)]
    pub items: u64,
    /// What has been gathered so far.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::payload::present")]
    pub accumulated: Option<Payload>,
}

impl StepFailure {
    /// Makes a failure of the given kind; retryable if that kind is so by default.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let retryable =
            matches!(kind, ErrorKind::Unexpected | ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Busy);
        Self {
            kind,
            code: None,
            message: message.into(),
            class: None,
            backtrace: Vec::new(),
            retryable,
            retry_after_ms: None,
            details: None,
        }
    }

    /// Something that nobody mapped; another attempt follows.
    pub fn unexpected(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unexpected, message)
    }

    /// A stated failure that no retry repairs.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Permanent, message)
    }

    /// The attempt took longer than the step's timeout; another attempt follows.
    pub fn timeout(limit: Duration) -> Self {
        Self::new(ErrorKind::Timeout, format!("the attempt took longer than its timeout of {} ms", limit.as_millis()))
    }

    /// The result could not be stored; it would be the same the next time.
    pub fn result_rejected(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ResultRejected, message)
    }

    /// Adds the application's code.
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Adds the class of the exception or the type of the error.
    pub fn class(mut self, class: impl Into<String>) -> Self {
        self.class = Some(class.into());
        self
    }

    /// Says whether another attempt may help.
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// Asks for the next attempt after this long.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retryable = true;
        self.retry_after_ms = Some(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Adds details for programs.
    pub fn details(mut self, details: Payload) -> Self {
        self.details = Some(details);
        self
    }
}

impl Outcome {
    /// The step is done with this result.
    pub fn success(value: Payload) -> Self {
        Self::Success { value, metadata: BTreeMap::new() }
    }

    /// The attempt failed.
    pub fn failure(error: StepFailure) -> Self {
        Self::Failure { error }
    }
}
