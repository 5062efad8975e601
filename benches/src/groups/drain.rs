//! Tasks of seven steps that wait already: how fast a worker gets through them, side by side with the yardstick in `baseline/`.

use anyhow::Result;

use crate::baseline;
use crate::bench::Bench;
use crate::cpu;
use crate::load;
use crate::samples::Samples;
use crate::workflows::{self, DAG7};

const ROUNDS: usize = 5;

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let tasks = bench.config.size(4_000, 300);
    let steps = tasks as f64 * DAG7 as f64;
    let ours = bench.server.database("drain").await?;
    let yardstick = bench.server.database("baseline").await?;
    baseline::install(yardstick.url()).await?;
    let [mut rates, mut costs, mut yardstick_rates, mut yardstick_costs, mut ratios] = [const { Vec::new() }; 5];
    // The first round makes plans, caches and the files' first pages; it is not counted.
    for round in 0..=ROUNDS {
        baseline::submit(yardstick.url(), tasks, &workflows::input()).await?;
        let before = cpu::of_server(bench.server.pid())?;
        let took = baseline::drain(yardstick.url(), tasks).await?;
        let cost = cpu::of_server(bench.server.pid())? - before;
        let drained = load::drain(&bench.server, &ours, tasks).await?;
        if round > 0 {
            let rate = steps / took.as_secs_f64();
            yardstick_rates.push(rate);
            yardstick_costs.push(cost * 1e6 / steps);
            rates.push(drained.steps_per_s);
            costs.push(drained.server_us_per_step);
            ratios.push(drained.steps_per_s / rate);
        }
    }
    bench.drop(ours).await?;
    // Its deadlocks would not be ours.
    bench.server.drop(yardstick).await?;
    let mut median = |name: &str, values: Vec<f64>| {
        let samples: Samples = values.into_iter().collect();
        bench.report.samples(name, &samples);
        samples.median()
    };
    let figures = [
        ("drain_steps_per_s", median("drain_steps_per_s", rates)),
        ("drain_pg_us_per_step", median("drain_pg_us_per_step", costs)),
        ("drain_over_prototype", median("drain_over_prototype", ratios)),
        ("prototype_steps_per_s", median("prototype_steps_per_s", yardstick_rates)),
        ("prototype_pg_us_per_step", median("prototype_pg_us_per_step", yardstick_costs)),
    ];
    for (key, value) in figures {
        bench.report.figure(key, value);
    }
    Ok(())
}
