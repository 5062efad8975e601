//! Serves the orders of `DATABASE_URL` on `LISTEN`, until SIGTERM or ctrl-c.

use std::path::Path;

use example_axum_orders::{address, app, serve};
use example_orders::services::Shop;
use example_orders::{OrderFile, order_processing};
use tasker::Tasker;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter("info,sqlx=warn").init();
    let tasker = Tasker::connect_env().await?;
    tasker.migrate().await?;
    let shop = Shop::new(tasker.pool().clone());
    shop.migrate().await?;
    let shelves = Path::new(env!("CARGO_MANIFEST_DIR")).join("../orders/data/orders.json");
    OrderFile::read(&shelves)?.stock_up(&shop).await?;
    let workflow = order_processing();
    let tasker = tasker.workflow(workflow.clone()).with_state(shop.clone());
    tasker.register().await?;

    let listener = TcpListener::bind(address()?).await?;
    tracing::info!("listening on http://{}", listener.local_addr()?);
    let token = CancellationToken::new();
    tokio::spawn({
        let token = token.clone();
        async move {
            tasker::wait_for_shutdown_signal().await;
            token.cancel();
        }
    });
    serve(listener, app(tasker.clone(), workflow, shop), tasker, token).await
}
