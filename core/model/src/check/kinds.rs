//! The rules of steps that fan out, that are tasks of their own, and that undo.

use super::input_path;
use crate::{
    definition::{DEFAULT_QUEUE, DEFAULT_TIMEOUT_MS, Definition, StepDefinition},
    diagnostic::{Code, Diagnostic},
    id::check_handler_name,
    limits,
    retry::Retry,
    source::{ITEM, RESULT, Source},
    wait::Until,
};

/// Reports kinds that exclude each other, numbers out of range, sources that lead nowhere, and what only another kind has.
pub(super) fn check(problems: &mut Vec<Diagnostic>, definition: &Definition, at: &str, step: &StepDefinition) {
    fan(problems, definition, at, step);
    child(problems, at, step);
    undo(problems, definition, at, step);
    items(problems, at, step);
}

fn fan(problems: &mut Vec<Diagnostic>, definition: &Definition, at: &str, step: &StepDefinition) {
    let mut bad = |at: String, message: String, help: &str| {
        problems.push(Diagnostic::error(Code::BadFan, at, message).help(help));
    };
    if step.map.is_some() && step.batch.is_some() {
        bad(
            format!("{at}.batch"),
            format!("step `{}` has a `map` and a `batch`", step.name),
            "a map runs once for each item of a list; a batch divides its work by itself; keep one of them",
        );
    }
    if step.max_in_flight.is_some() && step.map.is_none() {
        bad(
            format!("{at}.max_in_flight"),
            format!("step `{}` has no `map` whose items it could bound", step.name),
            "add a `map`, or write `parallel` in the `batch`",
        );
    }
    if step.fans_out() && !step.routes.is_empty() {
        bad(
            format!("{at}.routes"),
            format!("step `{}` runs many times at once and cannot decide", step.name),
            "decide in a step of its own that comes after it",
        );
    }
    let kind = if step.map.is_some() { "map" } else { "batch" };
    if step.fans_out() && !step.calls_handler() {
        bad(
            format!("{at}.{kind}"),
            format!("step `{}` calls no handler that a `{kind}` could run", step.name),
            "fan out over a step with a `call`",
        );
    }
    let most = u64::try_from(limits::MAP_ITEMS).unwrap_or(u64::MAX);
    let numbers = [
        (step.max_in_flight.map(u64::from), format!("{at}.max_in_flight"), most),
        (step.batch.as_ref().map(|batch| u64::from(batch.parallel)), format!("{at}.batch.parallel"), most),
        (step.batch.as_ref().map(|batch| batch.size), format!("{at}.batch.size"), u64::from(u32::MAX)),
    ];
    for (number, at, most) in numbers {
        if let Some(number) = number.filter(|number| *number == 0 || *number > most) {
            bad(at, format!("{number} is out of range"), &format!("it lies between 1 and {most}"));
        }
    }
    match &step.map {
        Some(Source::Item { .. }) => bad(
            format!("{at}.map"),
            format!("step `{}` takes its list from its own item", step.name),
            "take it from the input or from another step, for example `map: input.lines`",
        ),
        Some(Source::Input { path }) => {
            if let Some(schema) = definition.input.as_ref().filter(|schema| schema.is_object()) {
                input_path(problems, schema, &format!("{at}.map"), path);
            }
        }
        _ => {}
    }
}

fn child(problems: &mut Vec<Diagnostic>, step_at: &str, step: &StepDefinition) {
    if step.child.is_none() {
        return;
    }
    let foreign = [
        (!step.call.is_empty(), "call"),
        (step.wait.is_some(), "wait"),
        (!step.routes.is_empty(), "routes"),
        (step.retry != Retry::default(), "retry"),
        (step.timeout_ms != DEFAULT_TIMEOUT_MS, "timeout"),
        (step.queue != DEFAULT_QUEUE, "queue"),
        (step.config.is_some(), "config"),
    ];
    for (_, key) in foreign.into_iter().filter(|(is_given, _)| *is_given) {
        let help = match key {
            "retry" | "timeout" | "queue" => "say it of the steps of that workflow",
            "config" => "pass it in the child's input, by `with`",
            _ => "remove it, or do the work in a step of its own",
        };
        let message = format!("step `{}` is a task of its own and calls no handler: it has no `{key}`", step.name);
        problems.push(Diagnostic::error(Code::BadChild, format!("{step_at}.{key}"), message).help(help));
    }
}

fn undo(problems: &mut Vec<Diagnostic>, definition: &Definition, at: &str, step: &StepDefinition) {
    let Some(undo) = &step.undo else {
        return;
    };
    if let Err(error) = check_handler_name(undo) {
        problems.push(Diagnostic::error(Code::BadName, format!("{at}.undo"), error.message));
    }
    if step.wait.is_some() {
        let message = format!("step `{}` waits and does nothing that could be undone", step.name);
        problems.push(Diagnostic::error(Code::BadUndo, format!("{at}.undo"), message).help("remove it"));
    }
    if step.with.contains_key(RESULT) {
        let message = format!("step `{}` binds `{RESULT}`, which its undo receives from the step itself", step.name);
        problems.push(
            Diagnostic::error(Code::BadUndo, format!("{at}.with.{RESULT}"), message)
                .help("rename the parameter")
                .on_key(),
        );
    }
    if definition.step(RESULT).is_some_and(|other| other.name == step.name) {
        problems.push(
            Diagnostic::error(Code::Reserved, at, format!("a step with an `undo` cannot be called `{RESULT}`"))
                .help("choose another name")
                .on_key(),
        );
    }
}

/// Reports `item` where there is none.
fn items(problems: &mut Vec<Diagnostic>, at: &str, step: &StepDefinition) {
    let is_item = |source: &Source| matches!(source, Source::Item { .. });
    if matches!(step.wait.as_ref().and_then(|wait| wait.until.as_ref()), Some(Until::Value(Source::Item { .. }))) {
        let message = format!("step `{}` has no `{ITEM}`: it is no map and no batch", step.name);
        problems.push(
            Diagnostic::error(Code::BadWait, format!("{at}.wait.until"), message).help("name a step or the input"),
        );
    }
    for (param, _) in step.with.iter().filter(|(_, source)| is_item(source) && !step.fans_out()) {
        let message = format!("step `{}` has no `{ITEM}`: it is no map and no batch", step.name);
        problems.push(
            Diagnostic::error(Code::BadFan, format!("{at}.with.{param}"), message)
                .help("add for example `map: input.lines`, or name a step or the input"),
        );
    }
}
