//! Database errors as errors of Tasker, and the repetition of transactions that a conflict ended.

use sqlx::postgres::PgDatabaseError;
use tasker_model::{Error, ErrorKind};

/// How often a transaction ended by a deadlock or a serialisation failure is repeated.
const REPEATS: usize = 5;

/// Turns a database error into an error of the kind that its SQLSTATE says; `doing` says what failed, in lower case.
pub fn to_error(doing: &str, error: sqlx::Error) -> Error {
    let Some(database) = error.as_database_error() else {
        let kind = match error {
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::Internal,
        };
        let remedy = if kind == ErrorKind::Unavailable {
            "; check that the database is up and its address is right"
        } else {
            ""
        };
        return Error::new(kind, format!("{doing}: {error}{remedy}")).caused_by(error);
    };
    let code = database.code().unwrap_or_default().into_owned();
    let kind = match ErrorKind::from_sqlstate(&code) {
        Some(kind) => kind,
        None if matches!(code.get(..2), Some("08" | "57" | "53")) => ErrorKind::Unavailable,
        None if matches!(code.as_str(), "40001" | "40P01" | "55P03") => ErrorKind::Busy,
        // Not let in, or no such database: nothing was done, and the address or the server is what must change.
        None if code.starts_with("28") || code == "3D000" => ErrorKind::Unavailable,
        None if code == "42501" => {
            let remedy = "connect as the schema's owner, or have this role's rights granted";
            return Error::new(ErrorKind::Forbidden, format!("{doing}: {}; {remedy}", database.message()))
                .with("sqlstate", code)
                .caused_by(error);
        }
        None if code == "3F000" || code == "42P01" || code == "42883" => {
            return Error::new(
                ErrorKind::Unavailable,
                format!("{doing}: {}; the database has no such Tasker: run `tasker db migrate`", database.message()),
            )
            .with("sqlstate", code)
            .caused_by(error);
        }
        None => ErrorKind::Internal,
    };
    let hint = database.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::hint);
    let message = match hint {
        Some(hint) => format!("{doing}: {}; {hint}", database.message()),
        None => format!("{doing}: {}", database.message()),
    };
    Error::new(kind, message).with("sqlstate", code).caused_by(error)
}

/// Says whether the statement was refused for its data: one of a batch may be at fault, and the others may be fine.
pub fn is_data_error(error: &Error) -> bool {
    sqlstate(error).is_some_and(|code| code.starts_with("22") || code.starts_with("23") || code == "P0001")
}

/// Says whether the transaction lost against another one and may simply be repeated.
pub fn is_retryable(error: &Error) -> bool {
    sqlstate(error).is_some_and(|code| code == "40001" || code == "40P01")
}

fn sqlstate(error: &Error) -> Option<&str> {
    error.context.iter().find(|(key, _)| *key == "sqlstate").map(|(_, code)| code.as_str())
}

/// Counts how often a transaction was repeated.
#[derive(Debug, Default)]
pub struct Repeats(usize);

impl Repeats {
    /// Says whether to run the transaction again: a deadlock or a serialisation failure ended it, and not yet five times.
    pub fn again(&mut self, error: &Error) -> bool {
        let again = is_retryable(error) && self.0 < REPEATS;
        if again {
            tracing::warn!(%error, "the transaction lost against another one and is repeated");
            self.0 += 1;
        }
        again
    }
}

/// Runs a transaction, and again where a deadlock or a serialisation failure ended it, five times at most. The expression awaits it.
/// A macro, since a closure that lends to its future cannot be shown to be `Send`.
#[macro_export]
macro_rules! retrying {
    ($run:expr) => {{
        let mut repeats = $crate::Repeats::default();
        loop {
            match $run {
                Err(error) if repeats.again(&error) => {}
                result => break result,
            }
        }
    }};
}
