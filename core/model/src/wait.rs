//! What a wait step waits for.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use crate::{Error, ErrorKind, Result, payload::check_payload, source::Source};

/// A step that calls no handler: it is done when a signal comes, or when a time has come.
///
/// Exactly one of `for_ms`, `until` and `signal` is given. The result is the signal's payload, or `default`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// How long, in milliseconds, from the moment when its parents have ended.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none", with = "duration")]
    pub for_ms: Option<u64>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
    /// The name of the signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// JSON Schema of the signal's payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
    /// How long the signal may take, in milliseconds; for ever unless said.
    #[serde(rename = "timeout", default, skip_serializing_if = "Option::is_none", with = "duration")]
    pub timeout_ms: Option<u64>,
    /// The result where no signal came in time, and of a timer. Without it a signal that does not come fails the step (`wait_timeout`);
    /// a timer's result is null.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub default: Option<Value>,
}

/// A moment: fixed in the definition, or found in the input or in a result, as RFC 3339 text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// The same for every task.
    Time(DateTime<Utc>),
    /// Each task's own.
    Value(Source),
}

impl Wait {
    /// Checks the payload of a signal: its size, what can be stored, and the schema. Fails with `invalid`, naming each place by its JSON
    /// pointer.
    pub fn check_payload(&self, text: &str) -> Result<()> {
        let name = self.signal.as_deref().unwrap_or_default();
        check_payload(ErrorKind::Invalid, text, crate::limits::RESULT_BYTES, "the signal's payload")?;
        let value: Value = serde_json::from_str(text).map_err(|cause| {
            Error::new(ErrorKind::Invalid, format!("the payload of signal `{name}` is not JSON: {cause}"))
                .caused_by(cause)
        })?;
        let Some(validator) = self.payload.as_ref().and_then(|schema| jsonschema::validator_for(schema).ok()) else {
            return Ok(());
        };
        let told: Vec<String> = validator
            .iter_errors(&value)
            .take(crate::revision::SHOWN_PLACES)
            .map(|failure| match failure.instance_path().to_string().as_str() {
                "" => failure.to_string(),
                pointer => format!("{pointer}: {failure}"),
            })
            .collect();
        if told.is_empty() {
            return Ok(());
        }
        let message = format!("the payload does not satisfy signal `{name}`: {}", told.join("; "));
        Err(Error::new(ErrorKind::Invalid, message))
    }

    /// Says in a few words what it waits for.
    pub fn summary(&self) -> String {
        use crate::duration::format_duration;
        match (self.for_ms, &self.until, &self.signal) {
            (Some(ms), ..) => format!("wait {}", format_duration(ms)),
            (_, Some(until), _) => format!("wait until {until}"),
            (_, _, Some(signal)) => match self.timeout_ms {
                Some(ms) => format!("wait for signal {signal}, at most {}", format_duration(ms)),
                None => format!("wait for signal {signal}"),
            },
            _ => "wait".to_owned(),
        }
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => f.write_str(&time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)),
            Self::Value(source) => source.fmt(f),
        }
    }
}

impl FromStr for Until {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::Time(time.to_utc()));
        }
        text.parse().map(Self::Value).map_err(|_| {
            let message = format!(
                "`{text}` is neither a time nor the place of one; write for example `2030-01-31T09:00:00Z` or `input.pickup_at`"
            );
            Error::new(ErrorKind::Invalid, message)
        })
    }
}

impl Serialize for Until {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Until {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Null is a value here.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// `"30s"`, where it is given.
mod duration {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::duration::{format_duration, parse_duration};

    #[expect(clippy::ref_option, reason = "serde passes references")]
    pub(super) fn serialize<S: Serializer>(ms: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match ms {
            Some(ms) => serializer.serialize_str(&format_duration(*ms)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        parse_duration(&text)
            .map(Some)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is no duration; write for example 30s")))
    }
}
