//! How much the hostile tests ask for.
#![allow(unreachable_pub, reason = "a module of a test crate")]
#![expect(clippy::disallowed_methods, reason = "this module reads the environment")]

/// A tenth of a promised quantity, or all of it with `HOSTILE=full`.
pub fn scaled(promised: usize) -> usize {
    if std::env::var("HOSTILE").is_ok_and(|size| size == "full") { promised } else { promised / 10 }
}
