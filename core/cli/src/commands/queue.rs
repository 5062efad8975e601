//! `tasker queue` and `tasker worker`.

use super::Context;
use crate::args::{QueueCommand, WorkerCommand};
use crate::failure::Outcome;
use crate::output::{elapsed, or_dash, table, time};

pub(super) async fn queues(context: &Context, command: QueueCommand) -> Outcome {
    let QueueCommand::List = command;
    let engine = context.config.connect().await?;
    let queues = engine.queues().await?;
    context.output.show(&queues, |queues| {
        let rows = queues.iter().map(|queue| {
            vec![
                format!("{}/{}", queue.namespace, queue.name),
                queue.kind.clone(),
                queue.visible.to_string(),
                queue.leased.to_string(),
                or_dash(queue.oldest_ms.map(|ms| elapsed(i64::try_from(ms).unwrap_or(i64::MAX)))),
                queue.workers.to_string(),
                if queue.paused { "paused" } else { "open" }.to_owned(),
            ]
        });
        table(
            &["queue", "kind", "visible", "leased", "oldest", "workers", "state"],
            rows.collect(),
            "no queue yet: a worker makes them when it announces its handlers",
        )
    });
    Ok(())
}

pub(super) async fn workers(context: &Context, command: WorkerCommand) -> Outcome {
    let WorkerCommand::List { all } = command;
    let engine = context.config.connect().await?;
    let workers = engine.workers(all).await?;
    context.output.show(&workers, |workers| {
        let rows = workers.iter().map(|worker| {
            vec![
                worker.worker_id.to_string(),
                worker.name.clone(),
                worker.state.as_str().to_owned(),
                worker.kind.clone(),
                format!("{}/{}", worker.running, worker.concurrency),
                worker.handlers.len().to_string(),
                worker.queues.join(" "),
                format!("{} ago", elapsed(worker.heartbeat_age_ms)),
                time(worker.started_at),
            ]
        });
        table(
            &["id", "worker", "state", "kind", "running", "handlers", "queues", "heartbeat", "started"],
            rows.collect(),
            "no worker; start one with: tasker dev",
        )
    });
    Ok(())
}
