//! Logs of a worker's program that has set up none.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config;

/// Logs to standard error. Does nothing where the program has a subscriber already.
pub(crate) fn start() {
    let (filter, is_json) = config::logging();
    let logs = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // The only failure is that there is a subscriber, which is then the program's own.
    let _ = if is_json { logs.json().try_init() } else { logs.try_init() };
}
