//! The environment variables of the worker's program.
#![expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the environment")]

/// Returns the point at which this process stops itself, `FAULT_STOP_AT`.
pub(crate) fn stop_at() -> Option<String> {
    std::env::var("FAULT_STOP_AT").ok().filter(|point| !point.is_empty())
}

/// Returns how many steps the worker runs at once, `FAULT_SLOTS`; 8 unless set.
pub fn slots() -> usize {
    std::env::var("FAULT_SLOTS").ok().and_then(|slots| slots.parse().ok()).unwrap_or(8)
}
