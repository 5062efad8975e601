//! What a handler takes and gives, as `describe` tells it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

/// The signatures of all known handlers: `{"handlers":[{"handler":"orders.charge","params":[...],"result":{...}}]}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signatures {
    /// One entry a handler.
    pub handlers: Vec<Signature>,
}

/// The signature of one handler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The handler's name, as a step's `call` writes it.
    pub handler: String,
    /// What it takes, by name.
    #[serde(default)]
    pub params: Vec<Param>,
    /// JSON Schema of its result, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
}

/// One parameter of a handler: `{"name":"total","required":true,"schema":{"type":"number"}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Whether a call without it fails.
    #[serde(default)]
    pub required: bool,
    /// What it is without an argument, for people to read; the handler applies it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// JSON Schema of its value, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
}

impl Signatures {
    /// Reads what `describe` printed.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|cause| {
            Error::new(
                ErrorKind::Invalid,
                format!("these are no handler signatures: {cause}; expected {{\"handlers\": [...]}}"),
            )
            .caused_by(cause)
        })
    }

    /// Returns the signature of the named handler.
    pub fn get(&self, handler: &str) -> Option<&Signature> {
        self.handlers.iter().find(|signature| signature.handler == handler)
    }
}

impl Signature {
    /// Returns the named parameter.
    pub fn param(&self, name: &str) -> Option<&Param> {
        self.params.iter().find(|param| param.name == name)
    }
}

impl Param {
    /// Makes a parameter that a call must have.
    pub fn required(name: impl Into<String>) -> Self {
        Self { name: name.into(), required: true, default: None, schema: None }
    }
}
