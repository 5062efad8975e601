//! One, two, four, eight worker processes drain the same tasks from one database.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sqlx::Connection;

use crate::bench::Bench;
use crate::child::{Child, Work};
use crate::cpu;
use crate::load::{self, SLOTS};
use crate::samples::Samples;
use crate::workflows::{self, DAG7};

const ROUNDS: usize = 3;

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let tasks = bench.config.size(4_000, 300);
    let mut rows = Vec::new();
    let mut first = None;
    for processes in [1_usize, 2, 4, 8] {
        let (rates, costs) = measure(bench, processes, tasks).await?;
        let rate = rates.median();
        let one = *first.get_or_insert(rate);
        rows.push(vec![
            processes.to_string(),
            format!("{rate:.0}"),
            format!("{:.2}", rate / one),
            format!("{:.0}", costs.median()),
        ]);
        bench.report.samples(format!("processes_{processes}_steps_per_s"), &rates);
    }
    let head = ["processes", "steps/s", "over one", "PostgreSQL us/step"];
    bench.report.table("Worker processes on one database", &head, rows);
    Ok(())
}

/// The workers are there and idle; all tasks become visible in one commit, where the clock starts.
async fn measure(bench: &mut Bench, processes: usize, tasks: usize) -> Result<(Samples, Samples)> {
    let database = bench.server.database("processes").await?;
    let workflow = workflows::dag7();
    load::announce(&database, workflow.clone()).await?;
    let mut workers = Vec::new();
    for _ in 0..processes {
        workers.push(Child::start(&database, Work::Noop, Some(SLOTS), None).await?);
    }
    let tasker = database.tasker().connect().await?;
    let mut connection = database.connect().await?;
    let steps = tasks as f64 * DAG7 as f64;
    let (mut rates, mut costs) = (Samples::default(), Samples::default());
    for round in 0..=ROUNDS {
        let mut transaction = connection.begin().await?;
        load::submit(tasker.engine(), &mut transaction, &workflow, tasks).await?;
        let before = cpu::of_server(bench.server.pid())?;
        transaction.commit().await.context("committing the tasks")?;
        let begun = Instant::now();
        load::finished(&mut connection, Duration::from_millis(10)).await?;
        let took = begun.elapsed();
        if round > 0 {
            rates.push(steps / took.as_secs_f64());
            costs.push((cpu::of_server(bench.server.pid())? - before) * 1e6 / steps);
        }
    }
    for worker in workers {
        worker.stop().await?;
    }
    tasker.pool().close().await;
    drop(connection);
    bench.drop(database).await?;
    Ok((rates, costs))
}
