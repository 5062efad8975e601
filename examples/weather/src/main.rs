//! `work` runs the steps; `run [FIRST LAST]` runs the workflow once in this process and prints its insights; `describe`
//! tells what the steps take.
#![expect(clippy::print_stdout, reason = "the insights are what the program prints")]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use example_weather::{DataSet, Report, Years, weather_insights};
use sqlx::PgPool;
use tasker::Tasker;
use tracing_subscriber::filter::LevelFilter;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(LevelFilter::WARN).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["run"] => run(Years { first: 2012, last: 2015 }).await,
        ["run", first, last] => run(Years { first: first.parse()?, last: last.parse()? }).await,
        ["work", ..] => Ok(tasker::run(connect().await?).await),
        // Describing needs no database, so that it works where there is none.
        ["describe"] => Ok(tasker::run(equip(Tasker::from_pool(PgPool::connect_lazy("postgres://localhost")?))).await),
        _ => anyhow::bail!("usage: weather run [FIRST LAST] | work | describe"),
    }
}

async fn connect() -> anyhow::Result<Tasker> {
    let tasker = Tasker::connect_env().await?;
    tasker.migrate().await?;
    Ok(equip(tasker))
}

fn equip(tasker: Tasker) -> Tasker {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/seattle-weather.csv");
    tasker.workflow(weather_insights()).with_state(DataSet::new(path))
}

async fn run(years: Years) -> anyhow::Result<ExitCode> {
    let tasker = connect().await?;
    let worker = tasker.start().await?;
    let ended = tasker.submit("analytics.weather_insights", years).await?.wait().await?;
    worker.drain(Duration::from_secs(5)).await;
    let insights: Report = ended.result()?;
    println!("{}", serde_json::to_string_pretty(&insights)?);
    Ok(ExitCode::SUCCESS)
}
