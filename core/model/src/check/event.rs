//! The rules of events.

use super::bad_name;
use crate::{
    definition::Definition,
    diagnostic::{Code, Diagnostic, suggest::did_you_mean},
    event::On,
    id::is_name,
    limits,
};

/// Reports names that are none, steps that do not exist, and events that could never be published.
pub(super) fn check(problems: &mut Vec<Diagnostic>, definition: &Definition) {
    if definition.events.len() > limits::EVENTS {
        let message = format!("{} events are more than the {} allowed", definition.events.len(), limits::EVENTS);
        problems.push(Diagnostic::error(Code::TooLarge, "events", message).on_key());
        return;
    }
    for (name, event) in &definition.events {
        let at = format!("events.{name}");
        if !is_name(name) {
            problems.push(bad_name(&at, "event", name).on_key());
        }
        let mut bad = |message: String, help: &str| {
            problems.push(Diagnostic::error(Code::BadEvent, at.clone(), message).help(help).on_key());
        };
        let Some(step) = &event.step else {
            if event.on == On::Retry {
                bad(
                    format!("event `{name}` is of a retry, but a task is never tried again: only its steps are"),
                    "name the step: `on: retry, step: charge`",
                );
            }
            continue;
        };
        match definition.step(step) {
            None => {
                let names = definition.steps.iter().map(|step| step.name.as_str());
                let message = format!("event `{name}` is of step `{step}`, which does not exist");
                problems.push(
                    Diagnostic::error(Code::UnknownStep, format!("{at}.step"), message)
                        .maybe_help(did_you_mean(step, names)),
                );
            }
            Some(found) if event.on == On::Retry && found.wait.is_some() => bad(
                format!("event `{name}` is never published: step `{step}` waits and is never tried again"),
                "remove it, or publish on `success` or `failure`",
            ),
            Some(found) if event.on == On::Retry && found.retry.max_attempts == 1 => bad(
                format!("event `{name}` is never published: step `{step}` has a single attempt"),
                "give the step more attempts, for example `retry: 3`, or publish on `failure`",
            ),
            Some(_) => {}
        }
    }
}
