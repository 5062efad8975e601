//! How long the database may take to answer.

use std::time::Duration;

use tasker_model::{Error, ErrorKind, Result};

/// A call that takes longer is given up with its connection. It may have been applied: whoever repeats it finds that out.
const LONGEST_CALL: Duration = Duration::from_secs(15);

/// Waits for the answer to a call. A connection that fell silent, as when a firewall forgot it, ends no call by itself.
pub(crate) async fn answer<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(LONGEST_CALL, call).await.unwrap_or_else(|_| {
        let seconds = LONGEST_CALL.as_secs();
        Err(Error::new(ErrorKind::Unavailable, format!("the database did not answer in {seconds} s")))
    })
}
