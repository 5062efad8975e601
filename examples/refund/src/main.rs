//! `work` runs refunds; `close MONTH` closes the books of a month (`2026-01`); `show ORDER` prints what the gateway, the ledger and the
//! mailer have of an order; `describe` tells what the steps take.
#![expect(clippy::print_stdout, reason = "what there is of an order is what the program prints")]

use std::process::ExitCode;

use example_refund::refund;
use example_refund::services::{self, Gateway};
use sqlx::PgPool;
use tasker::Tasker;
use tracing_subscriber::filter::LevelFilter;

mod config;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(LevelFilter::WARN).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["work", ..] => {
            let tasker = Tasker::connect_env().await?;
            tasker.migrate().await?;
            services::migrate(tasker.pool()).await?;
            return Ok(tasker::run(equip(tasker)?).await);
        }
        // Describing needs no database, so that it works where there is none.
        ["describe"] => {
            let tasker = Tasker::from_pool(PgPool::connect_lazy("postgres://localhost")?);
            return Ok(tasker::run(equip(tasker)?).await);
        }
        ["close", month] => {
            let tasker = Tasker::connect_env().await?;
            services::close_month(tasker.pool(), format!("{month}-01").parse()?).await?;
        }
        ["show", order] => show(Tasker::connect_env().await?.pool(), order).await?,
        _ => anyhow::bail!("usage: refund work | close MONTH | show ORDER | describe"),
    }
    Ok(ExitCode::SUCCESS)
}

fn equip(tasker: Tasker) -> anyhow::Result<Tasker> {
    let gateway = Gateway::new(tasker.pool().clone());
    Ok(tasker.workflow(refund(config::approval_time()?)).with_state(gateway))
}

async fn show(pool: &PgPool, order: &str) -> Result<(), sqlx::Error> {
    let lines: Vec<String> = sqlx::query_scalar(
        "select line from (
             select 1 as part, 'gateway ' || case when is_reversed then 'reversed ' else 'refunded ' end || amount_cents as line
               from gateway_refund where order_id = $1
             union all select 2, 'ledger ' || amount_cents from ledger_entry where order_id = $1
             union all select 3, 'mail ' || body from mail where order_id = $1
         ) as lines order by part",
    )
    .bind(order)
    .fetch_all(pool)
    .await?;
    println!("{}", if lines.is_empty() { "nothing".to_owned() } else { lines.join("\n") });
    Ok(())
}
