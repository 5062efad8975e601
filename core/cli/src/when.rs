//! Durations and times as arguments.

use std::time::Duration;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use tasker_model::duration::parse_duration;
use tasker_model::limits::LONGEST_DELAY;

use crate::failure::{Outcome, invalid};

/// Reads a duration such as `30s` or `1h30m`; at most a year.
pub(crate) fn duration(option: &str, text: &str) -> Outcome<Duration> {
    parse_duration(text).map(Duration::from_millis).filter(|duration| *duration <= LONGEST_DELAY).ok_or_else(|| {
        invalid(format!("{option}: `{text}` is no duration; write one such as 250ms, 30s, 5m or 1h30m, at most 366d"))
    })
}

/// Returns the time `duration` after `now`.
pub(crate) fn after(now: DateTime<Utc>, duration: Duration) -> DateTime<Utc> {
    now + TimeDelta::from_std(duration).unwrap_or_default()
}

/// Reads a time, or a duration that is counted back from `now`.
pub(crate) fn since(text: &str, now: DateTime<Utc>) -> Outcome<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    let ago = parse_duration(text).map(Duration::from_millis);
    let at = ago.and_then(|ago| now.checked_sub_signed(TimeDelta::from_std(ago).ok()?)).filter(|at| at.year() > 0);
    at.ok_or_else(|| {
        invalid(format!("--since: `{text}` is neither a duration such as 2h nor a time such as 2026-01-31T12:00:00Z"))
    })
}
