//! The events of a definition.

use std::collections::BTreeMap;

use super::{
    node::Node,
    read::{Reader, below},
};
use crate::event::{EventDefinition, On};

const EVENT_KEYS: [&str; 2] = ["on", "step"];

impl Reader {
    pub(super) fn events(&mut self, node: &Node) -> BTreeMap<String, EventDefinition> {
        let help = "write `events: { payment_taken: { on: success, step: charge } }`";
        let mut events = BTreeMap::new();
        for (name, node) in self.entries(node, "events", "the events by their names", help).unwrap_or_default() {
            let event_at = below("events", &name.text);
            let help = format!("write `{}: {{ on: success, step: charge }}`", name.text);
            let Some(entries) = self.entries(node, &event_at, "an event", &help) else {
                continue;
            };
            let on = below(&event_at, "on");
            let message = format!("event `{}` needs an `on`: success, failure or retry", name.text);
            self.required(&entries, "on", &on, name.place, &message);
            let (mut on, mut step) = (None, None);
            for (key, node) in entries {
                let at = below(&event_at, &key.text);
                match key.text.as_str() {
                    "on" => on = self.choice(node, &at, &On::NAMES),
                    "step" => step = self.text(node, &at, "a step's name"),
                    _ => {
                        self.unknown_key(key, &at, "an event", &EVENT_KEYS);
                        // That it then lacks a step is no mistake of its own.
                        self.reported.insert(event_at.clone());
                    }
                }
            }
            // One without a moment is reported, and is none for the rules; its step still is.
            let on = on.unwrap_or(if step.is_some() { On::Success } else { On::Failure });
            events.insert(name.text.clone(), EventDefinition { on, step });
        }
        events
    }
}
