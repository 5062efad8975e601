//! Reads outcomes without touching the text of a payload.
//!
//! Serde's own tagged enums read through a buffer in which a payload loses its text (and `1.10` its zero); a flat
//! struct with the fields of all outcomes reads straight from the document.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, de};

use super::{Outcome, StepFailure};
use crate::{
    id::WorkflowRef,
    payload::{Payload, present},
};

/// All fields of all outcomes.
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
            "success" => Outcome::Success { value: self.value.unwrap_or_else(Payload::null), metadata: self.metadata },
            "failure" => Outcome::Failure { error: self.error.ok_or_else(|| E::missing_field("error"))? },
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

const NAMES: &[&str] =
    &["success", "failure", "decision", "batches", "map", "checkpoint", "child", "wait", "settled", "cancelled"];
