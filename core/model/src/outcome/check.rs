//! The gate for outcomes: what the database would refuse is refused before it enters a batch with others.

use super::Outcome;
use crate::{
    error::{Error, ErrorKind, Result},
    limits,
    payload::{Payload, check_payload},
};

impl Outcome {
    /// Refuses what could not be stored, before it enters a batch with others; kind `result_rejected`.
    pub fn check(&self) -> Result<()> {
        let check =
            |payload: &Payload, limit, what: &str| check_payload(ErrorKind::ResultRejected, payload.get(), limit, what);
        match self {
            Outcome::Success { value, metadata } => {
                check(value, limits::RESULT_BYTES, "the result")?;
                metadata.iter().try_for_each(|(key, value)| {
                    check_text(key, "a metadata key")?;
                    check(value, limits::RESULT_BYTES, "the metadata")
                })?;
                let size: usize = metadata.iter().map(|(key, value)| key.len() + value.get().len()).sum();
                within(size, limits::RESULT_BYTES, "the metadata")
            }
            Outcome::Failure { error } => {
                let texts = [Some(&error.message), error.code.as_ref(), error.class.as_ref()];
                let texts = || texts.into_iter().flatten().chain(&error.backtrace);
                texts().try_for_each(|text| check_text(text, "the error"))?;
                within(texts().map(String::len).sum(), limits::ERROR_DETAILS_BYTES, "the error")?;
                error
                    .details
                    .as_ref()
                    .map_or(Ok(()), |details| check(details, limits::ERROR_DETAILS_BYTES, "the error details"))
            }
            Outcome::Decision { steps, value } => {
                steps.iter().try_for_each(|step| check_text(step, "a step's name"))?;
                check(value, limits::RESULT_BYTES, "the result")
            }
            Outcome::Batches { cursors: items, .. } | Outcome::Map { items, .. } => {
                if items.len() > limits::MAP_ITEMS {
                    return Err(Error::new(
                        ErrorKind::ResultRejected,
                        format!(
                            "{} items are more than the {} of one map; divide them first",
                            items.len(),
                            limits::MAP_ITEMS
                        ),
                    ));
                }
                items.iter().try_for_each(|item| check(item, limits::RESULT_BYTES, "an item"))?;
                within(items.iter().map(|item| item.get().len()).sum(), limits::ITEMS_BYTES, "the item list")
            }
            Outcome::Checkpoint { cursor, accumulated, .. } => {
                check(cursor, limits::RESULT_BYTES, "the cursor")?;
                accumulated.as_ref().map_or(Ok(()), |value| check(value, limits::RESULT_BYTES, "the accumulated value"))
            }
            Outcome::Child { input, .. } => check(input, limits::INPUT_BYTES, "the child's input"),
            Outcome::Wait { default, .. } => {
                default.as_ref().map_or(Ok(()), |value| check(value, limits::RESULT_BYTES, "the default"))
            }
            Outcome::Settled | Outcome::Cancelled => Ok(()),
        }
    }
}

fn check_text(text: &str, what: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Error::new(
            ErrorKind::ResultRejected,
            format!("{what} contains a NUL character, which PostgreSQL cannot store; remove it"),
        ));
    }
    within(text.len(), limits::ERROR_DETAILS_BYTES, what)
}

fn within(size: usize, limit: usize, what: &str) -> Result<()> {
    if size <= limit {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::ResultRejected,
        format!("{what} has {size} bytes, the limit is {limit}; store it elsewhere and return a reference"),
    ))
}
