//! What a worker costs that has nothing to do: transactions, processor time, memory. It is a process of its own.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::PgConnection;

use crate::bench::Bench;
use crate::child::{Child, Work};
use crate::cpu;
use crate::load;
use crate::workflows;

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let window = Duration::from_secs(bench.config.size(120, 10) as u64);
    let database = bench.server.database("idle").await?;
    load::announce(&database, workflows::dag7()).await?;
    // As it is by default: ten slots, a lease of thirty seconds.
    let worker = Child::start(&database, Work::Noop, None, None).await?;
    println!(
        "  the worker is left alone for {} s, then measured for {} s",
        bench.config.idle.as_secs(),
        window.as_secs()
    );
    tokio::time::sleep(bench.config.idle).await;

    // From another database, so that the looks are not counted.
    let mut connection = bench.server.connect().await?;
    let (transactions, time, begun) =
        (transactions(&mut connection, database.name()).await?, cpu::of_process(worker.pid())?, Instant::now());
    tokio::time::sleep(window).await;
    let took = begun.elapsed().as_secs_f64();
    let transactions = self::transactions(&mut connection, database.name()).await? - transactions;
    let time = cpu::of_process(worker.pid())? - time;
    let resident = cpu::resident_mb(worker.pid())?;
    worker.stop().await?;
    bench.drop(database).await?;
    bench.report.figure("idle_tx_per_s", transactions / took);
    bench.report.figure("idle_cpu_pct", time / took * 100.0);
    bench.report.figure("idle_rss_mb", resident);
    Ok(())
}

/// Everything that ended in a database, autovacuum's own included.
async fn transactions(connection: &mut PgConnection, database: &str) -> Result<f64> {
    let sql = "select (xact_commit + xact_rollback)::float8 from pg_stat_database where datname = $1";
    Ok(sqlx::query_scalar(sql).bind(database).fetch_one(connection).await?)
}
