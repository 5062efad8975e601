//! Where a parameter's value comes from: a path into a step's result or into the task's input.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    error::{Error, ErrorKind, Result},
    id::is_name,
};

/// The first segment that stands for the task's input; no step may have this name.
pub const INPUT: &str = "input";
/// The parameter that receives the step's context; no step may have this name.
pub const CTX: &str = "ctx";
/// The first segment that stands for the item of a map or the range of a batch; no step may have this name.
pub const ITEM: &str = "item";
/// The parameter that receives the result of the step that is undone; no step may have this name where one has an `undo`.
pub const RESULT: &str = "result";

/// Names a value: `validate_cart`, `validate_cart.total`, `input`, `input.lines.0.sku`.
///
/// A segment is an object's key, or a position where the value is a list. Keys with a dot cannot be named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The result of a step, or a part of it.
    Step {
        /// The step's name.
        step: String,
        /// The way into its result.
        path: Vec<String>,
    },
    /// The input of the task, or a part of it.
    Input {
        /// The way into the input.
        path: Vec<String>,
    },
    /// The item of a map, or the range of a batch, or a part of it.
    Item {
        /// The way into the item.
        path: Vec<String>,
    },
}

impl Source {
    /// Names the whole result of a step.
    pub fn step(step: impl Into<String>) -> Self {
        Self::Step { step: step.into(), path: Vec::new() }
    }

    /// Names one field of the input.
    pub fn input_field(field: impl Into<String>) -> Self {
        Self::Input { path: vec![field.into()] }
    }

    /// Returns the step it comes from, if it comes from one.
    pub fn step_name(&self) -> Option<&str> {
        match self {
            Self::Step { step, .. } => Some(step),
            Self::Input { .. } | Self::Item { .. } => None,
        }
    }

    /// Returns the way into the value.
    pub fn path(&self) -> &[String] {
        match self {
            Self::Step { path, .. } | Self::Input { path } | Self::Item { path } => path,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Step { step, .. } => step,
            Self::Input { .. } => INPUT,
            Self::Item { .. } => ITEM,
        })?;
        self.path().iter().try_for_each(|segment| write!(f, ".{segment}"))
    }
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut segments = text.split('.').map(str::to_owned);
        let first = segments.next().unwrap_or_default();
        let path: Vec<String> = segments.collect();
        let is_segment =
            |segment: &String| !segment.is_empty() && !segment.chars().any(|c| c.is_whitespace() || c.is_control());
        if !is_name(&first) || !path.iter().all(is_segment) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("`{text}` names no value; write `step`, `step.field`, `input` or `input.field`"),
            ));
        }
        Ok(match first.as_str() {
            INPUT => Self::Input { path },
            ITEM => Self::Item { path },
            _ => Self::Step { step: first, path },
        })
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_their_text() {
        for text in ["a", "a.b.0.c-d", "input", "input.email", "item", "item.sku"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        assert_eq!("input.email".parse::<Source>().unwrap(), Source::input_field("email"));
        for bad in ["", ".", "a.", ".a", "a..b", "A.b", "a. b", "a b"] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }
}
