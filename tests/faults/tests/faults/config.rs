//! The environment variables of the tests.
#![expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]

/// How often each test runs: `FAULT_ROUNDS`, else once.
pub(crate) fn rounds() -> usize {
    std::env::var("FAULT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

/// More load where the tests run long.
pub(crate) fn scaled(short: usize) -> usize {
    if rounds() > 1 { short * 5 } else { short }
}
