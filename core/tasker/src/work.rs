//! Working until told to stop.

use std::future::IntoFuture;

use futures::future::{BoxFuture, FutureExt};
use tasker_model::{Error, ErrorKind, Result};
use tasker_worker::{StopReason, Worker, wait_for_shutdown_signal};

use crate::Tasker;

/// The worker of this process, about to start; `.await` runs it to its end.
///
/// ```no_run
/// # async fn serve(tasker: tasker::Tasker, server: impl Future<Output = tasker::Result<()>>) -> tasker::Result<()> {
/// tokio::select! {
///     result = server => result,
///     result = tasker.work() => result,
/// }
/// # }
/// ```
#[must_use = "a worker does nothing until it is awaited"]
pub struct Work {
    tasker: Tasker,
    shutdown: BoxFuture<'static, ()>,
}

impl Work {
    pub(crate) fn new(tasker: Tasker) -> Self {
        Self { tasker, shutdown: wait_for_shutdown_signal().boxed() }
    }

    /// Ends it when this future does, instead of on SIGTERM or SIGINT.
    pub fn with_graceful_shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = signal.boxed();
        self
    }

    /// Runs to the end and says why it came.
    pub(crate) async fn run(self) -> Result<StopReason> {
        let worker = self.tasker.start().await?;
        let running = Running { tasker: self.tasker, worker: worker.clone() };
        // Both are cancel safe: whichever comes first ends the work.
        tokio::select! {
            () = self.shutdown => {}
            () = worker.stopped() => {}
        }
        let grace = running.tasker.plan.worker.drain;
        worker.drain(grace).await;
        worker.stopped().await;
        Ok(worker.stop_reason().unwrap_or(StopReason::Drained))
    }
}

impl IntoFuture for Work {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'static, Result<()>>;

    fn into_future(self) -> Self::IntoFuture {
        async {
            match self.run().await? {
                StopReason::Drained => Ok(()),
                StopReason::Zombies => Err(Error::new(
                    ErrorKind::Busy,
                    "more than half of the worker's slots are held by steps that did not end after their timeout; start the process anew",
                )),
            }
        }
        .boxed()
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("tasker", &self.tasker).finish_non_exhaustive()
    }
}

/// A worker that no longer claims once nobody waits for it: `select!` may drop the future that runs it.
struct Running {
    tasker: Tasker,
    worker: Worker,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasker.runtime.set_worker(None);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (worker, grace) = (self.worker.clone(), self.tasker.plan.worker.drain);
            // Its own end is awaited by whoever holds the worker; after a finished drain this does nothing.
            runtime.spawn(async move { worker.drain(grace).await });
        }
    }
}
