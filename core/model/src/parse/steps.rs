//! The steps of a definition.

use serde_json::Number;

use super::{
    node::{Key, Kind, Node},
    read::{Reader, below},
    scalar::Scalar,
};
use crate::{
    definition::{DEFAULT_QUEUE, DEFAULT_TIMEOUT_MS, Priority, StepDefinition},
    diagnostic::{Code, Diagnostic},
    duration::parse_duration,
    fan::{Batch, Failures},
    id::WorkflowRef,
    retry::{Backoff, Retry},
    source::Source,
    wait::{Until, Wait},
};

const STEP_KEYS: [&str; 15] = [
    "call",
    "wait",
    "child",
    "map",
    "max_in_flight",
    "batch",
    "undo",
    "with",
    "after",
    "routes",
    "retry",
    "timeout",
    "queue",
    "priority",
    "config",
];
const BATCH_KEYS: [&str; 3] = ["size", "parallel", "on_failure"];
const WAIT_KEYS: [&str; 6] = ["for", "until", "signal", "payload", "timeout", "default"];
const RETRY_KEYS: [&str; 5] = ["attempts", "backoff", "base", "cap", "jitter"];

impl Reader {
    pub(super) fn steps(&mut self, node: &Node) -> Vec<StepDefinition> {
        let help = "write `steps: { charge: { call: orders.charge } }`";
        let entries = self.entries(node, "steps", "the steps by their names", help).unwrap_or_default();
        entries.into_iter().map(|(key, node)| self.step(key, node)).collect()
    }

    fn step(&mut self, name: &Key, node: &Node) -> StepDefinition {
        let mut step = StepDefinition::new(name.text.clone(), "");
        let at = below("steps", &name.text);
        let help = match &node.kind {
            Kind::Scalar(text, _) if !text.is_empty() => {
                format!("write `{}: {{ call: {text} }}`", name.text)
            }
            _ => format!("write `{}: {{ call: the.handler }}`", name.text),
        };
        let Some(entries) = self.entries(node, &at, "a step", &help) else {
            return step;
        };
        let call = below(&at, "call");
        if !entries.iter().any(|(key, _)| key.text == "wait" || key.text == "child") {
            self.required(
                &entries,
                "call",
                &call,
                name.place,
                &format!("step `{}` needs a `call`: the handler's name", name.text),
            );
        }
        for (key, node) in entries {
            let at = below(&at, &key.text);
            match key.text.as_str() {
                "call" => step.call = self.text(node, &at, "a handler's name").unwrap_or_default(),
                "wait" => step.wait = Some(self.wait(node, &at)),
                "child" => step.child = self.child(node, &at),
                "map" => step.map = self.list(node, &at),
                "max_in_flight" => step.max_in_flight = self.count(node, &at),
                "batch" => step.batch = Some(self.batch(node, &at)),
                "undo" => step.undo = self.text(node, &at, "a handler's name"),
                "with" => self.with(&mut step, node, &at),
                "after" => step.after = self.texts(node, &at, "a step's name", "after: [charge]"),
                "routes" => step.routes = self.texts(node, &at, "a step's name", "routes: [review, approve]"),
                "retry" => step.retry = self.retry(node, &at),
                "timeout" => {
                    step.timeout_ms = self.duration(node, &at).unwrap_or(DEFAULT_TIMEOUT_MS);
                }
                "queue" => {
                    step.queue = self.text(node, &at, "a name").unwrap_or_else(|| DEFAULT_QUEUE.to_owned());
                }
                "priority" => step.priority = self.choice(node, &at, &Priority::NAMES),
                // Null is none here, as it is in JSON.
                "config" => step.config = self.value(node, &at).filter(|config| !config.is_null()),
                _ => self.unknown_key(key, &at, "a step", &STEP_KEYS),
            }
        }
        step
    }

    fn with(&mut self, step: &mut StepDefinition, node: &Node, at: &str) {
        let help = "write for example `with: { total: validate.total }`";
        for (param, node) in self.entries(node, at, "the parameters by their names", help).unwrap_or_default() {
            let at = below(at, &param.text);
            let Some(text) = self.text(node, &at, "a source") else {
                continue;
            };
            if let Ok(source) = text.parse::<Source>() {
                step.with.insert(param.text.clone(), source);
            } else {
                let problem = Diagnostic::error(Code::BadSource, at, format!("`{text}` names no value"));
                self.report(
                    node.place,
                    problem
                        .help("write `step`, `step.field`, `input` or `input.field`; fixed values belong in `config`"),
                );
            }
        }
    }

    fn child(&mut self, node: &Node, at: &str) -> Option<WorkflowRef> {
        let text = self.text(node, at, "a workflow's name")?;
        if let Ok(child) = text.parse() {
            return Some(child);
        }
        let problem = Diagnostic::error(Code::BadChild, at, format!("`{text}` is no workflow's name"));
        self.report(node.place, problem.help("write `child: shipments`, or `child: warehouse.shipments`"));
        // Some name, so that the step is not also told that it calls nothing.
        "unreadable".parse().ok()
    }

    fn list(&mut self, node: &Node, at: &str) -> Option<Source> {
        let text = self.text(node, at, "where the list is")?;
        if let Ok(source) = text.parse() {
            return Some(source);
        }
        let problem = Diagnostic::error(Code::BadSource, at, format!("`{text}` names no list"));
        self.report(node.place, problem.help("write `map: validate.items` or `map: input.lines`"));
        None
    }

    fn batch(&mut self, node: &Node, batch_at: &str) -> Batch {
        let mut batch = Batch::default();
        let help = "write `batch: { size: 1000, parallel: 4, on_failure: continue }`";
        for (key, node) in self.entries(node, batch_at, "how the batch runs", help).unwrap_or_default() {
            let at = below(batch_at, &key.text);
            match key.text.as_str() {
                "size" => batch.size = self.count(node, &at).unwrap_or(batch.size),
                "parallel" => batch.parallel = self.count(node, &at).unwrap_or(batch.parallel),
                "on_failure" => {
                    batch.on_failure = self.choice(node, &at, &Failures::NAMES).unwrap_or(batch.on_failure);
                }
                _ => self.unknown_key(key, &at, "a batch", &BATCH_KEYS),
            }
        }
        batch
    }

    /// A whole number.
    fn count<N: TryFrom<u64>>(&mut self, node: &Node, at: &str) -> Option<N> {
        if let Kind::Scalar(text, is_plain) = &node.kind
            && let Scalar::Number(number) = Scalar::of(text, *is_plain)
            && let Some(count) = number.as_u64().and_then(|count| N::try_from(count).ok())
        {
            return Some(count);
        }
        let problem = Diagnostic::error(Code::BadFan, at, "this is counted by a whole number");
        self.report(node.place, problem.help("write for example `20`"));
        None
    }

    fn wait(&mut self, node: &Node, wait_at: &str) -> Wait {
        let mut wait = Wait::default();
        let help = "write `wait: { for: 1h }`, `wait: { until: input.pickup_at }` or `wait: { signal: approval, timeout: 3d }`";
        for (key, node) in self.entries(node, wait_at, "what to wait for", help).unwrap_or_default() {
            let at = below(wait_at, &key.text);
            match key.text.as_str() {
                "for" => wait.for_ms = self.duration(node, &at),
                "until" => {
                    let text = self.text(node, &at, "a time or where it stands").unwrap_or_default();
                    match text.parse::<Until>() {
                        Ok(until) => wait.until = Some(until),
                        Err(_) if text.is_empty() => {}
                        Err(error) => {
                            self.report(node.place, Diagnostic::error(Code::BadWait, &at, error.message));
                            // That it then waits for nothing is no mistake of its own.
                            self.reported.insert(wait_at.to_owned());
                        }
                    }
                }
                "signal" => wait.signal = self.text(node, &at, "the signal's name"),
                "payload" => wait.payload = self.value(node, &at).filter(|schema| !schema.is_null()),
                "timeout" => wait.timeout_ms = self.duration(node, &at),
                "default" => wait.default = self.value(node, &at),
                _ => {
                    self.unknown_key(key, &at, "a wait", &WAIT_KEYS);
                    self.reported.insert(wait_at.to_owned());
                }
            }
        }
        wait
    }

    fn retry(&mut self, node: &Node, at: &str) -> Retry {
        let mut retry = Retry::default();
        if let Kind::Scalar(..) = node.kind {
            self.places.insert(below(at, "attempts"), (None, node.place));
            retry.max_attempts = self.attempts(node, at).unwrap_or(retry.max_attempts);
            return retry;
        }
        let help =
            "write `retry: 5`, or `retry: { attempts: 5, backoff: exponential, base: 1s, cap: 5m, jitter: true }`";
        for (key, node) in self.entries(node, at, "a number of attempts or a policy", help).unwrap_or_default() {
            let at = below(at, &key.text);
            match key.text.as_str() {
                "attempts" => {
                    retry.max_attempts = self.attempts(node, &at).unwrap_or(retry.max_attempts);
                }
                "backoff" => {
                    retry.backoff = self.choice(node, &at, &Backoff::NAMES).unwrap_or(retry.backoff);
                }
                "base" => retry.base_ms = self.duration(node, &at).unwrap_or(retry.base_ms),
                "cap" => retry.cap_ms = self.duration(node, &at).unwrap_or(retry.cap_ms),
                "jitter" => {
                    retry.jitter = self.choice(node, &at, &[("true", true), ("false", false)]).unwrap_or(retry.jitter);
                }
                _ => self.unknown_key(key, &at, "a retry policy", &RETRY_KEYS),
            }
        }
        retry
    }

    fn attempts(&mut self, node: &Node, at: &str) -> Option<u32> {
        if let Kind::Scalar(text, is_plain) = &node.kind
            && let Scalar::Number(number) = Scalar::of(text, *is_plain)
            && let Some(attempts) = number.as_u64().and_then(|attempts| u32::try_from(attempts).ok())
        {
            return Some(attempts);
        }
        let problem =
            Diagnostic::error(Code::BadRetry, at, "attempts are counted by a whole number, the first included");
        self.report(node.place, problem.help("write for example `retry: 5`; `retry: 1` is a single attempt"));
        None
    }

    fn duration(&mut self, node: &Node, at: &str) -> Option<u64> {
        let (found, help) = match &node.kind {
            Kind::Scalar(text, is_plain) => match Scalar::of(text, *is_plain) {
                Scalar::Text(text) => match parse_duration(text) {
                    Some(ms) => return Some(ms),
                    None => (format!("`{text}`"), "write for example `30s`, `5m`, `1h30m` or `250ms`".to_owned()),
                },
                Scalar::Number(number) => (format!("`{number}`"), unit_help(&number)),
                scalar => (scalar.describe().to_owned(), "write for example `30s`".to_owned()),
            },
            _ => ("this".to_owned(), "write for example `30s`".to_owned()),
        };
        self.report(node.place, Diagnostic::error(Code::BadDuration, at, format!("{found} is no duration")).help(help));
        None
    }
}

/// A bare number has no unit; which one was meant, the reader knows.
fn unit_help(number: &Number) -> String {
    match number.as_u64() {
        Some(number) => format!("give the unit: `{number}s` or `{number}ms`"),
        None => "write whole numbers with units, for example `1m30s`".to_owned(),
    }
}
