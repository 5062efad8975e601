//! The server of this process's tests.

use std::sync::{Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::config;
use crate::embedded::Embedded;

/// The variable that names the server to test against.
pub const TEST_DATABASE_URL: &str = "TASKER_TEST_DATABASE_URL";

/// The variable that names a PgBouncer in front of that server, `user:password@host:port`.
pub const TEST_PGBOUNCER: &str = "TASKER_TEST_PGBOUNCER";

static URL: OnceCell<String> = OnceCell::const_new();
/// Statics are never dropped; [`stop_at_exit`] empties it.
static EMBEDDED: Mutex<Option<Embedded>> = Mutex::new(None);

/// Returns the URL of the environment: `TASKER_TEST_DATABASE_URL`, else `DATABASE_URL`.
pub fn given_url() -> Option<String> {
    config::variable(TEST_DATABASE_URL).or_else(|| config::variable("DATABASE_URL"))
}

/// Returns the URL of the server to test against; starts one on the first call when none is given.
///
/// # Panics
/// Panics when no server is given and none can be started; the message says what to do.
pub async fn server_url() -> &'static str {
    URL.get_or_init(async || match given_url() {
        Some(url) => url,
        None => start().await,
    })
    .await
}

async fn start() -> String {
    let started = tokio::task::spawn_blocking(Embedded::start).await;
    match started.expect("the start of PostgreSQL does not panic") {
        Ok(embedded) => {
            let url = embedded.url().to_owned();
            *EMBEDDED.lock().unwrap_or_else(PoisonError::into_inner) = Some(embedded);
            stop_at_exit();
            url
        }
        Err(error) => panic!("the tests need a PostgreSQL: set {TEST_DATABASE_URL}, or: {error}"),
    }
}

#[expect(unsafe_code, reason = "std offers no hook for the end of the process")]
fn stop_at_exit() {
    extern "C" fn stop() {
        drop(EMBEDDED.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
    // SAFETY: `stop` uses nothing that the end of the main thread has destroyed: a static lock,
    // signals and files. If the registration fails the server still ends with the process.
    unsafe { libc::atexit(stop) };
}
