//! How the fields of a definition are written and read: the short forms, and what counts as left out.

use serde_json::Value;

use super::{DEFAULT_QUEUE, DEFAULT_TIMEOUT_MS};
use crate::id::DEFAULT_NAMESPACE;

pub(super) fn namespace() -> String {
    DEFAULT_NAMESPACE.to_owned()
}

pub(super) fn is_default_namespace(namespace: &str) -> bool {
    namespace == DEFAULT_NAMESPACE
}

pub(super) fn queue() -> String {
    DEFAULT_QUEUE.to_owned()
}

pub(super) fn is_default_queue(queue: &str) -> bool {
    queue == DEFAULT_QUEUE
}

pub(super) fn timeout() -> u64 {
    DEFAULT_TIMEOUT_MS
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
pub(super) fn is_default_timeout(timeout_ms: &u64) -> bool {
    *timeout_ms == DEFAULT_TIMEOUT_MS
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Writes JSON with the keys of every object sorted by their bytes, whatever order the map at hand keeps.
pub(super) fn write_sorted(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_str());
            text.push('{');
            for (at, (key, value)) in entries.into_iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_sorted(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write_sorted(item, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

/// `"30s"`.
pub(super) mod duration {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::duration::{format_duration, parse_duration};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub(in super::super) fn serialize<S: Serializer>(ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(*ms))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is no duration; write for example 30s")))
    }
}

/// `5`, or an object of what differs from the default: `{"attempts":5,"backoff":"linear","base":"2s"}`.
pub(super) mod retry {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use crate::{
        duration::{format_duration, parse_duration},
        retry::{Backoff, Retry},
    };

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form {
        Attempts(u32),
        Policy(Policy),
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Policy {
        #[serde(skip_serializing_if = "Option::is_none")]
        attempts: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        backoff: Option<Backoff>,
        #[serde(skip_serializing_if = "Option::is_none")]
        base: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cap: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        jitter: Option<bool>,
    }

    fn differing<T: PartialEq + Copy>(value: T, default: T) -> Option<T> {
        (value != default).then_some(value)
    }

    pub(in super::super) fn serialize<S: Serializer>(retry: &Retry, serializer: S) -> Result<S::Ok, S::Error> {
        let default = Retry::default();
        if *retry == Retry::attempts(retry.max_attempts) {
            return Form::Attempts(retry.max_attempts).serialize(serializer);
        }
        Form::Policy(Policy {
            attempts: differing(retry.max_attempts, default.max_attempts),
            backoff: differing(retry.backoff, default.backoff),
            base: differing(retry.base_ms, default.base_ms).map(format_duration),
            cap: differing(retry.cap_ms, default.cap_ms).map(format_duration),
            jitter: differing(retry.jitter, default.jitter),
        })
        .serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Retry, D::Error> {
        let default = Retry::default();
        let duration = |text: Option<String>, default| match text {
            None => Ok(default),
            Some(text) => parse_duration(&text)
                .ok_or_else(|| de::Error::custom(format!("`{text}` is no duration; write for example 30s"))),
        };
        Ok(match Form::deserialize(deserializer)? {
            Form::Attempts(attempts) => Retry::attempts(attempts),
            Form::Policy(policy) => Retry {
                max_attempts: policy.attempts.unwrap_or(default.max_attempts),
                backoff: policy.backoff.unwrap_or(default.backoff),
                base_ms: duration(policy.base, default.base_ms)?,
                cap_ms: duration(policy.cap, default.cap_ms)?,
                jitter: policy.jitter.unwrap_or(default.jitter),
            },
        })
    }
}

/// A mapping from a step's name to the step.
pub(super) mod steps {
    use std::{collections::HashSet, fmt};

    use serde::{
        Deserializer, Serializer,
        de::{self, MapAccess, Visitor},
        ser::SerializeMap,
    };

    use crate::definition::StepDefinition;

    pub(in super::super) fn serialize<S: Serializer>(
        steps: &[StepDefinition],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(steps.len()))?;
        for step in steps {
            map.serialize_entry(&step.name, step)?;
        }
        map.end()
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<StepDefinition>, D::Error> {
        struct Steps;

        impl<'de> Visitor<'de> for Steps {
            type Value = Vec<StepDefinition>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping from step names to steps")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut seen = HashSet::new();
                let mut steps = Vec::new();
                while let Some((name, mut step)) = map.next_entry::<String, StepDefinition>()? {
                    if !seen.insert(name.clone()) {
                        return Err(de::Error::custom(format!("step `{name}` is defined twice")));
                    }
                    step.name = name;
                    steps.push(step);
                }
                Ok(steps)
            }
        }

        deserializer.deserialize_map(Steps)
    }
}
