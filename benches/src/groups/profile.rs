//! Where the time goes: statements, round trips, commits, WAL and fsyncs for each step, on a server that counts them.
//!
//! Counting costs: the figures of the other benchmarks are taken on a server without it.

use std::time::Duration;

use anyhow::Result;

use super::closed64;
use crate::bench::Bench;
use crate::counters::{Counters, longest};
use crate::database::Database;
use crate::load;
use crate::server::{Kind, Server};
use crate::workflows::DAG7;

/// Statements in the table of the longest.
const LONGEST: i64 = 14;

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let server = match Server::start(Kind::Profiled) {
        Ok(server) => server,
        Err(error) => {
            // An installation without the contrib modules cannot load it. Nothing is made up for it.
            println!("  not run: no PostgreSQL with pg_stat_statements ({error})");
            return Ok(());
        }
    };
    sqlx::query("create extension pg_stat_statements").execute(&mut server.connect().await?).await?;
    let database = server.database("profile").await?;
    // Tables with some rows, plans and caches.
    load::drain(&server, &database, bench.config.size(2_000, 300)).await?;

    let tasks = bench.config.size(4_000, 300);
    let time = Duration::from_secs(bench.config.size(8, 2) as u64);
    let mut rows = Vec::new();
    let drained = counted(&server, &database, async || {
        // Its tasks are submitted a hundred a call, which is part of what is counted.
        load::drain(&server, &database, tasks).await?;
        Ok(tasks as u64 * DAG7)
    });
    let (cost, steps) = drained.await?;
    rows.push(row("drain, submits included", cost, steps));
    let of_drain = statements(&server, &database, steps).await?;
    let mut of_one = Vec::new();
    for (name, callers) in [("64 callers", 64), ("8 callers", 8), ("one caller", 1)] {
        let closed =
            counted(&server, &database, async || Ok(closed64::callers(&server, &database, callers, time).await?.steps));
        let (cost, steps) = closed.await?;
        rows.push(row(name, cost, steps));
        of_one = statements(&server, &database, steps).await?;
    }
    bench.drop_of(&server, database).await?;
    let head = [
        "per step",
        "round trips",
        "statements",
        "commits",
        "WAL bytes",
        "fsyncs",
        "PostgreSQL us",
        "client and worker us",
    ];
    bench.report.table("What a step of seven costs (with pg_stat_statements, which slows it)", &head, rows);
    let head = ["statement, those inside functions too", "calls/step", "rows/step", "us/step"];
    bench.report.table("The longest statements of the drain (each includes what it calls)", &head, of_drain);
    bench.report.table("The longest statements of one caller (each includes what it calls)", &head, of_one);
    Ok(())
}

/// Counts what `work` costs; it answers how many steps it ran, and leaves no connection open.
async fn counted(
    server: &Server,
    database: &Database,
    work: impl AsyncFnOnce() -> Result<u64>,
) -> Result<(Counters, u64)> {
    sqlx::query("select pg_stat_statements_reset()").execute(&mut server.connect().await?).await?;
    let before = Counters::read(server, database.name()).await?;
    let steps = work().await?;
    // A connection tells what it counted when it ends; give the last ones a moment for it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok((Counters::read(server, database.name()).await?.since(before), steps))
}

/// The longest statements since the last reset, for each step.
async fn statements(server: &Server, database: &Database, steps: u64) -> Result<Vec<Vec<String>>> {
    let steps = steps as f64;
    let longest = longest(server, database.name(), LONGEST).await?;
    let line = |(text, calls, rows, ms)| {
        vec![text, format!("{:.4}", calls / steps), format!("{:.3}", rows / steps), format!("{:.1}", ms * 1e3 / steps)]
    };
    Ok(longest.into_iter().map(line).collect())
}

fn row(name: &str, cost: Counters, steps: u64) -> Vec<String> {
    let per_step = |total: f64, decimals: usize| format!("{:.decimals$}", total / steps as f64);
    vec![
        name.to_owned(),
        per_step(cost.calls, 3),
        per_step(cost.statements, 3),
        per_step(cost.commits, 3),
        per_step(cost.wal_bytes, 0),
        per_step(cost.fsyncs, 3),
        per_step(cost.server * 1e6, 0),
        per_step(cost.own * 1e6, 0),
    ]
}
