//! The rules of a step that waits.

use super::{bad_name, input_path};
use crate::{
    definition::{DEFAULT_QUEUE, DEFAULT_TIMEOUT_MS, Definition, StepDefinition},
    diagnostic::{Code, Diagnostic},
    duration::format_duration,
    id::is_name,
    limits,
    retry::Retry,
    source::Source,
    wait::{Until, Wait},
};

/// Reports a wait for nothing or for several things, what only a handler has, and what could never come true.
pub(super) fn check(problems: &mut Vec<Diagnostic>, definition: &Definition, step_at: &str, step: &StepDefinition) {
    let Some(wait) = &step.wait else {
        return;
    };
    let at = format!("{step_at}.wait");
    let mut bad = |at: String, message: String, help: &str| {
        problems.push(Diagnostic::error(Code::BadWait, at, message).help(help));
    };
    let what = [(wait.for_ms.is_some(), "for"), (wait.until.is_some(), "until"), (wait.signal.is_some(), "signal")];
    let what: Vec<&str> = what.into_iter().filter_map(|(is_given, key)| is_given.then_some(key)).collect();
    match what[..] {
        [_] => {}
        [] => bad(
            at.clone(),
            format!("step `{}` waits for nothing", step.name),
            "give one of `for: 1h`, `until: input.pickup_at` and `signal: approval`",
        ),
        _ => bad(
            at.clone(),
            format!("step `{}` waits for `{}` at once", step.name, what.join("` and `")),
            "keep one of them; a signal that may not come has a `timeout`",
        ),
    }
    let foreign = [
        (!step.call.is_empty(), "call"),
        (step.child.is_some(), "child"),
        (!step.with.is_empty(), "with"),
        (!step.routes.is_empty(), "routes"),
        (step.retry != Retry::default(), "retry"),
        (step.timeout_ms != DEFAULT_TIMEOUT_MS, "timeout"),
        (step.queue != DEFAULT_QUEUE, "queue"),
        (step.priority.is_some(), "priority"),
        (step.config.is_some(), "config"),
    ];
    for (_, key) in foreign.into_iter().filter(|(is_given, _)| *is_given) {
        let help = match key {
            "timeout" => "write it in the wait: `wait: { signal: approval, timeout: 3d }`",
            "with" => "write `after: [..]` to wait for steps first",
            _ => "remove it, or do the work in a step of its own that comes after this one",
        };
        bad(
            format!("{step_at}.{key}"),
            format!("step `{}` waits and calls no handler: it has no `{key}`", step.name),
            help,
        );
    }
    if wait.signal.is_none() {
        for (_, key) in [(wait.payload.is_some(), "payload"), (wait.timeout_ms.is_some(), "timeout")]
            .into_iter()
            .filter(|(is_given, _)| *is_given)
        {
            bad(format!("{at}.{key}"), format!("only a signal has a `{key}`"), "remove it, or name a `signal`");
        }
    } else if wait.default.is_some() && wait.timeout_ms.is_none() {
        bad(
            format!("{at}.default"),
            "the default would never be taken: the signal may take for ever".to_owned(),
            "add a `timeout`, for example `timeout: 3d`",
        );
    }
    values(problems, definition, &at, wait);
}

/// Reports durations out of range, a signal's name that is none, and schemas and paths that lead nowhere.
fn values(problems: &mut Vec<Diagnostic>, definition: &Definition, at: &str, wait: &Wait) {
    let longest = u64::try_from(limits::LONGEST_WAIT.as_millis()).unwrap_or(u64::MAX);
    for (ms, key) in [(wait.for_ms, "for"), (wait.timeout_ms, "timeout")] {
        if ms.is_some_and(|ms| ms == 0 || ms > longest) {
            problems.push(
                Diagnostic::error(Code::BadDuration, format!("{at}.{key}"), "a step cannot wait that long")
                    .help(format!("it lies between 1ms and {}", format_duration(longest))),
            );
        }
    }
    if let Some(signal) = wait.signal.as_deref().filter(|signal| !is_name(signal)) {
        problems.push(bad_name(&format!("{at}.signal"), "signal", signal));
    }
    if let Some(schema) = &wait.payload
        && let Err(error) = jsonschema::validator_for(schema)
    {
        let message = format!("the payload's schema is no JSON Schema: {error}");
        problems.push(Diagnostic::error(Code::BadSchema, format!("{at}.payload"), message));
    } else if let (Some(default), Some(schema)) = (&wait.default, &wait.payload)
        && let Ok(validator) = jsonschema::validator_for(schema)
        && let Err(error) = validator.validate(default)
    {
        let message = format!("the default is not what the payload's schema allows: {error}");
        problems.push(
            Diagnostic::error(Code::BadWait, format!("{at}.default"), message)
                .help("whoever takes the result relies on the schema; change one of them"),
        );
    }
    if let (Some(Until::Value(Source::Input { path })), Some(schema)) =
        (&wait.until, definition.input.as_ref().filter(|schema| schema.is_object()))
    {
        input_path(problems, schema, &format!("{at}.until"), path);
    }
}
