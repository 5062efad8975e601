//! The only place that reads the environment.
#![expect(clippy::disallowed_methods, reason = "configuration is read here and nowhere else")]

use std::time::Duration;

use anyhow::Context as _;

const THREE_DAYS: Duration = Duration::from_hours(72);

/// How long a refund waits for its approval: `REFUND_APPROVAL_SECONDS`, three days unless set.
pub(crate) fn approval_time() -> anyhow::Result<Duration> {
    match std::env::var("REFUND_APPROVAL_SECONDS") {
        Ok(seconds) => seconds.parse().map(Duration::from_secs).context("REFUND_APPROVAL_SECONDS is no number"),
        Err(_) => Ok(THREE_DAYS),
    }
}
