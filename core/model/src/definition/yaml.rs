//! Writes a definition as short YAML: one line a step, as people write it.

use serde_json::Value;
use std::fmt::Write as _;

use super::{DEFAULT_QUEUE, DEFAULT_TIMEOUT_MS, Definition, Durability, OnFailure, StepDefinition};
use crate::{duration::format_duration, fan::Batch, id::DEFAULT_NAMESPACE, retry::Retry, wait::Wait};

pub(super) fn write(definition: &Definition) -> String {
    let mut lines = vec![format!("name: {}", scalar(&definition.name))];
    if definition.namespace != DEFAULT_NAMESPACE {
        lines.push(format!("namespace: {}", scalar(&definition.namespace)));
    }
    if let Some(version) = &definition.version {
        lines.push(format!("version: {}", scalar(version)));
    }
    if let Some(description) = &definition.description {
        lines.push(format!("description: {}", scalar(description)));
    }
    if definition.on_failure == OnFailure::Continue {
        lines.push("on_failure: continue".to_owned());
    }
    if definition.durability == Durability::Relaxed {
        lines.push("durability: relaxed".to_owned());
    }
    if !definition.search.is_empty() {
        lines.push(format!("search: {}", list(&definition.search)));
    }
    if let Some(input) = &definition.input {
        lines.push(format!("input: {}", flow(input)));
    }
    if definition.steps.is_empty() {
        lines.push("steps: {}".to_owned());
    } else {
        lines.push("steps:".to_owned());
        lines.extend(definition.steps.iter().map(|step| format!("  {}: {}", scalar(&step.name), step_line(step))));
    }
    if !definition.events.is_empty() {
        lines.push("events:".to_owned());
        lines.extend(definition.events.iter().map(|(name, event)| {
            let step = event.step.iter().map(|step| format!("step: {}", scalar(step)));
            let entries: Vec<String> = std::iter::once(format!("on: {}", event.on.as_str())).chain(step).collect();
            format!("  {}: {}", scalar(name), braces(&entries))
        }));
    }
    lines.join("\n") + "\n"
}

fn step_line(step: &StepDefinition) -> String {
    let mut entries = Vec::new();
    if !step.call.is_empty() {
        entries.push(("call", scalar(&step.call)));
    }
    if let Some(wait) = &step.wait {
        entries.push(("wait", self::wait(wait)));
    }
    if let Some(child) = &step.child {
        entries.push(("child", scalar(&child.to_string())));
    }
    if let Some(map) = &step.map {
        entries.push(("map", scalar(&map.to_string())));
    }
    if let Some(in_flight) = step.max_in_flight {
        entries.push(("max_in_flight", in_flight.to_string()));
    }
    if let Some(batch) = &step.batch {
        entries.push(("batch", self::batch(batch)));
    }
    if let Some(undo) = &step.undo {
        entries.push(("undo", scalar(undo)));
    }
    if !step.with.is_empty() {
        let with =
            step.with.iter().map(|(param, source)| format!("{}: {}", scalar(param), scalar(&source.to_string())));
        entries.push(("with", braces(&with.collect::<Vec<_>>())));
    }
    if !step.after.is_empty() {
        entries.push(("after", list(&step.after)));
    }
    if !step.routes.is_empty() {
        entries.push(("routes", list(&step.routes)));
    }
    if step.retry != Retry::default() {
        entries.push(("retry", retry(&step.retry)));
    }
    if step.timeout_ms != DEFAULT_TIMEOUT_MS {
        entries.push(("timeout", format_duration(step.timeout_ms)));
    }
    if step.queue != DEFAULT_QUEUE {
        entries.push(("queue", scalar(&step.queue)));
    }
    if let Some(priority) = step.priority {
        entries.push(("priority", priority.as_str().to_owned()));
    }
    if let Some(config) = &step.config {
        entries.push(("config", flow(config)));
    }
    braces(&entries.into_iter().map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>())
}

fn wait(wait: &Wait) -> String {
    let entries = [
        wait.for_ms.map(|ms| format!("for: {}", format_duration(ms))),
        wait.until.as_ref().map(|until| format!("until: {}", scalar(&until.to_string()))),
        wait.signal.as_ref().map(|signal| format!("signal: {}", scalar(signal))),
        wait.payload.as_ref().map(|payload| format!("payload: {}", flow(payload))),
        wait.timeout_ms.map(|ms| format!("timeout: {}", format_duration(ms))),
        wait.default.as_ref().map(|default| format!("default: {}", flow(default))),
    ];
    braces(&entries.into_iter().flatten().collect::<Vec<_>>())
}

fn batch(batch: &Batch) -> String {
    let default = Batch::default();
    let entries = [
        (batch.size != default.size).then(|| format!("size: {}", batch.size)),
        (batch.parallel != default.parallel).then(|| format!("parallel: {}", batch.parallel)),
        (batch.on_failure != default.on_failure).then(|| format!("on_failure: {}", batch.on_failure.as_str())),
    ];
    braces(&entries.into_iter().flatten().collect::<Vec<_>>())
}

fn retry(retry: &Retry) -> String {
    if *retry == Retry::attempts(retry.max_attempts) {
        return retry.max_attempts.to_string();
    }
    let default = Retry::default();
    let entries = [
        (retry.max_attempts != default.max_attempts).then(|| format!("attempts: {}", retry.max_attempts)),
        (retry.backoff != default.backoff).then(|| format!("backoff: {}", retry.backoff.as_str())),
        (retry.base_ms != default.base_ms).then(|| format!("base: {}", format_duration(retry.base_ms))),
        (retry.cap_ms != default.cap_ms).then(|| format!("cap: {}", format_duration(retry.cap_ms))),
        (retry.jitter != default.jitter).then(|| format!("jitter: {}", retry.jitter)),
    ];
    braces(&entries.into_iter().flatten().collect::<Vec<_>>())
}

fn braces(entries: &[String]) -> String {
    format!("{{ {} }}", entries.join(", "))
}

fn list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| scalar(item)).collect();
    format!("[{}]", items.join(", "))
}

fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| format!("{}: {}", scalar(key), flow(value)));
            braces(&entries.collect::<Vec<_>>())
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// Writes text plainly where nothing could read it as anything else, otherwise in double quotes as JSON does.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 10] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan"];
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain {
        return text.to_owned();
    }
    // JSON leaves these unescaped; YAML takes the first two for line breaks and refuses the others.
    let mut quoted = String::new();
    for c in Value::from(text).to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted
}
