//! Outcomes by which a step goes on without its handler: a task of its own, a signal, a time.

use std::time::Duration;

use chrono::{DateTime, Datelike, Utc};
use serde_json::json;
use tasker_engine::{Change, Claimed};
use tasker_model::id::{WorkflowRef, is_name};
use tasker_model::limits::LONGEST_WAIT;

use tasker_model::{Payload, RevisionStep, StepFailure};

use crate::outcome::rejected;

/// The code of a child or a wait that comes from a step which cannot have one: an item of a map, a range of a batch, a decision, an undo.
pub const NOT_A_PLAIN_STEP: &str = "TSK_NOT_A_PLAIN_STEP";
/// The code of a wait that is for nothing, or for longer than may be.
pub const BAD_WAIT: &str = "TSK_BAD_WAIT";

/// The step's result is that of a task.
pub(crate) fn child(workflow: &WorkflowRef, input: &Payload, step: &RevisionStep, claimed: &Claimed) -> Change {
    if let Some(refused) = not_plain("runs a child task", step, claimed) {
        return refused;
    }
    match Payload::from_value(&json!({ "workflow": workflow.to_string(), "input": input })) {
        Ok(spec) => Change::Child { spec },
        Err(error) => rejected(&error.message),
    }
}

/// The step's result is what comes.
pub(crate) fn wait(
    signal: Option<&str>,
    until: Option<DateTime<Utc>>,
    timeout_ms: Option<u64>,
    default: Option<&Payload>,
    step: &RevisionStep,
    claimed: &Claimed,
) -> Change {
    if let Some(refused) = not_plain("waits", step, claimed) {
        return refused;
    }
    let longest = u64::try_from(LONGEST_WAIT.as_millis()).unwrap_or(u64::MAX);
    let problem = match (signal, until) {
        (None, None) if timeout_ms.is_none() => Some("waits for nothing; name a signal or a time".to_owned()),
        (Some(name), _) if !is_name(name) => Some(format!(
            "waits for a signal of an impossible name; a name has letters, digits and `_` and begins with a letter: {:?}",
            name.chars().take(100).collect::<String>()
        )),
        (_, Some(until)) if !(1..=9999).contains(&until.year()) => {
            Some("waits until a moment that is not in the years 1 to 9999".to_owned())
        }
        _ if timeout_ms.is_some_and(|ms| ms > longest) => Some("waits longer than twenty years".to_owned()),
        _ => None,
    };
    if let Some(problem) = problem {
        let error = StepFailure::permanent(format!("step `{}` {problem}", step.name)).code(BAD_WAIT);
        return Change::Failure { error };
    }
    let mut spec = serde_json::Map::new();
    if let Some(signal) = signal {
        spec.insert("signal".to_owned(), signal.into());
    }
    if let Some(until) = until {
        spec.insert("until".to_owned(), until.to_rfc3339().into());
    }
    if let Some(ms) = timeout_ms {
        spec.insert("timeout_ms".to_owned(), ms.into());
    }
    if let Some(default) = default {
        spec.insert("default".to_owned(), json!(default));
    }
    match Payload::from_value(&spec) {
        // How long until a moment is the database's to say: its next look at the timers will tell.
        Ok(spec) => {
            Change::Wait { spec, due_in: timeout_ms.map(Duration::from_millis).or(until.map(|_| Duration::ZERO)) }
        }
        Err(error) => rejected(&error.message),
    }
}

fn not_plain(does: &str, step: &RevisionStep, claimed: &Claimed) -> Option<Change> {
    let what = match (&claimed.step_name, step.fan.is_some(), step.routes.is_empty()) {
        (None, false, true) => return None,
        (Some(name), _, _) if name.starts_with("undo:") => "an undo",
        (Some(_), _, _) | (None, true, _) => "one of many runs of a step",
        (None, false, false) => "a decision",
    };
    let message = format!(
        "step `{}` {does}, which {what} cannot; do it in a step of its own",
        claimed.step_name.as_ref().unwrap_or(&step.name)
    );
    Some(Change::Failure { error: StepFailure::permanent(message).code(NOT_A_PLAIN_STEP) })
}
