//! What a scenario says, and how it is read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tasker_model::outcome::StepFailure;
use tasker_model::{Definition, DynamicName, ErrorKind, Outcome, Payload, Revision};

/// One workflow, what its steps do, and how its task must end. See `README.md` for the format.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    workflow: Value,
    #[serde(default = "empty")]
    pub(crate) input: Value,
    #[serde(default)]
    pub(crate) signals: Vec<Signal>,
    pub(crate) cancel_when: Option<String>,
    /// Why its task is to be undone once it has ended.
    pub(crate) compensate: Option<String>,
    /// More workflows, called `<scenario>_<name>`: those of its child tasks.
    #[serde(default)]
    pub(crate) children: BTreeMap<String, Value>,
    #[serde(default)]
    pub(crate) steps: BTreeMap<String, Vec<Behaviour>>,
    pub(crate) expect: Expect,
}

/// What is sent to the task right after its submit, or once a step is in a state: `approval: ready`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Signal {
    pub(crate) send: String,
    #[serde(default)]
    pub(crate) payload: Value,
    pub(crate) when: Option<String>,
    /// The step that must take it; none: it is kept.
    pub(crate) taken_by: Option<String>,
    /// The step whose child it is for; none: the task itself.
    pub(crate) to: Option<String>,
}

/// What one attempt does.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Behaviour {
    /// Succeeds with this value.
    Return(Value),
    /// Chooses these routes.
    Decide(Vec<String>),
    /// Fails, and may be tried again.
    Fail(String),
    /// Fails for good, with this code.
    FailForGood(String),
    /// Saves this cursor, then fails.
    SaveAndFail(Value),
    /// Gives itself back with this cursor: no attempt.
    Checkpoint(Value),
    /// Succeeds with what it finds of its last checkpoint's cursor.
    ReturnCursor(()),
    /// Runs until it is stopped, or for this many milliseconds.
    Sleep(u64),
    /// Gives a map its items.
    Items { map: String, items: Vec<Value> },
    /// Divides its work: there are so many items.
    Divide(u64),
    /// Divides its work into these ranges.
    DivideInto(Vec<Value>),
    /// Succeeds with its item.
    ReturnItem(()),
    /// Succeeds with the result of the step that it undoes.
    ReturnResult(()),
    /// Goes on as a task of that child workflow.
    Run { child: String, input: Value },
    /// Waits for a signal, for so many milliseconds at most.
    WaitFor { signal: Option<String>, ms: Option<u64>, default: Option<Value> },
}

/// The end of the task and of its steps.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) task: String,
    #[serde(default)]
    pub(crate) steps: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) attempts: BTreeMap<String, i32>,
    #[serde(default)]
    pub(crate) results: BTreeMap<String, Value>,
    /// By step: the state of its child.
    #[serde(default)]
    pub(crate) children: BTreeMap<String, String>,
    /// By step, or `task`: its error's code, else its kind.
    #[serde(default)]
    pub(crate) errors: BTreeMap<String, String>,
    /// By step, or `task`: its events, in order.
    #[serde(default)]
    pub(crate) events: BTreeMap<String, Vec<String>>,
    /// The events that it published for the application, in order.
    pub(crate) published: Option<Vec<String>>,
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

impl Scenario {
    /// Reads every scenario of `tests/scenarios/*.yaml` whose `file/name` contains `only`.
    pub(crate) fn all(only: &str) -> Vec<(String, Self)> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
            .collect();
        files.sort();
        let mut all = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let group = file.file_stem().unwrap().to_string_lossy().into_owned();
            // By way of JSON, whose enums are written as people write them.
            let wrong = |error: &dyn std::fmt::Display| -> ! { panic!("{}: {error}", file.display()) };
            let value: Value = serde_yaml_ng::from_str(&text).unwrap_or_else(|error| wrong(&error));
            let scenarios: Vec<Self> = serde_json::from_value(value).unwrap_or_else(|error| wrong(&error));
            all.extend(scenarios.into_iter().map(|scenario| (format!("{group}/{}", scenario.name), scenario)));
        }
        all.retain(|(name, _)| name.contains(only));
        all
    }

    /// Compiles its workflow, which is called as the scenario is, and those of its children.
    pub(crate) fn revisions(&self) -> Vec<Revision> {
        let own = (self.name.clone(), &self.workflow);
        let children = self.children.iter().map(|(name, workflow)| (self.child_name(name), workflow));
        std::iter::once(own).chain(children).map(|(name, workflow)| self.compile(&name, workflow)).collect()
    }

    /// The full name of a child's workflow; a name that is none of them is left as it is.
    pub(crate) fn child_name(&self, name: &str) -> String {
        if self.children.contains_key(name) { format!("{}_{name}", self.name) } else { name.to_owned() }
    }

    fn compile(&self, name: &str, workflow: &Value) -> Revision {
        let mut workflow = workflow.clone();
        workflow["name"] = name.into();
        for step in workflow["steps"].as_object_mut().into_iter().flatten().map(|(_, step)| step) {
            if let Some(child) = step["child"].as_str().map(|child| self.child_name(child)) {
                step["child"] = child.into();
            } else if let Some(step) = step.as_object_mut() {
                step.remove("child");
            }
        }
        let definition: Definition = serde_json::from_value(workflow).unwrap_or_else(|error| panic!("{name}: {error}"));
        Revision::compile(definition).unwrap_or_else(|problems| panic!("{name}: {problems:?}"))
    }

    /// What an attempt of a step does: the last behaviour holds for all that follow. Nothing where the scenario says nothing.
    pub(crate) fn behaviour(&self, step: &str, run: usize) -> Option<Behaviour> {
        let of_items =
            || self.steps.get(&format!("{}[]", DynamicName::of(step).step)).filter(|_| DynamicName::of(step).is_item());
        let all = self.steps.get(step).or_else(of_items)?;
        let behaviour = all.get(run).or_else(|| all.last()).cloned();
        behaviour.map(|behaviour| match behaviour {
            Behaviour::Run { child, input } => Behaviour::Run { child: self.child_name(&child), input },
            other => other,
        })
    }
}

impl Behaviour {
    /// The outcome that needs nothing else.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Return(value) => Outcome::success(payload(&value)),
            Self::Decide(steps) => Outcome::Decision { steps, value: Payload::null() },
            Self::Fail(message) | Self::SaveAndFail(Value::String(message)) => {
                Outcome::failure(StepFailure::unexpected(message).retry_after(Duration::from_millis(1)))
            }
            Self::SaveAndFail(_) => Outcome::failure(StepFailure::new(ErrorKind::Unexpected, "after a checkpoint")),
            Self::FailForGood(code) => Outcome::failure(StepFailure::permanent("as the scenario says").code(code)),
            Self::Checkpoint(cursor) => Outcome::Checkpoint { cursor: payload(&cursor), items: 0, accumulated: None },
            Self::Items { map, items } => Outcome::Map { step: map, items: items.iter().map(payload).collect() },
            Self::Divide(items) => Outcome::Batches { items, cursors: Vec::new() },
            Self::DivideInto(cursors) => {
                Outcome::Batches { items: cursors.len() as u64, cursors: cursors.iter().map(payload).collect() }
            }
            Self::Run { child, input } => Outcome::Child { workflow: child.parse().unwrap(), input: payload(&input) },
            Self::WaitFor { signal, ms, default } => {
                Outcome::Wait { signal, until: None, timeout_ms: ms, default: default.as_ref().map(payload) }
            }
            Self::ReturnCursor(()) | Self::ReturnItem(()) | Self::ReturnResult(()) | Self::Sleep(_) => {
                Outcome::success(Payload::null())
            }
        }
    }
}

pub(crate) fn payload(value: &Value) -> Payload {
    Payload::from_value(value).unwrap()
}
