//! Names and identifiers: what they look like and how they are read.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::{
    error::{Error, ErrorKind, Result},
    limits::HANDLER_NAME_CHARS,
};

/// The namespace of everything that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Identifies a task: a `UUIDv7`, so that ids sort by the time they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TaskId(pub Uuid);

impl TaskId {
    /// Makes the id of a new task.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for TaskId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // `Uuid` also reads braced, urn and bare forms; one spelling on the wire keeps ids comparable as text.
        if text.len() != 36 {
            return Err(not_a_task_id(text));
        }
        Uuid::try_parse(text).map(Self).map_err(|cause| not_a_task_id(text).caused_by(cause))
    }
}

fn not_a_task_id(text: &str) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("`{text}` is not a task id; one looks like 0199a3c2-7d1e-7c44-9f5b-2f8d4be1a0c3"),
    )
}

impl<'de> Deserialize<'de> for TaskId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        read_text(deserializer)
    }
}

/// Names a workflow within its namespace; written `name` or `namespace.name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkflowRef {
    /// The namespace, `default` unless said.
    pub namespace: String,
    /// The workflow's own name.
    pub name: String,
}

impl WorkflowRef {
    /// Makes a reference out of checked parts.
    pub fn new(namespace: &str, name: &str) -> Result<Self> {
        check_name("namespace", namespace)?;
        check_name("workflow", name)?;
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for WorkflowRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace, self.name)
    }
}

impl FromStr for WorkflowRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (namespace, name) = text.split_once('.').unwrap_or((DEFAULT_NAMESPACE, text));
        Self::new(namespace, name)
    }
}

impl Serialize for WorkflowRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WorkflowRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        read_text(deserializer)
    }
}

/// Names one step of one task; written `<task id>/<step>`, dynamic steps as `<task id>/<step>[3]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepRef {
    /// The task.
    pub task: TaskId,
    /// The step's name, with its index if it is dynamic.
    pub step: String,
}

impl fmt::Display for StepRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.task, self.step)
    }
}

impl FromStr for StepRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (task, step) = text.split_once('/').ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("`{text}` is not a step; write <task id>/<step name>"))
        })?;
        let base = match step.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
            Some((base, index)) if is_index(index) => base,
            _ => step,
        };
        // A compensation is the dynamic step `undo:NAME` of the step that it undoes.
        check_name("step", base.strip_prefix("undo:").unwrap_or(base))?;
        Ok(Self { task: task.parse()?, step: step.to_owned() })
    }
}

impl Serialize for StepRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StepRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        read_text(deserializer)
    }
}

fn is_index(text: &str) -> bool {
    text.parse::<u32>().is_ok_and(|number| number.to_string() == text)
}

fn read_text<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = Error>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(de::Error::custom)
}

/// Says whether `text` is a name: `^[a-z][a-z0-9_]{0,62}$`.
pub fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes.first(), Some(b'a'..=b'z'))
        && bytes.len() <= 63
        && bytes.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// Refuses what is no name; `what` says what it names, for example `workflow`.
pub fn check_name(what: &str, text: &str) -> Result<()> {
    if is_name(text) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!(
            "`{text}` is no {what} name; start with a lower-case letter, then use at most 62 lower-case letters, digits and underscores"
        ),
    ))
}

/// Says whether `text` is a handler's name: 1 to 200 characters of `[A-Za-z0-9_.:#]`.
pub fn is_handler_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= HANDLER_NAME_CHARS
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:#".contains(&byte))
}

/// Refuses what is no handler's name.
pub fn check_handler_name(text: &str) -> Result<()> {
    if is_handler_name(text) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!("`{text}` is no handler name; use 1 to {HANDLER_NAME_CHARS} letters, digits and `_ . : #`"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_pattern() {
        for good in ["a", "order_processing", "a1", &"a".repeat(63)] {
            assert!(check_name("step", good).is_ok(), "{good}");
        }
        for bad in ["", "A", "1a", "_a", "a-b", "a.b", "ä", &"a".repeat(64)] {
            let error = check_name("step", bad).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(error.message.contains("step name"), "{error}");
        }
        assert!(check_handler_name("Orders::Charge#call").is_ok());
        assert!(check_handler_name("orders charge").is_err());
        assert!(check_handler_name(&"a".repeat(201)).is_err());
    }

    #[test]
    fn references_survive_their_text() {
        let workflow: WorkflowRef = "orders.order_processing".parse().unwrap();
        assert_eq!((workflow.namespace.as_str(), workflow.name.as_str()), ("orders", "order_processing"));
        assert_eq!("plain".parse::<WorkflowRef>().unwrap().to_string(), "default.plain");
        assert!("a.b.c".parse::<WorkflowRef>().is_err());

        let task = TaskId::generate();
        assert_eq!(task.0.get_version_num(), 7);
        assert_eq!(task.to_string().to_uppercase().parse::<TaskId>().unwrap(), task);
        for step in ["charge", "import[12]", "undo:charge"] {
            let text = format!("{task}/{step}");
            let read: StepRef = text.parse().unwrap();
            assert_eq!(read.to_string(), text);
            let json = serde_json::to_string(&read).unwrap();
            assert_eq!(serde_json::from_str::<StepRef>(&json).unwrap(), read);
        }
        for bad in ["charge", "x/charge", "/a", "a/"] {
            assert!(bad.parse::<StepRef>().is_err(), "{bad}");
        }
        for bad in ["import[]", "import[01]", "import[-1]", "import[x]"] {
            assert!(format!("{task}/{bad}").parse::<StepRef>().is_err(), "{bad}");
        }
        assert!("{0199a3c2-7d1e-7c44-9f5b-2f8d4be1a0c3}".parse::<TaskId>().is_err());
    }
}
