//! The wall clock: when the figures were taken.
#![expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the wall clock")]

use chrono::{DateTime, Utc};

pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}
