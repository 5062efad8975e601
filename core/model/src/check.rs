//! The rules that a definition must keep by itself, wherever it comes from.

use std::collections::HashSet;

use serde_json::Value;

use crate::{
    definition::{Definition, StepDefinition},
    diagnostic::{Code, Diagnostic, suggest::did_you_mean},
    duration::format_duration,
    graph::Graph,
    id::{check_handler_name, is_name},
    limits,
    retry::Backoff,
    schema::{self, Found},
    source::{CTX, INPUT, ITEM, Source},
};

mod event;
mod kinds;
mod wait;

/// Reports everything that is wrong with a definition; returns its graph if nothing is.
pub(crate) fn check(definition: &Definition) -> Result<Graph, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    name(&mut problems, "name", "workflow", &definition.name);
    name(&mut problems, "namespace", "namespace", &definition.namespace);
    input(&mut problems, definition);
    match definition.steps.len() {
        0 => problems.push(
            Diagnostic::error(Code::NoSteps, "steps", "a workflow needs at least one step")
                .help("add one, for example `charge: { call: orders.charge }`"),
        ),
        count if count > limits::STEPS => problems.push(
            Diagnostic::error(
                Code::TooLarge,
                "steps",
                format!("{count} steps are more than the {} allowed", limits::STEPS),
            )
            .help("fan out over a list with a map step, or divide the workflow")
            .on_key(),
        ),
        _ => {}
    }
    let mut names = HashSet::new();
    for step in &definition.steps {
        if !names.insert(step.name.as_str()) {
            problems.push(
                Diagnostic::error(
                    Code::Duplicate,
                    format!("steps.{}", step.name),
                    format!("step `{}` is defined twice", step.name),
                )
                .help("remove or rename one"),
            );
        }
        self::step(&mut problems, definition, step);
    }
    event::check(&mut problems, definition);
    if definition.steps.len() > limits::STEPS {
        return Err(problems);
    }
    match Graph::build(definition) {
        Ok(graph) if problems.is_empty() => Ok(graph),
        Ok(_) => Err(problems),
        Err(more) => {
            problems.extend(more);
            Err(problems)
        }
    }
}

fn name(problems: &mut Vec<Diagnostic>, at: &str, what: &str, text: &str) {
    if !is_name(text) {
        problems.push(bad_name(at, what, text));
    }
}

/// Reports what is no name, and proposes the name that it could be.
fn bad_name(at: &str, what: &str, text: &str) -> Diagnostic {
    let mut proposal = String::new();
    for c in text.chars() {
        if c.is_ascii_uppercase() && proposal.ends_with(|last: char| last.is_ascii_lowercase()) {
            proposal.push('_');
        }
        proposal.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    }
    let help = if is_name(&proposal) {
        format!("write `{proposal}`")
    } else {
        "start with a lower-case letter; then at most 62 lower-case letters, digits and underscores".to_owned()
    };
    Diagnostic::error(Code::BadName, at, format!("`{text}` is no {what} name")).help(help)
}

fn input(problems: &mut Vec<Diagnostic>, definition: &Definition) {
    let Some(schema) = &definition.input else {
        return;
    };
    if !schema.is_object() {
        problems.push(
            Diagnostic::error(Code::BadSchema, "input", "the input's schema is no mapping")
                .help("write a JSON Schema, for example `{ type: object, properties: { email: { type: string } } }`"),
        );
        return;
    }
    if schema.get("type").is_some_and(|kind| kind != "object") {
        problems.push(
            Diagnostic::error(Code::BadSchema, "input.type", "the input of a task is always an object")
                .help("write `type: object`"),
        );
    }
    if let Err(error) = jsonschema::validator_for(schema) {
        let inside = error.instance_path().to_string().replace('/', ".");
        let message = format!("the input's schema is no JSON Schema: {error}");
        problems.push(Diagnostic::error(Code::BadSchema, format!("input{inside}"), message));
        return;
    }
    for (at, field) in definition.search.iter().enumerate() {
        let path: Vec<String> = field.split('.').map(str::to_owned).collect();
        input_path(problems, schema, &format!("search.{at}"), &path);
    }
}

/// Reports a path that the input's schema rules out.
fn input_path(problems: &mut Vec<Diagnostic>, schema: &Value, at: &str, path: &[String]) {
    if let Found::Nothing { segment, fields } = schema::look_up(schema, path) {
        let place = path[..segment].iter().fold(INPUT.to_owned(), |place, segment| format!("{place}.{segment}"));
        let missing = &path[segment];
        problems.push(
            Diagnostic::error(Code::NoInputField, at, format!("`{place}` has no field `{missing}`"))
                .maybe_help(did_you_mean(missing, fields)),
        );
    }
}

fn step(problems: &mut Vec<Diagnostic>, definition: &Definition, step: &StepDefinition) {
    let at = format!("steps.{}", step.name);
    if !is_name(&step.name) {
        problems.push(bad_name(&at, "step", &step.name).on_key());
    } else if [INPUT, CTX, ITEM].contains(&step.name.as_str()) {
        problems.push(
            Diagnostic::error(
                Code::Reserved,
                &at,
                format!("no step may be called `{}`: the word has a meaning of its own", step.name),
            )
            .help("choose another name")
            .on_key(),
        );
    }
    if step.wait.is_some() {
        wait::check(problems, definition, &at, step);
    } else if step.child.is_some() {
        // It has no handler.
    } else if let Err(error) = check_handler_name(&step.call) {
        problems.push(Diagnostic::error(Code::BadName, format!("{at}.call"), error.message));
    }
    kinds::check(problems, definition, &at, step);
    name(problems, &format!("{at}.queue"), "queue", &step.queue);
    let mut listed = HashSet::new();
    for (position, parent) in step.after.iter().enumerate() {
        if !listed.insert(parent) {
            problems.push(
                Diagnostic::error(
                    Code::Duplicate,
                    format!("{at}.after.{position}"),
                    format!("`{parent}` is listed twice"),
                )
                .help("remove one"),
            );
        }
    }
    routes(problems, definition, &at, step);
    if step.with.contains_key(CTX) {
        problems.push(
            Diagnostic::error(
                Code::Reserved,
                format!("{at}.with.{CTX}"),
                format!("`{CTX}` is the step's context and takes no value"),
            )
            .help("remove it, or rename the parameter")
            .on_key(),
        );
    }
    if let Some(schema) = definition.input.as_ref().filter(|schema| schema.is_object()) {
        for (param, source) in &step.with {
            if let Source::Input { path } = source {
                input_path(problems, schema, &format!("{at}.with.{param}"), path);
            }
        }
    }
    timing(problems, &at, step);
}

/// Reports routes that are no steps, and those that would not wait for their decision.
fn routes(problems: &mut Vec<Diagnostic>, definition: &Definition, at: &str, step: &StepDefinition) {
    let mut listed = HashSet::new();
    for (position, route) in step.routes.iter().enumerate() {
        let at = format!("{at}.routes.{position}");
        if !listed.insert(route) {
            problems
                .push(Diagnostic::error(Code::Duplicate, at, format!("`{route}` is listed twice")).help("remove one"));
            continue;
        }
        match definition.step(route) {
            None => {
                let others = definition.steps.iter().map(|other| other.name.as_str()).filter(|name| *name != step.name);
                let message = format!("step `{}` routes to `{route}`, which does not exist", step.name);
                problems
                    .push(Diagnostic::error(Code::UnknownStep, at, message).maybe_help(did_you_mean(route, others)));
            }
            Some(_) if *route == step.name => {
                let message = format!("step `{route}` routes to itself");
                problems.push(Diagnostic::error(Code::BadRoute, at, message).help("name a step that comes after it"));
            }
            Some(target) if !target.dependencies().contains(&step.name.as_str()) => {
                let message = format!("step `{route}` does not depend on `{}`, which routes to it", step.name);
                let help = format!("write `{route}: {{ after: [{}] }}`, or take its result with `with`", step.name);
                problems.push(Diagnostic::error(Code::BadRoute, at, message).help(help));
            }
            Some(_) => {}
        }
    }
}

fn timing(problems: &mut Vec<Diagnostic>, at: &str, step: &StepDefinition) {
    let longest = u64::try_from(limits::LONGEST_DELAY.as_millis()).unwrap_or(u64::MAX);
    let longest_text = format_duration(longest);
    if step.timeout_ms == 0 || step.timeout_ms > longest {
        problems.push(
            Diagnostic::error(Code::BadDuration, format!("{at}.timeout"), "the timeout is out of range")
                .help(format!("it lies between 1ms and {longest_text}")),
        );
    }
    let retry = &step.retry;
    if retry.max_attempts == 0 || retry.max_attempts > limits::ATTEMPTS {
        problems.push(
            Diagnostic::error(
                Code::BadRetry,
                format!("{at}.retry.attempts"),
                format!("{} attempts are out of range", retry.max_attempts),
            )
            .help(format!("it counts all attempts, the first included: 1 to {}", limits::ATTEMPTS)),
        );
    }
    if retry.cap_ms > longest || retry.base_ms > longest {
        problems.push(
            Diagnostic::error(Code::BadRetry, format!("{at}.retry"), "the delay between attempts is out of range")
                .help(format!("it may be at most {longest_text}")),
        );
    } else if retry.base_ms > retry.cap_ms && retry.backoff != Backoff::None {
        let message = format!(
            "the first delay ({}) is longer than the longest ({})",
            format_duration(retry.base_ms),
            format_duration(retry.cap_ms)
        );
        problems.push(
            Diagnostic::error(Code::BadRetry, format!("{at}.retry"), message).help("raise `cap` or lower `base`"),
        );
    }
}
