//! When a failed step runs again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::LONGEST_DELAY;

/// How the delay grows from one failure to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// Runs again at once.
    None,
    /// base, 2 base, 3 base, ...
    Linear,
    /// base, 2 base, 4 base, ...
    #[default]
    Exponential,
    /// base, base, 2 base, 3 base, 5 base, ...
    Fibonacci,
}

impl Backoff {
    /// Every kind, as written in a definition.
    pub const NAMES: [(&'static str, Backoff); 4] = [
        ("none", Backoff::None),
        ("linear", Backoff::Linear),
        ("exponential", Backoff::Exponential),
        ("fibonacci", Backoff::Fibonacci),
    ];

    /// Returns the name written in a definition.
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize].0
    }

    /// The multiple of the base that follows the `failures`-th failure, counted from 1.
    fn factor(self, failures: u32) -> u64 {
        match self {
            Backoff::None => 0,
            Backoff::Linear => u64::from(failures),
            Backoff::Exponential => 1_u64.checked_shl(failures - 1).unwrap_or(u64::MAX),
            Backoff::Fibonacci => {
                let (mut current, mut next) = (1_u64, 1_u64);
                for _ in 1..failures {
                    (current, next) = (next, current.saturating_add(next));
                    if current == u64::MAX {
                        break;
                    }
                }
                current
            }
        }
    }
}

/// The retry policy of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, the first one included; at least 1.
    pub max_attempts: u32,
    /// How the delay grows.
    pub backoff: Backoff,
    /// The first delay, in milliseconds.
    pub base_ms: u64,
    /// The longest delay before jitter, in milliseconds.
    pub cap_ms: u64,
    /// Whether each delay is moved by up to 20 % either way, so that what failed together does not return together.
    pub jitter: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_attempts: 3, backoff: Backoff::Exponential, base_ms: 1_000, cap_ms: 300_000, jitter: true }
    }
}

impl Retry {
    /// Returns the default policy with another number of attempts in all.
    pub fn attempts(max_attempts: u32) -> Self {
        Self { max_attempts, ..Self::default() }
    }

    /// Says whether another attempt follows after so many failures.
    pub fn allows_another(&self, failures_so_far: u32) -> bool {
        failures_so_far < self.max_attempts
    }

    /// Returns how long to wait after the `failures_so_far`-th failure, counted from 1.
    ///
    /// What the handler asked for (`retry_after`) replaces the backoff and is not jittered. `random` is uniform in
    /// `0..1`. The cap holds before jitter: clipping afterwards would bring everything back at the same moment, which
    /// is what jitter is there to prevent. Never longer than [`LONGEST_DELAY`].
    pub fn delay(&self, failures_so_far: u32, retry_after: Option<Duration>, random: f64) -> Duration {
        if let Some(asked) = retry_after {
            return asked.min(LONGEST_DELAY);
        }
        let factor = self.backoff.factor(failures_so_far.max(1));
        let plain = Duration::from_millis(self.base_ms.saturating_mul(factor).min(self.cap_ms)).min(LONGEST_DELAY);
        if !self.jitter {
            return plain;
        }
        plain.mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0)).min(LONGEST_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(backoff: Backoff) -> Vec<u64> {
        let retry = Retry { backoff, jitter: false, base_ms: 100, cap_ms: 700, ..Retry::default() };
        (1..=6).map(|failures| u64::try_from(retry.delay(failures, None, 0.5).as_millis()).unwrap_or(0)).collect()
    }

    #[test]
    fn each_kind_grows_its_own_way_up_to_the_cap() {
        assert_eq!(delays(Backoff::None), [0, 0, 0, 0, 0, 0]);
        assert_eq!(delays(Backoff::Linear), [100, 200, 300, 400, 500, 600]);
        assert_eq!(delays(Backoff::Exponential), [100, 200, 400, 700, 700, 700]);
        assert_eq!(delays(Backoff::Fibonacci), [100, 100, 200, 300, 500, 700]);
    }

    #[test]
    fn the_default_is_three_attempts_and_a_second() {
        let retry = Retry::default();
        assert!(retry.allows_another(2) && !retry.allows_another(3));
        assert_eq!(retry.delay(1, None, 0.0), Duration::from_millis(800));
        assert_eq!(retry.delay(1, None, 1.0), Duration::from_millis(1_200));
        assert_eq!(retry.delay(u32::MAX, None, 0.5), Duration::from_mins(5));
    }

    #[test]
    fn what_the_handler_asks_for_wins_but_not_for_ever() {
        let retry = Retry::default();
        assert_eq!(retry.delay(1, Some(Duration::from_secs(30)), 0.9), Duration::from_secs(30));
        assert_eq!(retry.delay(1, Some(Duration::MAX), 0.9), LONGEST_DELAY);
    }
}
