//! The budgets that the figures are held to. RESULTS.md says of each that is missed why.

use std::fmt;

/// The limit of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Budget {
    AtMost(f64),
    AtLeast(f64),
    Below(f64),
}

impl Budget {
    pub(crate) fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
            Self::Below(limit) => value < limit,
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "<= {limit}"),
            Self::AtLeast(limit) => write!(f, ">= {limit}"),
            Self::Below(limit) => write!(f, "< {limit}"),
        }
    }
}

/// Answers the budget of a figure, if it has one.
pub(crate) fn of(key: &str) -> Option<Budget> {
    use Budget::{AtLeast, AtMost, Below};
    Some(match key {
        "dag7_minus_floor_ms" | "dag7_nofsync_p50_ms" => AtMost(3.0),
        "closed64_steps_per_s" | "drain_steps_per_s" => AtLeast(8_000.0),
        "closed64_cpu_ms_per_step" => AtMost(0.25),
        "drain_over_prototype" => AtLeast(0.6),
        "drain_pg_us_per_step" => AtMost(110.0),
        "growth_pg_cpu_ratio" => AtMost(1.25),
        "wide1000_steps_per_s" => AtLeast(4_000.0),
        "delayed100k_claim_ratio" => Below(1.1),
        "idle_tx_per_s" | "idle_cpu_pct" => Below(1.0),
        "idle_rss_mb" => Below(40.0),
        "rescue_p99_ms" => Below(4_000.0),
        "rescue_lost" | "rescue_applied_twice" | "deadlocks" => AtMost(0.0),
        _ => return None,
    })
}
