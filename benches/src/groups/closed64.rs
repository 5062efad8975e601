//! Sixty-four callers, each submits seven steps, waits for their end and repeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::cpu;
use crate::database::Database;
use crate::load::{self, SLOTS};
use crate::samples::Samples;
use crate::server::Server;
use crate::workflows::{self, DAG7};

const CALLERS: usize = 64;
/// Connections for submits and looks; fewer than callers, as in an application.
const POOL: u32 = 16;
/// Before the clock starts.
const WARM: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;

/// What callers saw while the clock ran.
pub(crate) struct Closed {
    pub(crate) steps_per_s: f64,
    /// Of this process, callers and worker, and of the server.
    cpu_ms_per_step: f64,
    latency_ms: Samples,
    /// From the first to the last task, before and after the clock too.
    pub(crate) steps: u64,
}

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let time = Duration::from_secs(bench.config.size(10, 2) as u64);
    let (mut rates, mut cpu, mut latency) = (Samples::default(), Samples::default(), Samples::default());
    let database = bench.server.database("closed64").await?;
    for _ in 0..ROUNDS {
        let closed = callers(&bench.server, &database, CALLERS, time).await?;
        rates.push(closed.steps_per_s);
        cpu.push(closed.cpu_ms_per_step);
        latency.push(closed.latency_ms.median());
    }
    bench.drop(database).await?;
    bench.report.samples("closed64_steps_per_s", &rates);
    bench.report.samples("closed64_cpu_ms_per_step", &cpu);
    bench.report.samples("closed64_task_p50_ms", &latency);
    bench.report.figure("closed64_steps_per_s", rates.median());
    bench.report.figure("closed64_cpu_ms_per_step", cpu.median());
    Ok(())
}

/// Lets this many callers work against one worker in this process.
pub(crate) async fn callers(server: &Server, database: &Database, callers: usize, time: Duration) -> Result<Closed> {
    let workflow = workflows::dag7();
    let tasker = database.tasker().concurrency(SLOTS).pool_size(POOL).connect().await?;
    let (tasker, worker, runs) = load::start(tasker, workflow.clone()).await?;
    let (is_timed, is_over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let (tasker, workflow) = (tasker.clone(), workflow.clone());
            let (is_timed, is_over) = (Arc::clone(&is_timed), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut latency = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let ended = tasker.submit(&workflow, workflows::input()).await?.wait().await?;
                    ensure!(ended.is_complete(), "a task ended {}", ended.status());
                    if is_timed.load(Ordering::Relaxed) {
                        latency.push(begun.elapsed().as_secs_f64() * 1e3);
                    }
                }
                Ok(latency)
            })
        })
        .collect();
    tokio::time::sleep(WARM).await;
    let cpu = || Ok::<_, anyhow::Error>(cpu::of_this_process()? + cpu::of_server(server.pid())?);
    let (cpu_before, steps_before, begun) = (cpu()?, runs.number(), Instant::now());
    is_timed.store(true, Ordering::Relaxed);
    tokio::time::sleep(time).await;
    is_timed.store(false, Ordering::Relaxed);
    let (took, steps, cpu) = (begun.elapsed(), runs.number() - steps_before, cpu()? - cpu_before);
    is_over.store(true, Ordering::Relaxed);
    let mut latency_ms = Samples::default();
    for caller in callers {
        caller.await??.into_iter().for_each(|value: f64| latency_ms.push(value));
    }
    load::stop(&tasker, &worker).await;
    ensure!(runs.number() % DAG7 == 0, "{} handlers ran, which is no number of whole tasks", runs.number());
    Ok(Closed {
        steps_per_s: steps as f64 / took.as_secs_f64(),
        cpu_ms_per_step: cpu * 1e3 / steps as f64,
        latency_ms,
        steps: runs.number(),
    })
}
