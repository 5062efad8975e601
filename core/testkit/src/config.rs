//! The environment variables that this crate reads.
#![expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the environment")]

/// Returns the value of a variable, none when it is absent or empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
