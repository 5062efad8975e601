//! What a worker hands to a handler: the wire form of one step's work.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    id::{StepRef, TaskId},
    payload::Payload,
};

/// Everything that a handler may know about its step and task. Payloads keep their text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepInput {
    /// The task.
    pub task: TaskPart,
    /// The step.
    pub step: StepPart,
    /// The results of the steps that this one depends on, by name; `null` for a step that was skipped.
    #[serde(default)]
    pub results: BTreeMap<String, Payload>,
    /// Of the steps that this one depends on, the maps and batches whose results are too large to be delivered at once: how many they
    /// have. They are read in pages.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub paged: BTreeMap<String, u32>,
    /// What the last checkpoint saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Payload>,
    /// `<task id>/<step name>`, with `#<run>` once the step was run again on request; the same for every attempt.
    pub idempotency_key: String,
    /// What the submitter gave to find related work by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The W3C trace context of the submit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Payload>,
}

/// The task's part of a step's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskPart {
    /// The task's id.
    pub id: TaskId,
    /// The workflow's namespace.
    pub namespace: String,
    /// The workflow's name.
    pub workflow: String,
    /// The content hash of the revision that the task is pinned to.
    pub revision: String,
    /// The task's input, an object.
    pub input: Payload,
    /// The task's tags, an object.
    #[serde(default = "Payload::empty_object")]
    pub tags: Payload,
    /// When it was submitted.
    pub created_at: DateTime<Utc>,
}

/// The step's part of a step's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepPart {
    /// `<task id>/<step name>`.
    pub id: StepRef,
    /// The step's name.
    pub name: String,
    /// Which attempt this is, counted from 1.
    pub attempt: u32,
    /// How many there may be in all.
    pub max_attempts: u32,
    /// How long this attempt may take.
    pub timeout_ms: u64,
    /// When the task must have ended, if it has a deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<DateTime<Utc>>,
    /// The step's `config` from the definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Payload>,
    /// The item of a map, or the range of a batch, that this run is for.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::payload::present")]
    pub item: Option<Payload>,
}

impl StepInput {
    /// Says whether a failure of this attempt is final.
    pub fn is_last_attempt(&self) -> bool {
        self.step.attempt >= self.step.max_attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_survives_with_its_numbers() {
        let text = r#"{"task":{"id":"0199a3c2-7d1e-7c44-9f5b-2f8d4be1a0c3","namespace":"default","workflow":"w","revision":"ab","input":{"n":9007199254740993,"d":1.10},"tags":{},"created_at":"2026-01-02T03:04:05.000006Z"},"step":{"id":"0199a3c2-7d1e-7c44-9f5b-2f8d4be1a0c3/b","name":"b","attempt":3,"max_attempts":3,"timeout_ms":60000},"results":{"a":1.10,"z":null},"idempotency_key":"0199a3c2-7d1e-7c44-9f5b-2f8d4be1a0c3/b"}"#;
        let input: StepInput = serde_json::from_str(text).unwrap();
        assert!(input.is_last_attempt());
        assert_eq!(input.results["z"], Payload::null());
        assert_eq!(serde_json::to_string(&input).unwrap(), text);
    }
}
