//! The signals that end a worker.

/// Waits for SIGTERM or SIGINT (Ctrl-C). Waits forever where the process may not listen for signals.
pub async fn wait_for_shutdown_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
            tracing::error!("cannot listen for signals; the worker ends only with its process or by a call");
            return std::future::pending().await;
        };
        // Both are cancel safe; the first one ends the wait.
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    }
    #[cfg(not(unix))]
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
