//! `work` runs the orders' steps, `submit FILE` sends a file of orders through them, `describe` tells what the steps take.

use std::path::Path;
use std::process::ExitCode;

use example_orders::services::Shop;
use example_orders::{OrderFile, order_processing};
use sqlx::PgPool;
use tasker::Tasker;

mod submit;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["submit", file] => {
            let (tasker, shop) = connect().await?;
            let workflow = order_processing();
            // Before any transaction is open: registering takes a connection of its own.
            tasker.workflow(workflow.clone()).register().await?;
            submit::run(&OrderFile::read(Path::new(file))?, &workflow, &shop).await
        }
        ["work", ..] => {
            let (tasker, shop) = connect().await?;
            Ok(tasker::run(tasker.workflow(order_processing()).with_state(shop)).await)
        }
        // Describing needs no database, so that it works where there is none.
        ["describe"] => {
            let pool = PgPool::connect_lazy("postgres://localhost")?;
            let shop = Shop::new(pool.clone());
            Ok(tasker::run(Tasker::from_pool(pool).workflow(order_processing()).with_state(shop)).await)
        }
        _ => anyhow::bail!("usage: orders work | submit FILE | describe"),
    }
}

/// What the shop sells; the orders that stand beside it are for `submit`.
const CATALOGUE: &str = include_str!("../data/orders.json");

/// Connects to `DATABASE_URL`, makes all tables, Tasker's and the shop's, and fills shelves that were never filled.
async fn connect() -> anyhow::Result<(Tasker, Shop)> {
    let tasker = Tasker::connect_env().await?;
    tasker.migrate().await?;
    let shop = Shop::new(tasker.pool().clone());
    shop.migrate().await?;
    serde_json::from_str::<OrderFile>(CATALOGUE)?.stock_up(&shop).await?;
    Ok((tasker, shop))
}
