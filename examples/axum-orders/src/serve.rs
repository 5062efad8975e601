//! Server and worker in one process, which begin and end together.

use axum::Router;
use tasker::Tasker;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves requests and runs steps until `stop` is raised or one of the two fails; then both finish what they have begun.
pub async fn serve(listener: TcpListener, app: Router, tasker: Tasker, stop: CancellationToken) -> anyhow::Result<()> {
    let server = axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
    let server = async {
        // Whichever ends first takes the other with it, and both are waited for.
        let _stop = stop.clone().drop_guard();
        server.await.map_err(anyhow::Error::from)
    };
    let worker = async {
        let _stop = stop.clone().drop_guard();
        tasker.work().with_graceful_shutdown(stop.clone().cancelled_owned()).await.map_err(anyhow::Error::from)
    };
    let (server, worker) = tokio::join!(server, worker);
    server.and(worker)
}
