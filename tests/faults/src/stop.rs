//! Points at which a worker stops itself, says so, and waits to be killed or told to go on.

use std::io::{BufRead as _, Write as _};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config;

static POINT: LazyLock<Option<String>> = LazyLock::new(config::stop_at);
static HAS_STOPPED: AtomicBool = AtomicBool::new(false);

/// Stops here if this is the point that `FAULT_STOP_AT` names, once in the life of the process; blocks the thread until a line comes
/// on standard input.
pub fn here(point: &str) {
    if POINT.as_deref() != Some(point) || HAS_STOPPED.swap(true, Ordering::AcqRel) {
        return;
    }
    say(&format!("at {point}"));
    // The end of the input means that the test has ended: then it does not matter what happens.
    let _ = std::io::stdin().lock().read_line(&mut String::new());
}

/// The same for async code: blocks no thread that runs other steps.
pub async fn at(point: &'static str) {
    // It does not panic; and if it did, the step would go on, and the test would wait in vain and say so.
    let _ = tokio::task::spawn_blocking(move || here(point)).await;
}

/// Tells the test something, as a line of standard output.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The test has ended where nobody listens.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
