//! `work` imports; `generate FILE ROWS` makes up a file; `summary` prints what is in the tables, `result TASK` what a task
//! says it imported; `describe` tells what the steps take.
#![expect(clippy::print_stdout, reason = "the summaries are what the program prints")]

use std::path::Path;
use std::process::ExitCode;

use example_import::{Sales, Summary, generate, import_sales};
use sqlx::PgPool;
use tasker::{TaskId, Tasker};
use tracing_subscriber::filter::LevelFilter;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(LevelFilter::WARN).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["work", ..] => {
            let tasker = Tasker::connect_env().await?;
            tasker.migrate().await?;
            let sales = Sales::new(tasker.pool().clone());
            sales.migrate().await?;
            return Ok(tasker::run(tasker.workflow(import_sales()).with_state(sales)).await);
        }
        // Describing needs no database, so that it works where there is none.
        ["describe"] => {
            let pool = PgPool::connect_lazy("postgres://localhost")?;
            let sales = Sales::new(pool.clone());
            return Ok(tasker::run(Tasker::from_pool(pool).workflow(import_sales()).with_state(sales)).await);
        }
        ["generate", file, rows] => generate(Path::new(file), rows.parse()?)?,
        ["summary"] => println!("{}", Sales::new(Tasker::connect_env().await?.pool().clone()).summary().await?),
        ["result", task] => {
            let ended = Tasker::connect_env().await?.task(task.parse::<TaskId>()?).wait().await?;
            println!("{}", ended.result::<Summary>()?);
        }
        _ => anyhow::bail!("usage: import work | generate FILE ROWS | summary | result TASK | describe"),
    }
    Ok(ExitCode::SUCCESS)
}
