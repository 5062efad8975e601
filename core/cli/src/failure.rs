//! Why a command ends with an exit code other than 0.

use tasker_model::{Error, ErrorKind};

use crate::args::Format;

/// The result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It failed; nothing was told yet.
    Error(Error),
    /// It needs an answer that nobody can give here.
    NeedsDecision(String),
    /// Everything was told; this is the exit code.
    Told(i32),
}

impl Failure {
    /// Returns the exit code.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::Error(error) => error.kind.exit_code(),
            Self::NeedsDecision(_) => 3,
            Self::Told(code) => *code,
        }
    }

    /// Writes it to stderr: a line for people, or one JSON object.
    pub(crate) fn tell(&self, format: Format) {
        let (kind, message) = match self {
            Self::Error(error) => (error.kind.as_str(), error.message.as_str()),
            Self::NeedsDecision(message) => ("needs_decision", message.as_str()),
            Self::Told(_) => return,
        };
        if format == Format::Json {
            let error =
                serde_json::json!({ "error": { "kind": kind, "message": message, "exit_code": self.exit_code() } });
            crate::output::talk(error);
        } else {
            crate::output::talk(format!("error[{kind}]: {message}"));
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Makes an error about a wrong argument.
pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Failure::Error(Error::new(ErrorKind::Invalid, message))
}

/// Makes an error about a file.
pub(crate) fn file_error(doing: &str, path: &std::path::Path, error: std::io::Error) -> Failure {
    let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Invalid };
    let message = format!("{doing} {}: {error}", path.display());
    Failure::Error(Error::new(kind, message).caused_by(error))
}
