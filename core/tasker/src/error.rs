//! Why a step failed, as its function says it.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tasker_model::{ErrorKind, Outcome, Payload, StepFailure};
use tasker_worker::TransactionError;

/// The failure of a step.
///
/// `?` makes one of any error: retried, of kind `unexpected`, with the error's type as its class and all its causes in
/// the message. [`ResultExt`] says otherwise at the place of the call, so that services know nothing of Tasker.
///
/// ```
/// use tasker::prelude::*;
///
/// #[tasker::step]
/// async fn parse_amount(amount: String) -> Result<u64, StepError> {
///     let cents: u64 = amount.parse().permanent("BAD_AMOUNT")?;
///     if cents == 0 {
///         return Err(StepError::permanent("nothing to pay").code("EMPTY"));
///     }
///     Ok(cents)
/// }
/// ```
#[derive(Clone)]
pub struct StepError(Box<Why>);

#[derive(Clone)]
enum Why {
    Failure(StepFailure),
    /// The step stops because it was asked to, or because another worker has it.
    Stopped,
}

impl StepError {
    /// A failure that no other attempt repairs.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::of(StepFailure::permanent(message))
    }

    /// A failure that another attempt may repair.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self::of(StepFailure::unexpected(message))
    }

    /// Takes an error that `?` cannot: a boxed one, or `anyhow::Error`. Retried, as with `?`.
    ///
    /// ```
    /// # use tasker::prelude::*;
    /// # fn load() -> Result<u8, Box<dyn std::error::Error + Send + Sync>> { Ok(1) }
    /// #[tasker::step]
    /// async fn load_rates() -> Result<u8, StepError> {
    ///     load().map_err(StepError::new)
    /// }
    /// ```
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let error = error.into();
        Self::of(StepFailure::unexpected(with_causes(&*error)))
    }

    /// What was given is wrong, field by field: `{"fields": {"email": "is empty"}}` in the details. Not retried.
    pub fn validation<K: Into<String>, V: Into<String>>(fields: impl IntoIterator<Item = (K, V)>) -> Self {
        let fields: serde_json::Map<String, serde_json::Value> =
            fields.into_iter().map(|(field, what)| (field.into(), what.into().into())).collect();
        let places: Vec<String> =
            fields.iter().map(|(field, what)| format!("{field} {}", what.as_str().unwrap_or_default())).collect();
        Self::permanent(format!("validation failed: {}", places.join("; ")))
            .code("VALIDATION")
            .details(serde_json::json!({ "fields": fields }))
    }

    /// The step stopped because it was asked to: `ctx.cancelled()` came. Where nobody asked, it runs again, and that is
    /// no attempt.
    pub fn cancelled() -> Self {
        Self(Box::new(Why::Stopped))
    }

    /// Makes an error of a failure in its wire form.
    pub fn of(failure: StepFailure) -> Self {
        Self(Box::new(Why::Failure(failure)))
    }

    /// Adds the application's own code, such as `CARD_DECLINED`.
    pub fn code(self, code: impl Into<String>) -> Self {
        self.change(|failure| failure.code = Some(code.into()))
    }

    /// Asks for the next attempt after this long, instead of after the step's own delay. Makes it retryable.
    pub fn retry_after(self, after: Duration) -> Self {
        self.change(|failure| {
            failure.retryable = true;
            failure.retry_after_ms = Some(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        })
    }

    /// Adds what a program may want to know. What cannot be written as JSON is left out, and the message says so.
    pub fn details(self, details: impl Serialize) -> Self {
        self.change(|failure| match Payload::from_value(&details) {
            Ok(details) => failure.details = Some(details),
            Err(error) => {
                failure.message = format!("{} (its details cannot be kept: {error})", failure.message);
            }
        })
    }

    /// Says whether another attempt follows while there are some left.
    pub fn is_retryable(&self) -> bool {
        matches!(&*self.0, Why::Failure(failure) if failure.retryable)
    }

    /// Returns the failure in its wire form; nothing where the step only stopped.
    pub fn failure(&self) -> Option<&StepFailure> {
        match &*self.0 {
            Why::Failure(failure) => Some(failure),
            Why::Stopped => None,
        }
    }

    pub(crate) fn into_outcome(self) -> Outcome {
        match *self.0 {
            Why::Failure(failure) => Outcome::failure(failure),
            Why::Stopped => Outcome::Cancelled,
        }
    }

    /// A value that a binding promised is not there. It would not be there the next time.
    pub(crate) fn unbound(error: tasker_model::Error) -> Self {
        Self::of(StepFailure::new(ErrorKind::InputInvalid, error.message).code("UNBOUND_PARAMETER"))
    }

    pub(crate) fn in_transaction<E: Into<Self>>(error: TransactionError<E>) -> Self {
        match error {
            TransactionError::Work(error) => error.into(),
            TransactionError::Engine(error) if error.kind == ErrorKind::LeaseLost => Self::cancelled(),
            TransactionError::Engine(error) => {
                let failure = StepFailure::new(error.kind, error.message);
                Self::of(if error.kind == ErrorKind::Internal { failure.retryable(true) } else { failure })
            }
        }
    }

    fn change(mut self, change: impl FnOnce(&mut StepFailure)) -> Self {
        if let Why::Failure(failure) = &mut *self.0 {
            change(failure);
        }
        self
    }

    fn from_error<E: std::error::Error>(error: &E) -> Self {
        Self::of(StepFailure::unexpected(with_causes(error)).class(std::any::type_name::<E>()))
    }
}

/// The error's message and those of its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Many errors repeat their cause's text in their own.
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

impl<E: std::error::Error> From<E> for StepError {
    fn from(error: E) -> Self {
        Self::from_error(&error)
    }
}

impl fmt::Debug for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failure() {
            Some(failure) => failure.fmt(f),
            None => f.write_str("Cancelled"),
        }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.failure().map_or("the step was cancelled", |failure| &failure.message))
    }
}

/// Says at the place of a call what its error means for the step.
pub trait ResultExt<T, E>: Sized {
    /// Retries if the error satisfies `is_transient`; it is permanent otherwise.
    fn retryable_if(self, is_transient: impl FnOnce(&E) -> bool) -> Result<T, StepError>;

    /// No retry repairs it; the code is the application's own.
    fn permanent(self, code: &str) -> Result<T, StepError>;

    /// Tries again after this long.
    fn retry_after(self, after: Duration) -> Result<T, StepError>;
}

impl<T, E: std::error::Error> ResultExt<T, E> for Result<T, E> {
    fn retryable_if(self, is_transient: impl FnOnce(&E) -> bool) -> Result<T, StepError> {
        self.map_err(|error| if is_transient(&error) { StepError::from(error) } else { permanent(&error) })
    }

    fn permanent(self, code: &str) -> Result<T, StepError> {
        self.map_err(|error| permanent(&error).code(code))
    }

    fn retry_after(self, after: Duration) -> Result<T, StepError> {
        self.map_err(|error| StepError::from(error).retry_after(after))
    }
}

fn permanent<E: std::error::Error>(error: &E) -> StepError {
    StepError::from_error(error).change(|failure| {
        failure.kind = ErrorKind::Permanent;
        failure.retryable = false;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_mark_makes_a_retryable_failure_that_names_the_type() {
        fn read() -> Result<u8, StepError> {
            Ok("x".parse::<u8>()?)
        }
        let error = read().unwrap_err();
        let failure = error.failure().unwrap();
        assert!(error.is_retryable());
        assert_eq!(failure.kind, ErrorKind::Unexpected);
        assert_eq!(failure.class.as_deref(), Some("core::num::error::ParseIntError"));
    }

    #[test]
    fn the_call_decides_what_an_error_means() {
        let parse = |text: &str| text.parse::<u8>();
        assert!(parse("x").retryable_if(|_| true).unwrap_err().is_retryable());
        let error = parse("x").permanent("BAD").unwrap_err();
        assert_eq!(error.failure().unwrap().code.as_deref(), Some("BAD"));
        assert_eq!(error.failure().unwrap().kind, ErrorKind::Permanent);
        let error = parse("x").retry_after(Duration::from_secs(9)).unwrap_err();
        assert_eq!(error.failure().unwrap().retry_after_ms, Some(9_000));
        let error = StepError::validation([("email", "is empty")]);
        assert_eq!(error.to_string(), "validation failed: email is empty");
        assert!(!error.is_retryable());
    }

    #[test]
    fn the_message_tells_the_causes_once() {
        let cause = std::io::Error::other("disk on fire");
        let error = StepError::from(tasker_model::Error::new(ErrorKind::Internal, "saving failed").caused_by(cause));
        assert_eq!(error.to_string(), "saving failed: disk on fire");
    }
}
