//! Work for the benchmarks: tasks by the hundred, and workers that drain them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tasker::{Engine, Payload, Tasker, Worker, Workflow};
use tasker_engine::{Root, Submission};

use crate::clock;
use crate::cpu;
use crate::database::Database;
use crate::samples::Samples;
use crate::server::Server;
use crate::workflows::{self, DAG7, Runs};

/// Slots of a worker that is to be busy: as many as its four committers can settle at once.
pub(crate) const SLOTS: usize = 256;
/// Tasks that one call makes.
const CHUNK: usize = 100;
/// How long a worker may take to end.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// Makes tasks on this connection, a hundred a call; in one transaction if it has one.
pub(crate) async fn submit(
    engine: &Engine,
    connection: &mut PgConnection,
    workflow: &Workflow,
    tasks: usize,
) -> Result<()> {
    submit_at(engine, connection, workflow, tasks, None).await
}

/// The same, for later.
pub(crate) async fn submit_later(
    engine: &Engine,
    connection: &mut PgConnection,
    workflow: &Workflow,
    tasks: usize,
    delay: Duration,
) -> Result<()> {
    submit_at(engine, connection, workflow, tasks, Some(clock::now() + delay)).await
}

async fn submit_at(
    engine: &Engine,
    connection: &mut PgConnection,
    workflow: &Workflow,
    tasks: usize,
    run_at: Option<DateTime<Utc>>,
) -> Result<()> {
    let revision = engine.register(&workflow.revision()?).await?.revision_id;
    let input = Payload::from_value(&workflows::input())?;
    let submission = Submission { run_at, ..Submission::new(revision, input) };
    let mut left = tasks;
    while left > 0 {
        let chunk = vec![submission.clone(); left.min(CHUNK)];
        engine.submit(connection, &chunk, None, Root::Anyone).await?;
        left -= chunk.len();
    }
    Ok(())
}

/// Waits until no task is open.
pub(crate) async fn finished(connection: &mut PgConnection, pause: Duration) -> Result<()> {
    let sql = "select not exists (select from tasker.task where finished_at is null)";
    while !sqlx::query_scalar::<_, bool>(sql).fetch_one(&mut *connection).await? {
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

/// A Tasker with one workflow whose worker runs in this process.
pub(crate) async fn start(tasker: Tasker, workflow: Workflow) -> Result<(Tasker, Worker, Runs)> {
    let runs = Runs::default();
    let tasker = tasker.workflow(workflow).with_state(runs.clone());
    let worker = tasker.start().await?;
    Ok((tasker, worker, runs))
}

/// Ends what [`start`] began, so that the database has everything its connections counted.
pub(crate) async fn stop(tasker: &Tasker, worker: &Worker) {
    worker.drain(GRACE).await;
    tasker.pool().close().await;
}

/// Makes the queues of a workflow: a task submitted before any worker was there waits for the handler, not in a queue.
pub(crate) async fn announce(database: &Database, workflow: Workflow) -> Result<()> {
    let (tasker, worker, _) = start(database.tasker().connect().await?, workflow.clone()).await?;
    tasker.submit(&workflow, workflows::input()).await?.wait().await?;
    stop(&tasker, &worker).await;
    Ok(())
}

/// How a drain went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drained {
    pub(crate) steps_per_s: f64,
    pub(crate) server_us_per_step: f64,
}

/// Makes tasks of seven steps, then starts a worker and waits for the end of all. The time is from the first step to the last commit;
/// the server's processor time is that of the worker's whole life.
pub(crate) async fn drain(server: &Server, database: &Database, tasks: usize) -> Result<Drained> {
    let workflow = workflows::dag7();
    announce(database, workflow.clone()).await?;
    let mut connection = database.connect().await?;
    let tasker = database.tasker().concurrency(SLOTS).connect().await?;
    submit(tasker.engine(), &mut connection, &workflow, tasks).await?;
    let before = cpu::of_server(server.pid())?;
    let (tasker, worker, runs) = start(tasker, workflow).await?;
    let steps = tasks as u64 * DAG7;
    while runs.number() < steps {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    finished(&mut connection, Duration::from_millis(1)).await?;
    let took = runs.first().map(|first| first.elapsed()).unwrap_or_default();
    stop(&tasker, &worker).await;
    let server_time = cpu::of_server(server.pid())? - before;
    ensure!(runs.number() == steps, "{} handlers ran for {steps} steps", runs.number());
    Ok(Drained { steps_per_s: steps as f64 / took.as_secs_f64(), server_us_per_step: server_time * 1e6 / steps as f64 })
}

/// Runs tasks one after the other, each from its submit to the sight of its end; answers steps a second of each.
pub(crate) async fn one_at_a_time(
    database: &Database,
    workflow: Workflow,
    steps: u64,
    tasks: usize,
) -> Result<Samples> {
    let tasker = database.tasker().concurrency(SLOTS).connect().await?;
    let (tasker, worker, _) = start(tasker, workflow.clone()).await?;
    let mut rates = Samples::default();
    // The first one makes queues, plans and caches.
    for task in 0..=tasks {
        let begun = Instant::now();
        let ended = tasker.submit(&workflow, workflows::input()).await?.wait().await?;
        ensure!(ended.is_complete(), "a task ended {}", ended.status());
        if task > 0 {
            rates.push(steps as f64 / begun.elapsed().as_secs_f64());
        }
    }
    stop(&tasker, &worker).await;
    Ok(rates)
}
