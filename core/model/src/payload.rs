//! Users' JSON, kept as the text it arrived in: no number passes through a float, no key is touched.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind, Result};

mod check;
mod floats;
mod path;

pub use check::check_payload;

/// Holds one JSON value as text. Equality is that of the text.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Payload(Box<RawValue>);

impl Payload {
    /// Returns `null`.
    pub fn null() -> Self {
        Self(RawValue::NULL.to_owned())
    }

    /// Returns `{}`.
    pub fn empty_object() -> Self {
        // The literal is valid, so the fallback is never taken.
        RawValue::from_string("{}".to_owned()).map_or_else(|_| Self::null(), Self)
    }

    /// Writes a value as JSON. NaN and infinities are refused: `serde_json` would write `null` for them.
    pub fn from_value(value: &(impl Serialize + ?Sized)) -> Result<Self> {
        value.serialize(floats::Finite).and_then(|()| serde_json::value::to_raw_value(value)).map(Self).map_err(
            |cause| {
                Error::new(ErrorKind::Invalid, format!("the value cannot be written as JSON: {cause}")).caused_by(cause)
            },
        )
    }

    /// Reads a text that must be one JSON value; limits are [`check_payload`]'s business.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str::<Box<RawValue>>(text)
            .map(Self)
            .map_err(|cause| Error::new(ErrorKind::Invalid, format!("this is not JSON: {cause}")).caused_by(cause))
    }

    /// Returns the text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// Reads the value into a type of the caller's.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(self.get()).map_err(|cause| {
            Error::new(ErrorKind::Invalid, format!("the value does not have the expected shape: {cause}"))
                .caused_by(cause)
        })
    }

    /// Returns what lies at a path of object keys and array positions, as text; nothing if the path leads nowhere.
    ///
    /// Keys written twice: the last one counts, as in the database.
    pub fn at<S: AsRef<str>>(&self, path: &[S]) -> Option<Payload> {
        path.iter().try_fold(self.clone(), |value, segment| path::child(&value.0, segment.as_ref()).map(Payload))
    }

    /// Says whether it is `null`.
    pub fn is_null(&self) -> bool {
        self.get() == "null"
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::null()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Payload {}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self)
    }
}

impl From<Box<RawValue>> for Payload {
    fn from(raw: Box<RawValue>) -> Self {
        Self(raw)
    }
}

impl From<Payload> for Box<RawValue> {
    fn from(payload: Payload) -> Self {
        payload.0
    }
}

/// Reads a field that is there, so that `null` is a value and only absence is none.
pub(crate) fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Payload>, D::Error> {
    serde::Deserialize::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_text() {
        for text in ["9007199254740993", "1.10", "-0", "1234567890123456789012345678901234567890", "1E+2"] {
            let payload = Payload::parse(text).unwrap();
            assert_eq!(payload.get(), text);
            assert_eq!(serde_json::to_string(&payload).unwrap(), text);
        }
        assert!(Payload::parse("{").is_err());
        assert!(Payload::parse("1 2").is_err());
    }

    #[test]
    fn floats_that_json_cannot_write_are_refused() {
        #[derive(Serialize)]
        struct Reading<'r> {
            name: &'r str,
            values: Vec<Option<f64>>,
            raw: Payload,
            tagged: Tagged,
        }
        #[derive(Serialize)]
        enum Tagged {
            Pair(u8, f32),
        }
        let reading = |value, pair| Reading {
            name: "a",
            values: vec![None, Some(value)],
            raw: Payload::parse("1.10").unwrap(),
            tagged: Tagged::Pair(1, pair),
        };
        assert_eq!(
            Payload::from_value(&reading(1.5, 2.0)).unwrap().get(),
            r#"{"name":"a","values":[null,1.5],"raw":1.10,"tagged":{"Pair":[1,2.0]}}"#
        );
        assert!(Payload::from_value(&reading(f64::NAN, 2.0)).unwrap_err().message.contains("NaN"));
        assert!(Payload::from_value(&reading(1.0, f32::INFINITY)).is_err());
        assert!(Payload::from_value(&std::collections::BTreeMap::from([(1, f64::NEG_INFINITY)])).is_err());
    }

    #[test]
    fn a_path_finds_text_without_reading_numbers() {
        let payload =
            Payload::parse(r#"{"a":[{"b":1.10},{"b":9007199254740993}],"a b":null,"twice":1,"twice":2}"#).unwrap();
        let at = |path: &[&str]| payload.at(path).map(|found| found.get().to_owned());
        assert_eq!(at(&["a", "0", "b"]).as_deref(), Some("1.10"));
        assert_eq!(at(&["a", "1", "b"]).as_deref(), Some("9007199254740993"));
        assert_eq!(at(&["a b"]).as_deref(), Some("null"));
        assert_eq!(at(&["twice"]).as_deref(), Some("2"));
        assert_eq!(at(&[]).as_deref(), Some(payload.get()));
        for nowhere in [&["b"][..], &["a", "2"], &["a", "x"], &["a", "01"], &["a", "0", "b", "c"]] {
            assert_eq!(at(nowhere), None, "{nowhere:?}");
        }
    }
}
