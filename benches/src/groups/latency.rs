//! One task at a time: from its submit to the sight of its end, through the public API, beside the floor that the disk sets.

use std::time::Instant;

use anyhow::{Result, ensure};
use sqlx::PgConnection;
use tasker::{Tasker, Workflow};

use crate::bench::Bench;
use crate::database::Database;
use crate::load;
use crate::samples::Samples;
use crate::server::{Kind, Server};
use crate::workflows::{self, DAG7, Runs};

/// Commits of the floor: as many as the longest way through the seven steps has, and the submit.
const FLOOR_COMMITS: usize = 6;
/// Rounds that are not counted: they make plans and caches.
const WARM: usize = 20;

#[derive(Default)]
struct Latency {
    dag7: Samples,
    chain5: Samples,
    floor: Samples,
}

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let finished = bench.config.size(10_000, 300);
    let tasks = bench.config.size(200, 20);

    let database = bench.server.database("latency").await?;
    let durable = measure(&bench.server, &database, finished, tasks).await?;
    bench.drop(database).await?;
    let server = Server::start(Kind::NoFsync)?;
    let database = server.database("latency").await?;
    let no_fsync = measure(&server, &database, finished, tasks).await?;
    bench.drop_of(&server, database).await?;

    let report = &mut bench.report;
    report.samples("dag7_ms", &durable.dag7);
    report.samples("chain5_ms", &durable.chain5);
    report.samples("commit_floor_ms", &durable.floor);
    report.samples("dag7_nofsync_ms", &no_fsync.dag7);
    report.samples("commit_floor_nofsync_ms", &no_fsync.floor);
    report.figure("dag7_p50_ms", durable.dag7.median());
    report.figure("dag7_p99_ms", durable.dag7.quantile(0.99));
    report.figure("commit_floor_ms", durable.floor.median());
    report.figure("dag7_minus_floor_ms", durable.dag7.median() - durable.floor.median());
    report.figure("chain5_p50_ms", durable.chain5.median());
    report.figure("dag7_nofsync_p50_ms", no_fsync.dag7.median());
    Ok(())
}

/// Finishes tasks first, then takes turns: the floor, seven steps, the floor, five steps.
async fn measure(server: &Server, database: &Database, finished: usize, tasks: usize) -> Result<Latency> {
    load::drain(server, database, finished).await?;
    let (dag7, chain5) = (workflows::dag7(), workflows::chain5());
    let tasker = database.tasker().connect().await?.workflow(chain5.clone());
    let (tasker, worker, runs) = load::start(tasker, dag7.clone()).await?;
    let mut connection = database.connect().await?;
    sqlx::query("create table floor (value int not null)").execute(&mut connection).await?;
    let mut latency = Latency::default();
    for round in 0..WARM + tasks {
        let floor = [commits(&mut connection).await?, commits(&mut connection).await?];
        let dag7 = task(&tasker, &dag7).await?;
        let chain5 = task(&tasker, &chain5).await?;
        if round >= WARM {
            for floor in floor {
                latency.floor.push(floor);
            }
            latency.dag7.push(dag7);
            latency.chain5.push(chain5);
        }
    }
    load::stop(&tasker, &worker).await;
    check(&runs, WARM + tasks)?;
    Ok(latency)
}

/// Milliseconds of six single rows, each committed before the next is sent.
async fn commits(connection: &mut PgConnection) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..FLOOR_COMMITS {
        sqlx::query("insert into floor (value) values ($1)").bind(1).execute(&mut *connection).await?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Milliseconds of one task.
async fn task(tasker: &Tasker, workflow: &Workflow) -> Result<f64> {
    let begun = Instant::now();
    let ended = tasker.submit(workflow, workflows::input()).await?.wait().await?;
    let took = begun.elapsed();
    ensure!(ended.is_complete(), "a task ended {}", ended.status());
    Ok(took.as_secs_f64() * 1e3)
}

/// A handler that ran twice would have made a task look slow for a reason that is not measured here.
fn check(runs: &Runs, rounds: usize) -> Result<()> {
    let steps = rounds as u64 * (DAG7 + 5);
    ensure!(runs.number() == steps, "{} handlers ran for {steps} steps", runs.number());
    Ok(())
}
