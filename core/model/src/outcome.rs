//! What came of one attempt at a step: the wire form of every outcome.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{
    error::{Error, ErrorKind, Result},
    id::WorkflowRef,
    limits,
    payload::{Payload, check_payload},
};

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
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub details: Option<Payload>,
}

impl StepFailure {
    /// Makes a failure of the given kind; retryable if that kind is so by default.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let retryable = matches!(
            kind,
            ErrorKind::Unexpected | ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Busy
        );
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
        Self::new(
            ErrorKind::Timeout,
            format!(
                "the attempt took longer than its timeout of {} ms",
                limit.as_millis()
            ),
        )
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
        Self::Success {
            value,
            metadata: BTreeMap::new(),
        }
    }

    /// The attempt failed.
    pub fn failure(error: StepFailure) -> Self {
        Self::Failure { error }
    }

    /// Refuses what could not be stored, before it enters a batch with others; kind `result_rejected`.
    pub fn check(&self) -> Result<()> {
        let check = |payload: &Payload, limit, what: &str| {
            check_payload(ErrorKind::ResultRejected, payload.get(), limit, what)
        };
        match self {
            Outcome::Success { value, metadata } => {
                check(value, limits::RESULT_BYTES, "the result")?;
                metadata.iter().try_for_each(|(key, value)| {
                    check_text(key, "a metadata key")?;
                    check(value, limits::RESULT_BYTES, "the metadata")
                })?;
                let size: usize = metadata
                    .iter()
                    .map(|(key, value)| key.len() + value.get().len())
                    .sum();
                within(size, limits::RESULT_BYTES, "the metadata")
            }
            Outcome::Failure { error } => {
                for text in [
                    Some(&error.message),
                    error.code.as_ref(),
                    error.class.as_ref(),
                ]
                .into_iter()
                .flatten()
                {
                    check_text(text, "the error")?;
                }
                error
                    .backtrace
                    .iter()
                    .try_for_each(|line| check_text(line, "the backtrace"))?;
                error.details.as_ref().map_or(Ok(()), |details| {
                    check(details, limits::ERROR_DETAILS_BYTES, "the error details")
                })
            }
            Outcome::Decision { steps, value } => {
                steps
                    .iter()
                    .try_for_each(|step| check_text(step, "a step's name"))?;
                check(value, limits::RESULT_BYTES, "the result")
            }
            Outcome::Batches { cursors: items, .. } | Outcome::Map { items, .. } => {
                if items.len() > limits::MAP_ITEMS {
                    return Err(Error::new(
                        ErrorKind::ResultRejected,
                        format!(
                            "{} items are more than the {} of one map; divide them first",
                            items.len(),
                            limits::MAP_ITEMS
                        ),
                    ));
                }
                items
                    .iter()
                    .try_for_each(|item| check(item, limits::RESULT_BYTES, "an item"))?;
                within(
                    items.iter().map(|item| item.get().len()).sum(),
                    limits::ITEMS_BYTES,
                    "the item list",
                )
            }
            Outcome::Checkpoint {
                cursor,
                accumulated,
                ..
            } => {
                check(cursor, limits::RESULT_BYTES, "the cursor")?;
                accumulated.as_ref().map_or(Ok(()), |value| {
                    check(value, limits::RESULT_BYTES, "the accumulated value")
                })
            }
            Outcome::Child { input, .. } => check(input, limits::INPUT_BYTES, "the child's input"),
            Outcome::Wait { default, .. } => default.as_ref().map_or(Ok(()), |value| {
                check(value, limits::RESULT_BYTES, "the default")
            }),
            Outcome::Settled | Outcome::Cancelled => Ok(()),
        }
    }
}

fn check_text(text: &str, what: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Error::new(
            ErrorKind::ResultRejected,
            format!("{what} contains a NUL character, which PostgreSQL cannot store; remove it"),
        ));
    }
    within(text.len(), limits::ERROR_DETAILS_BYTES, what)
}

fn within(size: usize, limit: usize, what: &str) -> Result<()> {
    if size <= limit {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::ResultRejected,
        format!(
            "{what} has {size} bytes, the limit is {limit}; store it elsewhere and return a reference"
        ),
    ))
}

/// Reads a field that is there, so that `null` is a value and only absence is none.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Payload>, D::Error> {
    Payload::deserialize(deserializer).map(Some)
}

/// All fields of all outcomes. Serde's own tagged enums read through a buffer in which a payload loses its text
/// (and `1.10` its zero); a flat struct reads straight from the document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    outcome: String,
    #[serde(default, deserialize_with = "present")]
    value: Option<Payload>,
    #[serde(default)]
    metadata: BTreeMap<String, Payload>,
    error: Option<StepFailure>,
    steps: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    items: Option<Payload>,
    cursors: Option<Vec<Payload>>,
    step: Option<String>,
    #[serde(default, deserialize_with = "present")]
    cursor: Option<Payload>,
    #[serde(default, deserialize_with = "present")]
    accumulated: Option<Payload>,
    workflow: Option<WorkflowRef>,
    #[serde(default, deserialize_with = "present")]
    input: Option<Payload>,
    signal: Option<String>,
    until: Option<DateTime<Utc>>,
    timeout_ms: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    default: Option<Payload>,
}

impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Wire::deserialize(deserializer)?.into_outcome()
    }
}

impl Wire {
    fn into_outcome<E: de::Error>(self) -> Result<Outcome, E> {
        let items = |items: Option<Payload>| items.ok_or_else(|| E::missing_field("items"));
        Ok(match self.outcome.as_str() {
            // A handler without a result may leave the value out: nothing and null are the same result.
            "success" => Outcome::Success {
                value: self.value.unwrap_or_else(Payload::null),
                metadata: self.metadata,
            },
            "failure" => Outcome::Failure {
                error: self.error.ok_or_else(|| E::missing_field("error"))?,
            },
            "decision" => Outcome::Decision {
                steps: self.steps.ok_or_else(|| E::missing_field("steps"))?,
                value: self.value.unwrap_or_else(Payload::null),
            },
            "batches" => Outcome::Batches {
                items: items(self.items)?.to().map_err(E::custom)?,
                cursors: self.cursors.ok_or_else(|| E::missing_field("cursors"))?,
            },
            "map" => Outcome::Map {
                step: self.step.ok_or_else(|| E::missing_field("step"))?,
                items: items(self.items)?.to().map_err(E::custom)?,
            },
            "checkpoint" => Outcome::Checkpoint {
                cursor: self.cursor.ok_or_else(|| E::missing_field("cursor"))?,
                items: items(self.items)?.to().map_err(E::custom)?,
                accumulated: self.accumulated,
            },
            "child" => Outcome::Child {
                workflow: self.workflow.ok_or_else(|| E::missing_field("workflow"))?,
                input: self.input.ok_or_else(|| E::missing_field("input"))?,
            },
            "wait" if self.signal.is_none() && self.until.is_none() => {
                return Err(E::missing_field("signal"));
            }
            "wait" => Outcome::Wait {
                signal: self.signal,
                until: self.until,
                timeout_ms: self.timeout_ms,
                default: self.default,
            },
            "settled" => Outcome::Settled,
            "cancelled" => Outcome::Cancelled,
            other => return Err(E::unknown_variant(other, NAMES)),
        })
    }
}

const NAMES: &[&str] = &[
    "success",
    "failure",
    "decision",
    "batches",
    "map",
    "checkpoint",
    "child",
    "wait",
    "settled",
    "cancelled",
];
