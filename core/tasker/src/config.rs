//! The only place that reads the environment.
#![expect(clippy::disallowed_methods, reason = "configuration is read here and nowhere else")]

use std::time::Duration;

use tasker_engine::Schema;
use tasker_model::{Error, ErrorKind, Result};

use crate::Builder;

/// Takes `DATABASE_URL`, and over the builder's defaults what is set of `TASKER_SCHEMA`, `TASKER_POOL_SIZE`,
/// `TASKER_CONCURRENCY`, `TASKER_QUEUES`, `TASKER_LEASE_SECONDS`, `TASKER_POLL_MAX_MS`, `TASKER_DRAIN_SECONDS`, `TASKER_PGBOUNCER` and
/// `TASKER_DIRECT_DATABASE_URL`.
pub(crate) fn from_environment(builder: Builder) -> Result<Builder> {
    let mut builder = builder;
    if let Some(url) = read("DATABASE_URL") {
        builder = builder.database_url(&url);
    }
    if let Some(name) = read("TASKER_SCHEMA") {
        builder = builder.schema(Schema::new(&name)?);
    }
    if let Some(size) = number("TASKER_POOL_SIZE")? {
        builder = builder.pool_size(u32::try_from(size).unwrap_or(u32::MAX));
    }
    if let Some(slots) = number("TASKER_CONCURRENCY")? {
        builder = builder.concurrency(usize::try_from(slots).unwrap_or(usize::MAX));
    }
    if let Some(queues) = read("TASKER_QUEUES") {
        builder = builder.queues(queues.split(',').map(str::trim).filter(|queue| !queue.is_empty()));
    }
    if let Some(seconds) = number("TASKER_LEASE_SECONDS")? {
        builder = builder.lease(Duration::from_secs(seconds));
    }
    if let Some(ms) = number("TASKER_POLL_MAX_MS")? {
        builder = builder.poll_max(Duration::from_millis(ms));
    }
    if let Some(seconds) = number("TASKER_DRAIN_SECONDS")? {
        builder = builder.drain(Duration::from_secs(seconds));
    }
    if let Some(pgbouncer) = read("TASKER_PGBOUNCER") {
        builder = builder.pgbouncer(pgbouncer.parse()?);
    }
    if let Some(url) = read("TASKER_DIRECT_DATABASE_URL") {
        builder = builder.direct_database_url(&url);
    }
    Ok(builder)
}

/// What to log, and whether as JSON.
pub(crate) fn logging() -> (String, bool) {
    let filter = read("TASKER_LOG").unwrap_or_else(|| "info".to_owned());
    (filter, read("TASKER_LOG_FORMAT").as_deref() == Some("json"))
}

fn read(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str) -> Result<Option<u64>> {
    let parse = |text: String| {
        text.parse().map_err(|cause| {
            Error::new(ErrorKind::Invalid, format!("{name} is `{text}`; it must be a whole number")).caused_by(cause)
        })
    };
    read(name).map(parse).transpose()
}
