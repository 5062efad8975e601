//! The one closed list of error kinds, and what each kind becomes in SQL, HTTP and the CLI.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what class of thing went wrong; every surface of Tasker maps these and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request, name or definition itself is wrong.
    Invalid,
    /// What was named does not exist.
    NotFound,
    /// It clashes with what exists, for example one key with two inputs.
    Conflict,
    /// The caller may not do this.
    Forbidden,
    /// Something else holds it now; try again.
    Busy,
    /// The database, broker or server cannot be reached.
    Unavailable,
    /// The lease of the step belongs to somebody else by now.
    LeaseLost,
    /// The input of a task does not satisfy the workflow.
    InputInvalid,
    /// The result of a step cannot be stored.
    ResultRejected,
    /// A handler raised something that nobody mapped; retried by default.
    Unexpected,
    /// A handler stated a failure that a retry cannot repair.
    Permanent,
    /// A step took longer than its timeout.
    Timeout,
    /// A task passed its deadline.
    DeadlineExceeded,
    /// A wait ended without its signal and without a default.
    WaitTimeout,
    /// A step was delivered too often without any outcome.
    Poison,
    /// It was cancelled on request.
    Cancelled,
    /// An undo failed for good.
    CompensationFailed,
    /// The context of a step is larger than one delivery may be.
    ContextTooLarge,
    /// A defect in Tasker.
    Internal,
}

/// Holds the row of one kind in the table below.
struct Mapping {
    kind: ErrorKind,
    name: &'static str,
    sqlstate: &'static str,
    http_status: u16,
    exit_code: i32,
}

const fn row(kind: ErrorKind, name: &'static str, sqlstate: &'static str, http_status: u16, exit_code: i32) -> Mapping {
    Mapping { kind, name, sqlstate, http_status, exit_code }
}

/// In the order of the enum, so that the row of a kind is found by its number.
const TABLE: [Mapping; 19] = [
    row(ErrorKind::Invalid, "invalid", "TK001", 400, 2),
    row(ErrorKind::NotFound, "not_found", "TK002", 404, 4),
    row(ErrorKind::Conflict, "conflict", "TK003", 409, 1),
    row(ErrorKind::Forbidden, "forbidden", "TK004", 403, 1),
    row(ErrorKind::Busy, "busy", "TK005", 429, 1),
    row(ErrorKind::Unavailable, "unavailable", "TK006", 503, 5),
    row(ErrorKind::LeaseLost, "lease_lost", "TK007", 409, 1),
    row(ErrorKind::InputInvalid, "input_invalid", "TK008", 422, 2),
    row(ErrorKind::ResultRejected, "result_rejected", "TK009", 422, 1),
    row(ErrorKind::Unexpected, "unexpected", "TK010", 500, 6),
    row(ErrorKind::Permanent, "permanent", "TK011", 422, 6),
    row(ErrorKind::Timeout, "timeout", "TK012", 504, 7),
    row(ErrorKind::DeadlineExceeded, "deadline_exceeded", "TK013", 504, 7),
    row(ErrorKind::WaitTimeout, "wait_timeout", "TK014", 504, 7),
    row(ErrorKind::Poison, "poison", "TK015", 500, 6),
    row(ErrorKind::Cancelled, "cancelled", "TK016", 409, 6),
    row(ErrorKind::CompensationFailed, "compensation_failed", "TK017", 500, 6),
    row(ErrorKind::ContextTooLarge, "context_too_large", "TK018", 413, 1),
    row(ErrorKind::Internal, "internal", "TK019", 500, 1),
];

impl ErrorKind {
    /// Every kind, in the order of their SQLSTATE numbers.
    pub const ALL: [ErrorKind; 19] = {
        let mut all = [ErrorKind::Invalid; 19];
        let mut at = 0;
        while at < TABLE.len() {
            all[at] = TABLE[at].kind;
            at += 1;
        }
        all
    };

    fn mapping(self) -> &'static Mapping {
        &TABLE[self as usize]
    }

    /// Returns the name used on the wire, in SQL and in logs.
    pub fn as_str(self) -> &'static str {
        self.mapping().name
    }

    /// Returns the SQLSTATE that the engine's SQL functions raise, `TK001` to `TK019`.
    pub fn sqlstate(self) -> &'static str {
        self.mapping().sqlstate
    }

    /// Returns the kind that a SQLSTATE stands for, if it is one of ours.
    pub fn from_sqlstate(sqlstate: &str) -> Option<ErrorKind> {
        TABLE.iter().find(|row| row.sqlstate == sqlstate).map(|row| row.kind)
    }

    /// Returns the HTTP status of a response that carries this kind.
    pub fn http_status(self) -> u16 {
        self.mapping().http_status
    }

    /// Returns the exit code of a command that ends with this kind.
    ///
    /// 0 ok, 1 failed operation, 2 usage, 3 needs a decision, 4 not found, 5 connection, 6 task failed, 7 timeout;
    /// 0 and 3 belong to no kind.
    pub fn exit_code(self) -> i32 {
        self.mapping().exit_code
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for ErrorKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        TABLE.iter().find(|row| row.name == text).map(|row| row.kind).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("`{text}` is no error kind; see docs/errors for the list"))
        })
    }
}

/// Describes one failure: its kind, a sentence for people, and the identifiers it concerns.
#[derive(Debug)]
pub struct Error {
    /// The class of the failure.
    pub kind: ErrorKind,
    /// What failed with which identifiers, then what to do about it; lower case.
    pub message: String,
    /// Identifiers for logs and for structured responses, in the order they were added.
    pub context: Vec<(&'static str, String)>,
    /// What caused it, if another error did.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Makes an error where the fact is known.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), context: Vec::new(), source: None }
    }

    /// Adds an identifier.
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.context.push((key, value.to_string()));
        self
    }

    /// Names the error that caused this one.
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(cause.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_finds_its_own_row_from_every_side() {
        for (at, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at, "the table is not in the order of the enum");
            assert_eq!(kind.sqlstate(), format!("TK{:03}", at + 1));
            assert_eq!(ErrorKind::from_sqlstate(kind.sqlstate()), Some(kind));
            assert_eq!(kind.as_str().parse::<ErrorKind>().unwrap(), kind);
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
            assert!((400..600).contains(&kind.http_status()));
            assert!((1..=7).contains(&kind.exit_code()) && kind.exit_code() != 3);
        }
        assert_eq!(ErrorKind::from_sqlstate("23505"), None);
    }

    #[test]
    fn an_error_keeps_its_cause_and_context() {
        let error = Error::new(ErrorKind::Busy, "queue `a` is busy").with("queue", "a").caused_by("lock timeout");
        assert_eq!(error.to_string(), "queue `a` is busy");
        assert_eq!(error.context, [("queue", "a".to_owned())]);
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "lock timeout");
    }
}
