//! The canonical definition of a workflow: what YAML, the Rust builder and the other languages all compile to.
//!
//! Its JSON and YAML form is the short one that people write; whatever equals its default is left out, so that one
//! workflow has one form. The order of the steps is kept for reading but means nothing: neither the content hash nor
//! the numbering of the steps depends on it, because `jsonb` does not keep it.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    event::EventDefinition,
    fan::{Batch, Failures, Fan},
    id::DEFAULT_NAMESPACE,
    id::WorkflowRef,
    retry::Retry,
    source::Source,
    wait::{Until, Wait},
};

mod form;
mod yaml;

/// What happens to the rest of a task when a step fails for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Running steps end, the rest is cancelled.
    #[default]
    FailFast,
    /// Branches that do not depend on it go on.
    Continue,
}

/// How much a settled step is worth while its task is still running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Every commit is on disk before anything depends on it.
    #[default]
    Strict,
    /// A crash of the database may run the last steps again; submit and finish stay durable.
    Relaxed,
}

/// The order among what is ready in one queue; larger first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(i32)]
pub enum Priority {
    /// 0
    Low = 0,
    /// 1, unless said otherwise.
    #[default]
    Normal = 1,
    /// 2
    High = 2,
    /// 3
    Critical = 3,
}

impl Priority {
    /// Every priority with the name a definition writes.
    pub const NAMES: [(&'static str, Priority); 4] = [
        ("low", Priority::Low),
        ("normal", Priority::Normal),
        ("high", Priority::High),
        ("critical", Priority::Critical),
    ];

    /// Returns the number that is stored.
    pub fn number(self) -> i32 {
        self as i32
    }

    /// Returns the priority of a stored number.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::NAMES.iter().map(|(_, priority)| *priority).find(|priority| priority.number() == number)
    }

    /// Returns the name a definition writes.
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize].0
    }
}

/// A workflow: its steps and what holds for all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The workflow's name.
    pub name: String,
    /// Its namespace.
    #[serde(default = "form::namespace", skip_serializing_if = "form::is_default_namespace")]
    pub namespace: String,
    /// A version for people; revisions are told apart by the content hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// What happens when a step fails for good.
    #[serde(default, skip_serializing_if = "form::is_default")]
    pub on_failure: OnFailure,
    /// How durable intermediate results are.
    #[serde(default, skip_serializing_if = "form::is_default")]
    pub durability: Durability,
    /// Input fields that are copied into the tags, so that tasks can be found by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// The steps; a mapping from name to step in JSON and YAML.
    #[serde(with = "form::steps")]
    pub steps: Vec<StepDefinition>,
    /// What it publishes for the application, by the events' names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub events: BTreeMap<String, EventDefinition>,
}

/// One step. Its name is the key under which it stands, so it is no field of its own form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepDefinition {
    /// The step's name.
    #[serde(skip)]
    pub name: String,
    /// The handler's name; empty for a step that waits or is a task of its own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub call: String,
    /// What it waits for, in place of a handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// The workflow that it runs as a task of its own, in place of a handler; `with` makes that task's input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<WorkflowRef>,
    /// The list for each item of which it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<Source>,
    /// How many items of the list run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// That its handler divides its work into ranges, and how these run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// The handler that undoes what it did, when the task fails or is cancelled later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<String>,
    /// Where the parameters' values come from; a source in a step is an edge.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub with: BTreeMap<String, Source>,
    /// Steps that must have ended first, without giving a value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// What a decision may choose: steps that depend on this one. Those that it does not choose are skipped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
    /// When it runs again after a failure.
    #[serde(default, skip_serializing_if = "form::is_default", with = "form::retry")]
    pub retry: Retry,
    /// How long one attempt may take.
    #[serde(
        rename = "timeout",
        default = "form::timeout",
        skip_serializing_if = "form::is_default_timeout",
        with = "form::duration"
    )]
    pub timeout_ms: u64,
    /// The queue it waits in.
    #[serde(default = "form::queue", skip_serializing_if = "form::is_default_queue")]
    pub queue: String,
    /// Its priority; the task's, unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// What the handler finds in its context; the same for every task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
}

/// The timeout of a step that names none.
pub const DEFAULT_TIMEOUT_MS: u64 = 60_000;
/// The queue of a step that names none.
pub const DEFAULT_QUEUE: &str = "default";

impl Definition {
    /// Starts a definition without steps.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            namespace: DEFAULT_NAMESPACE.to_owned(),
            version: None,
            description: None,
            input: None,
            on_failure: OnFailure::default(),
            durability: Durability::default(),
            search: Vec::new(),
            steps: Vec::new(),
            events: BTreeMap::new(),
        }
    }

    /// Returns the full name.
    pub fn reference(&self) -> WorkflowRef {
        WorkflowRef { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// Returns the named step.
    pub fn step(&self, name: &str) -> Option<&StepDefinition> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// Returns the SHA-256 of the canonical JSON in lower-case hexadecimal.
    ///
    /// Canonical: defaults left out, keys of objects sorted by their bytes, `after`, `routes` and `search` sorted, no spaces.
    pub fn content_hash(&self) -> String {
        let mut canonical = self.clone();
        canonical.search.sort();
        for step in &mut canonical.steps {
            step.after.sort();
            step.routes.sort();
        }
        let mut text = String::new();
        // A definition is plain data with text keys, which always serialises.
        let value = serde_json::to_value(&canonical).unwrap_or_default();
        form::write_sorted(&value, &mut text);
        Sha256::digest(text.as_bytes()).iter().fold(String::new(), |mut hash, byte| {
            let _ = write!(hash, "{byte:02x}");
            hash
        })
    }

    /// Writes the definition as the short YAML that [`crate::parse::parse`] reads back to an equal definition.
    pub fn to_yaml(&self) -> String {
        yaml::write(self)
    }
}

impl StepDefinition {
    /// Starts a step with every default.
    pub fn new(name: impl Into<String>, call: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            call: call.into(),
            wait: None,
            child: None,
            map: None,
            max_in_flight: None,
            batch: None,
            undo: None,
            with: BTreeMap::new(),
            after: Vec::new(),
            routes: Vec::new(),
            retry: Retry::default(),
            timeout_ms: DEFAULT_TIMEOUT_MS,
            queue: DEFAULT_QUEUE.to_owned(),
            priority: None,
            config: None,
        }
    }

    /// Starts a step that calls no handler and waits.
    pub fn waiting(name: impl Into<String>, wait: Wait) -> Self {
        Self { wait: Some(wait), ..Self::new(name, "") }
    }

    /// Says whether it calls a handler.
    pub fn calls_handler(&self) -> bool {
        self.wait.is_none() && self.child.is_none()
    }

    /// Says whether it runs many times at once, over the items of a list or the ranges of its work.
    pub fn fans_out(&self) -> bool {
        self.map.is_some() || self.batch.is_some()
    }

    /// Returns how it fans out; `policy` is the workflow's.
    pub fn fan(&self, policy: OnFailure) -> Option<Fan> {
        if let Some(batch) = &self.batch {
            return Some(Fan {
                list: None,
                batch: Some(batch.clone()),
                in_flight: batch.parallel,
                failures: batch.on_failure,
            });
        }
        Some(Fan {
            list: Some(self.map.clone()?),
            batch: None,
            in_flight: self.max_in_flight.unwrap_or(crate::fan::DEFAULT_IN_FLIGHT),
            failures: Failures::from(policy),
        })
    }

    /// Returns the step whose result is the list of this one.
    pub(crate) fn list_step(&self) -> Option<&str> {
        self.map.as_ref()?.step_name()
    }

    /// Returns the step whose result says until when this one waits.
    pub(crate) fn until_step(&self) -> Option<&str> {
        match self.wait.as_ref()?.until.as_ref()? {
            Until::Value(source) => source.step_name(),
            Until::Time(_) => None,
        }
    }

    /// Returns the names of the steps that this one depends on, sorted, each once.
    pub fn dependencies(&self) -> Vec<&str> {
        let sources = self.with.values().filter_map(Source::step_name).chain(self.until_step()).chain(self.list_step());
        let mut names: Vec<&str> = sources.chain(self.after.iter().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_canonical_json() {
        let mut definition = Definition::new("orders");
        definition.namespace = "shop".to_owned();
        let mut charge = StepDefinition::new("charge", "orders.charge");
        charge
            .with
            .insert("total".to_owned(), Source::Step { step: "validate".to_owned(), path: vec!["total".to_owned()] });
        charge.retry = Retry::attempts(5);
        let mut confirm = StepDefinition::new("confirm", "orders.confirm");
        confirm.after = vec!["validate".to_owned(), "charge".to_owned()];
        confirm.timeout_ms = 90_000;
        definition.steps = vec![StepDefinition::new("validate", "orders.validate"), charge, confirm];
        // printf of: {"name":"orders","namespace":"shop","steps":{"charge":{"call":"orders.charge","retry":5,
        // "with":{"total":"validate.total"}},"confirm":{"after":["charge","validate"],"call":"orders.confirm",
        // "timeout":"1m30s"},"validate":{"call":"orders.validate"}}} in one line, through sha256sum.
        assert_eq!(definition.content_hash(), "528531ce46a3c3ffb2286ae9fd296f059e2d0aead373822cf1dc44a29eeb653e");
    }
}
