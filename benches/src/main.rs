//! The benchmarks: `make bench`, or `make bench ONLY=drain` for one of them. Starts a PostgreSQL of its own, measures, prints a table and
//! writes `benches/out/latest.json`. Method and results are in `benches/RESULTS.md`.
#![expect(clippy::print_stdout, reason = "the figures are what the program prints")]
#![expect(clippy::cast_precision_loss, reason = "counts become figures of a report; none comes near 2^53")]

#[path = "../baseline/drain.rs"]
mod baseline;
mod bench;
mod budgets;
mod child;
mod clock;
mod config;
mod counters;
mod cpu;
mod database;
mod groups;
mod load;
mod machine;
mod report;
mod samples;
mod server;
mod workflows;

use anyhow::Result;

use crate::bench::Bench;
use crate::config::Config;

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::ERROR)
        .init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((child::COMMAND, rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return child::run(rest).await;
    }
    let config = Config::load(&arguments)?;
    let mut bench = Bench::start(config).await?;
    let mut failed = Vec::new();
    for group in groups::chosen(&bench.config.only)? {
        println!("{} ...", group.name);
        let began = std::time::Instant::now();
        // One that fails takes nothing from the others: a whole run is long.
        if let Err(error) = groups::run(group, &mut bench).await {
            println!("{} FAILED: {error:#}", group.name);
            failed.push(group.name);
        }
        println!("{} took {:.0} s", group.name, began.elapsed().as_secs_f64());
    }
    bench.finish(&failed)
}
