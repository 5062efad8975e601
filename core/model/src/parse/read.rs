//! From a tree to a definition, noting everything that has the wrong shape and going on with what is left.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{
    node::{Key, Kind, Node, Place},
    scalar::Scalar,
};
use crate::{
    definition::{Definition, Durability, OnFailure},
    diagnostic::{
        Code, Diagnostic,
        suggest::{SUGGESTIONS, did_you_mean, nearest},
    },
    id::DEFAULT_NAMESPACE,
};

const WORKFLOW_KEYS: [&str; 10] =
    ["name", "namespace", "version", "description", "input", "on_failure", "durability", "search", "steps", "events"];

/// What other tools call our keys; no spelling is near enough to suggest them.
const SYNONYMS: [(&str, &str); 14] = [
    ("depends_on", "after"),
    ("dependencies", "after"),
    ("needs", "after"),
    ("handler", "call"),
    ("uses", "call"),
    ("run", "call"),
    ("task", "call"),
    ("inputs", "with"),
    ("args", "with"),
    ("params", "with"),
    ("tasks", "steps"),
    ("jobs", "steps"),
    ("id", "name"),
    ("schema", "input"),
];

/// Collects mistakes and remembers where everything stands.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Diagnostic>,
    /// The key, if it has one, and the value of each place.
    pub(super) places: HashMap<String, (Option<Place>, Place)>,
    pub(super) reported: HashSet<String>,
}

impl Reader {
    pub(super) fn definition(&mut self, root: &Node) -> Definition {
        let mut definition = Definition::new("");
        self.places.insert(String::new(), (None, root.place));
        if let Kind::Scalar(text, true) = &root.kind
            && text.is_empty()
        {
            let problem = Diagnostic::error(Code::Missing, "", "the file is empty");
            self.report(root.place, problem.help("a workflow needs `name` and `steps`"));
            return definition;
        }
        let Some(entries) = self.entries(root, "", "a workflow", "write `name: ...` and `steps: ...`") else {
            return definition;
        };
        self.required(&entries, "name", "name", root.place, "the workflow needs a `name`");
        self.required(&entries, "steps", "steps", root.place, "the workflow needs `steps`");
        for (key, node) in entries {
            let at = key.text.as_str();
            match at {
                "name" => definition.name = self.text(node, at, "a name").unwrap_or_default(),
                "namespace" => {
                    definition.namespace =
                        self.text(node, at, "a name").unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
                }
                "version" => definition.version = self.text(node, at, "text"),
                "description" => definition.description = self.text(node, at, "text"),
                "input" => definition.input = self.value(node, at),
                "on_failure" => {
                    let choices = [("fail_fast", OnFailure::FailFast), ("continue", OnFailure::Continue)];
                    definition.on_failure = self.choice(node, at, &choices).unwrap_or_default();
                }
                "durability" => {
                    let choices = [("strict", Durability::Strict), ("relaxed", Durability::Relaxed)];
                    definition.durability = self.choice(node, at, &choices).unwrap_or_default();
                }
                "search" => {
                    definition.search = self.texts(node, at, "an input field", "search: [order_id]");
                }
                "steps" => definition.steps = self.steps(node),
                "events" => definition.events = self.events(node),
                _ => self.unknown_key(key, at, "a workflow", &WORKFLOW_KEYS),
            }
        }
        definition
    }

    /// Ties the findings of the rules to the text.
    pub(super) fn adopt(&mut self, findings: Vec<Diagnostic>) {
        if self.reported.contains("") {
            return;
        }
        for finding in findings {
            let mut place = finding.at.as_str();
            let mut is_reported = self.reported.contains(place);
            // A place that the text does not have belongs to the nearest one above it, named by its key.
            let mut found =
                self.places.get(place).map(|(key, value)| if finding.on_key { key.unwrap_or(*value) } else { *value });
            while let Some((above, _)) = place.rsplit_once('.').or((!place.is_empty()).then_some(("", place))) {
                place = above;
                is_reported |= !place.is_empty() && self.reported.contains(place);
                found = found.or_else(|| self.places.get(place).map(|(key, value)| key.unwrap_or(*value)));
            }
            if !is_reported {
                let place = found.unwrap_or(Place { line: 1, column: 1, length: 1 });
                self.problems.push(place.mark(finding));
            }
        }
    }

    pub(super) fn report(&mut self, place: Place, problem: Diagnostic) {
        self.reported.insert(problem.at.clone());
        self.problems.push(place.mark(problem));
    }

    fn wrong_type(&mut self, node: &Node, at: &str, expected: &str, help: &str) {
        let found = match &node.kind {
            Kind::Scalar(text, is_plain) => Scalar::of(text, *is_plain).describe(),
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
            // Reported where it was refused.
            Kind::Broken => {
                self.reported.insert(at.to_owned());
                return;
            }
        };
        let what = if at.is_empty() { "the file" } else { at };
        let problem =
            Diagnostic::error(Code::WrongType, at, format!("`{what}` must be {expected}, here it is {found}"));
        self.report(node.place, if help.is_empty() { problem } else { problem.help(help) });
    }

    /// Returns the entries of a mapping, each key once, and remembers their places.
    pub(super) fn entries<'n>(
        &mut self,
        node: &'n Node,
        at: &str,
        expected: &str,
        help: &str,
    ) -> Option<Vec<(&'n Key, &'n Node)>> {
        let Kind::Map(entries) = &node.kind else {
            self.wrong_type(node, at, &format!("{expected}, a mapping"), help);
            return None;
        };
        let mut seen = HashMap::new();
        let mut kept = Vec::new();
        for (key, value) in entries {
            if let Some(first) = seen.insert(key.text.as_str(), key.place.line) {
                let what = if at == "steps" { "step" } else { "key" };
                let message = format!("{what} `{}` is written twice, first in line {first}", key.text);
                let problem = Diagnostic::error(Code::Duplicate, "", message).help("remove or rename one");
                self.problems.push(key.place.mark(problem));
                continue;
            }
            self.places.insert(below(at, &key.text), (Some(key.place), value.place));
            kept.push((key, value));
        }
        Some(kept)
    }

    pub(super) fn required(&mut self, entries: &[(&Key, &Node)], key: &str, at: &str, place: Place, message: &str) {
        if !entries.iter().any(|(found, _)| found.text == key) {
            // A misspelt key is a mistake of its own; whoever corrects it has the required one.
            let misspelt = entries.iter().any(|(found, _)| intended(&found.text, &[key]) == Some(key));
            if misspelt {
                self.reported.insert(at.to_owned());
            } else {
                self.report(place, Diagnostic::error(Code::Missing, at, message));
            }
        }
    }

    pub(super) fn unknown_key(&mut self, key: &Key, at: &str, owner: &str, known: &[&'static str]) {
        let help = match intended(&key.text, known) {
            _ if self.problems.len() > SUGGESTIONS => None,
            Some(meant) => {
                // What the rules miss at the right key is a consequence of this.
                let parent = at.strip_suffix(key.text.as_str()).unwrap_or_default();
                self.reported.insert(format!("{parent}{meant}"));
                Some(format!("did you mean `{meant}`?"))
            }
            None => did_you_mean(&key.text, known.iter().copied()),
        };
        let problem =
            Diagnostic::error(Code::UnknownKey, at, format!("{owner} has no key `{}`", key.text)).maybe_help(help);
        self.report(key.place, problem);
    }

    pub(super) fn text(&mut self, node: &Node, at: &str, expected: &str) -> Option<String> {
        match &node.kind {
            Kind::Scalar(text, is_plain) => match Scalar::of(text, *is_plain) {
                Scalar::Text(text) => return Some(text.to_owned()),
                Scalar::Null => {
                    self.wrong_type(node, at, expected, "give a value, or remove the key");
                }
                _ => self.wrong_type(node, at, expected, &format!("put it in quotes: \"{text}\"")),
            },
            _ => self.wrong_type(node, at, expected, ""),
        }
        None
    }

    /// Reads a list of texts.
    pub(super) fn texts(&mut self, node: &Node, at: &str, expected: &str, example: &str) -> Vec<String> {
        let Kind::List(items) = &node.kind else {
            self.wrong_type(node, at, "a list", &format!("write for example `{example}`"));
            return Vec::new();
        };
        let mut texts = Vec::new();
        for item in items {
            // The position counts what is kept, as the rules count it.
            let place = below(at, &texts.len().to_string());
            self.places.insert(place.clone(), (None, item.place));
            match self.text(item, &place, expected) {
                Some(text) => texts.push(text),
                // What follows takes this position and must not be taken for reported.
                None => {
                    self.reported.remove(&place);
                }
            }
        }
        texts
    }

    pub(super) fn choice<T: Copy>(&mut self, node: &Node, at: &str, choices: &[(&'static str, T)]) -> Option<T> {
        let names = choices.iter().map(|(name, _)| *name);
        let listed = names.clone().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let Kind::Scalar(text, _) = &node.kind else {
            self.wrong_type(node, at, &format!("one of {listed}"), "");
            return None;
        };
        let found = choices.iter().find(|(name, _)| name == text).map(|(_, choice)| *choice);
        if found.is_none() {
            let problem = Diagnostic::error(Code::BadChoice, at, format!("`{text}` is none of {listed}"));
            let help = nearest(text, names).map(|name| format!("did you mean `{name}`?"));
            self.report(node.place, problem.maybe_help(help));
        }
        found
    }

    /// Reads any value as JSON.
    pub(super) fn value(&mut self, node: &Node, at: &str) -> Option<Value> {
        match &node.kind {
            Kind::Scalar(text, is_plain) => match Scalar::of(text, *is_plain) {
                Scalar::Text(text) => Some(Value::from(text)),
                Scalar::Null => Some(Value::Null),
                Scalar::Bool(value) => Some(Value::Bool(value)),
                Scalar::Number(number) => Some(Value::Number(number)),
                Scalar::Odd(text) => {
                    let problem =
                        Diagnostic::error(Code::WrongType, at, format!("`{text}` is not a number as JSON writes it"));
                    self.report(
                        node.place,
                        problem.help(format!("write it as JSON does, or put it in quotes: \"{text}\"")),
                    );
                    None
                }
            },
            Kind::List(items) => {
                let mut values = Vec::new();
                for (position, item) in items.iter().enumerate() {
                    let place = below(at, &position.to_string());
                    self.places.insert(place.clone(), (None, item.place));
                    values.push(self.value(item, &place));
                }
                values.into_iter().collect::<Option<Vec<Value>>>().map(Value::Array)
            }
            Kind::Map(_) => {
                let mut map = Map::new();
                let mut is_whole = true;
                for (key, value) in self.entries(node, at, "", "").unwrap_or_default() {
                    match self.value(value, &below(at, &key.text)) {
                        Some(value) => {
                            map.insert(key.text.clone(), value);
                        }
                        None => is_whole = false,
                    }
                }
                is_whole.then_some(Value::Object(map))
            }
            Kind::Broken => None,
        }
    }
}

/// Returns the place of a member.
pub(super) fn below(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

/// Returns the key that somebody probably meant.
fn intended<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == written).map(|(_, ours)| *ours);
    match synonym.and_then(|ours| known.iter().copied().find(|key| *key == ours)) {
        Some(key) => Some(key),
        None => nearest(written, known.iter().copied()),
    }
}
