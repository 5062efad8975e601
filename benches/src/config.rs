//! What the environment and the arguments choose.
#![expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the environment")]

use std::time::Duration;

use anyhow::{Context, Result, bail};

/// What is run, and how long it may take.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Names of groups or of their keys; empty means all.
    pub(crate) only: Vec<String>,
    /// Sizes too small for a result: to see whether the benchmarks work.
    pub(crate) is_quick: bool,
    /// Whether `growth` goes on to ten million finished steps.
    pub(crate) is_growth_full: bool,
    /// How long the idle worker is left alone before it is measured.
    pub(crate) idle: Duration,
}

impl Config {
    /// Reads `ONLY` (or the arguments), `BENCH_QUICK`, `GROWTH` and `IDLE_SECONDS`.
    pub(crate) fn load(arguments: &[String]) -> Result<Self> {
        let only = if arguments.is_empty() { set("ONLY").unwrap_or_default() } else { arguments.join(",") };
        let is_growth_full = match set("GROWTH").as_deref() {
            None => false,
            Some("full") => true,
            Some(other) => bail!("GROWTH is `{other}`; it may be `full`"),
        };
        let is_quick = set("BENCH_QUICK").is_some_and(|value| value != "0");
        let idle = match set("IDLE_SECONDS") {
            Some(seconds) => seconds.parse().with_context(|| format!("IDLE_SECONDS is `{seconds}`, no number"))?,
            None if is_quick => 5,
            None => 300,
        };
        Ok(Self {
            only: only.split([',', ' ']).filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            is_quick,
            is_growth_full,
            idle: Duration::from_secs(idle),
        })
    }

    /// The size of something: the second in quick mode.
    pub(crate) fn size(&self, full: usize, quick: usize) -> usize {
        if self.is_quick { quick } else { full }
    }
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
