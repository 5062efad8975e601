//! A mistake in a definition, told so that its author can repair it without asking.

use serde::Serialize;

mod code;
mod report;
pub(crate) mod suggest;

pub use suggest::nearest;

pub use code::Code;
pub use report::Report;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The definition is refused.
    Error,
    /// It is accepted, but surely not what was meant.
    Warning,
}

/// One mistake: what it is, where it stands and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Its number, explained in `docs/errors`.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, with the names concerned.
    pub message: String,
    /// The place within the definition, for example `steps.charge.with.total`; empty for the whole.
    pub at: String,
    /// The line, counted from 1; 0 where the definition is no text.
    pub line: usize,
    /// The column in characters, counted from 1; 0 where the definition is no text.
    pub column: usize,
    /// How many characters are meant.
    pub length: usize,
    /// What to do, often the nearest right spelling.
    pub help: Option<String>,
    /// Whether the place is the key rather than its value.
    #[serde(skip)]
    pub(crate) on_key: bool,
}

impl Diagnostic {
    /// Makes an error at a place of the definition, not yet tied to a text.
    pub fn error(code: Code, at: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            at: at.into(),
            line: 0,
            column: 0,
            length: 0,
            help: None,
            on_key: false,
        }
    }

    /// Adds what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds what to do, if there is anything to say.
    pub(crate) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    /// Points at the key of the place instead of its value.
    pub(crate) fn on_key(mut self) -> Self {
        self.on_key = true;
        self
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]: {}", self.severity, self.code, self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}
