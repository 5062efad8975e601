//! `tasker doctor`: everything that Tasker needs, each with what to do where it is missing.

use std::time::Duration;

use serde::Serialize;
use tasker_engine::Engine;
use tasker_engine::queries::{Facts, WorkerState};
use tasker_model::{ErrorKind, Result};

use super::Context;
use crate::args::{DoctorArgs, Format};
use crate::config::without_password;
use crate::failure::{Failure, Outcome};
use crate::output::{Color, count, duration, elapsed, plain};

/// How long a NOTIFY may take before it counts as lost.
const NOTIFY_PATIENCE: Duration = Duration::from_secs(2);
/// A breach that is still there after this is no work in flight.
const SECOND_LOOK: Duration = Duration::from_millis(1_500);
/// A message older than this says that its queue is not kept up with.
const OLD_MESSAGE_MS: u64 = 60_000;
const WANTED_PARTITIONS: i64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    Warning,
    Failure,
}

#[derive(Debug, Serialize)]
struct Check {
    #[serde(rename = "check")]
    name: &'static str,
    status: Status,
    found: String,
    remedy: Option<String>,
}

fn ok(check: &'static str, found: impl Into<String>) -> Check {
    Check { name: check, status: Status::Ok, found: found.into(), remedy: None }
}

fn warning(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { status: Status::Warning, remedy: Some(remedy.into()), ..ok(check, found) }
}

fn failure(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { status: Status::Failure, ..warning(check, found, remedy) }
}

pub(super) async fn run(context: &Context, args: DoctorArgs) -> Outcome {
    let checks = examine(context).await?;
    let is_well = checks.iter().all(|check| check.status != Status::Failure);
    if !args.quiet || !is_well || context.output.format == Format::Json {
        context
            .output
            .show(&checks, |checks| checks.iter().map(|check| line(context, check)).collect::<Vec<_>>().join("\n"));
    }
    if is_well { Ok(()) } else { Err(Failure::Told(1)) }
}

fn line(context: &Context, check: &Check) -> String {
    let (glyph, color) = match check.status {
        Status::Ok => ("✓", Color::Green),
        Status::Warning => ("!", Color::Yellow),
        Status::Failure => ("✗", Color::Red),
    };
    let remedy = check.remedy.as_ref().map(|remedy| format!("\n  {:13} → {remedy}", "")).unwrap_or_default();
    format!("{} {:13} {}{remedy}", context.output.paint(color, glyph), check.name, plain(&check.found))
}

async fn examine(context: &Context) -> Outcome<Vec<Check>> {
    let mut checks = Vec::new();
    let (url, origin) = match context.config.database_url() {
        Ok(found) => found,
        Err(error) => {
            return Ok(vec![failure("database", "none is configured", error.message)]);
        }
    };
    let shown = without_password(&url);
    let engine = match context.config.connect_to(url).await {
        Ok(engine) => engine,
        Err(error) => {
            let remedy = "check that the server runs, and the address with: tasker config show --origin";
            return Ok(vec![failure("database", format!("{shown}: {}", error.message), remedy)]);
        }
    };
    checks.push(ok("database", format!("{shown} (from {origin})")));
    let found = engine.installation().await?;
    if !found.unknown.is_empty() {
        checks.push(failure(
            "schema",
            format!("schema {} is newer than this program", engine.schema()),
            "upgrade the program",
        ));
        return Ok(checks);
    }
    if !found.is_current() {
        let what = if found.pending.is_empty() {
            "its functions are of another version than this program".to_owned()
        } else {
            format!("{} pending", count(found.pending.len(), "migration"))
        };
        let found = format!("schema {} is not up to date: {what}", engine.schema());
        checks.push(failure("schema", found, "tasker db migrate"));
        return Ok(checks);
    }
    checks.push(ok("schema", format!("schema {} is up to date", engine.schema())));
    checks.extend(found_or_refused("server", engine.facts().await.map(|facts| server(context, &facts)))?);
    checks.push(notify(&engine).await);
    checks.extend(found_or_refused("handlers", handlers(&engine).await)?);
    checks.extend(found_or_refused("workers", workers(&engine).await)?);
    checks.extend(found_or_refused("queues", queues(&engine).await)?);
    checks.extend(found_or_refused("invariants", invariants(&engine).await.map(|check| vec![check]))?);
    Ok(checks)
}

/// What this role may not look at is one more finding: it hides none of the others.
fn found_or_refused(name: &'static str, checks: Result<Vec<Check>>) -> Result<Vec<Check>> {
    match checks {
        Err(error) if error.kind == ErrorKind::Forbidden => Ok(vec![warning(
            name,
            format!("not checked: {}", error.message),
            "run tasker doctor as the schema's owner",
        )]),
        checks => checks,
    }
}

fn server(context: &Context, facts: &Facts) -> Vec<Check> {
    let version = format!("PostgreSQL {}", facts.server_version);
    let pool = i64::from(context.config.number("pool_size").unwrap_or(10));
    let connections = format!("{} of {} in use, the pool may take {pool}", facts.connections, facts.max_connections);
    vec![
        if facts.server_version_number >= 150_000 {
            ok("server", version)
        } else {
            failure("server", version, "Tasker needs PostgreSQL 15 or newer")
        },
        if facts.connections + pool <= facts.max_connections {
            ok("connections", connections)
        } else {
            warning("connections", connections, "raise max_connections of the server, or lower pool_size")
        },
        if facts.partitions_ahead >= WANTED_PARTITIONS {
            ok("partitions", format!("{} weeks of events ahead", facts.partitions_ahead))
        } else {
            let found = format!("only {} weeks of events ahead", facts.partitions_ahead);
            warning("partitions", found, "a running worker makes them; or: tasker db migrate")
        },
        if facts.default_partition_used {
            let remedy = "its rows keep that week's partition from being made: move them out of event_default, then run tasker db migrate";
            warning("partitions", "the default partition of the events holds rows", remedy)
        } else {
            ok("partitions", "the default partition is empty")
        },
        if facts.test_mode {
            let remedy = "if this is no test database: tasker db test-mode off";
            warning("test mode", "the database is marked for tests", remedy)
        } else {
            ok("test mode", "off")
        },
    ]
}

async fn notify(engine: &Engine) -> Check {
    let remedy =
        "a pooler in transaction mode drops it: workers find their work by polling, later; connect them directly";
    match engine.notify_round_trip(NOTIFY_PATIENCE).await {
        Ok(Some(time)) => ok("notify", format!("arrives after {}", duration(time))),
        Ok(None) => warning("notify", "does not arrive", remedy),
        Err(error) => warning("notify", error.message, remedy),
    }
}

async fn handlers(engine: &Engine) -> Result<Vec<Check>> {
    let unserved = engine.unserved_handlers().await?;
    if unserved.is_empty() {
        return Ok(vec![ok("handlers", "each has a live worker")]);
    }
    let check = |handler: &tasker_engine::queries::UnservedHandler| {
        let needed =
            if handler.workflows.is_empty() { "an old revision".to_owned() } else { handler.workflows.join(", ") };
        let name = format!("{} in namespace {}", handler.handler, handler.namespace);
        if handler.held > 0 {
            let found = format!("no live worker has {name}; steps that wait for it: {}", handler.held);
            failure("handlers", found, format!("start the worker that runs {needed}"))
        } else {
            let found = format!("no live worker has {name}");
            warning("handlers", found, format!("start the worker that runs {needed}"))
        }
    };
    Ok(unserved.iter().map(check).collect())
}

async fn workers(engine: &Engine) -> Result<Vec<Check>> {
    let workers = engine.workers(false).await?;
    if workers.is_empty() {
        return Ok(vec![warning(
            "workers",
            "none is running",
            "start one: tasker dev, or the worker of your application",
        )]);
    }
    let check = |worker: &tasker_engine::queries::WorkerRow| {
        let found = format!("{}: heartbeat {} ago", worker.name, elapsed(worker.heartbeat_age_ms));
        if worker.state == WorkerState::Live {
            ok("workers", found)
        } else {
            warning("workers", found, "it is gone or cut off; its steps run elsewhere once their leases end")
        }
    };
    Ok(workers.iter().map(check).collect())
}

async fn queues(engine: &Engine) -> Result<Vec<Check>> {
    let queues = engine.queues().await?;
    let check = |queue: &tasker_engine::queries::QueueRow| {
        let age = queue.oldest_ms.unwrap_or_default();
        let oldest = match queue.oldest_ms {
            Some(ms) => format!(", oldest {}", elapsed(i64::try_from(ms).unwrap_or(i64::MAX))),
            None => String::new(),
        };
        let found = format!(
            "{}/{} ({}): {} visible, {} leased{oldest}",
            queue.namespace, queue.name, queue.kind, queue.visible, queue.leased
        );
        if queue.paused {
            warning("queues", format!("{found}, paused"), "resume it when it may run again")
        } else if queue.visible > 0 && queue.workers == 0 {
            failure("queues", found, "no live worker serves it: start one")
        } else if age > OLD_MESSAGE_MS {
            warning("queues", found, "add workers or concurrency")
        } else {
            ok("queues", found)
        }
    };
    Ok(queues.iter().map(check).collect())
}

/// Takes no locks, so that work in flight may look like a breach: what stays is one.
async fn invariants(engine: &Engine) -> Result<Check> {
    let mut breaches = engine.sample_invariants().await?;
    if !breaches.is_empty() {
        tokio::time::sleep(SECOND_LOOK).await;
        let again = engine.sample_invariants().await?;
        breaches.retain(|breach| again.contains(breach));
    }
    let Some(first) = breaches.first() else {
        return Ok(ok("invariants", "hold in a sample of the newest tasks"));
    };
    let step = first.idx.map(|idx| format!(" step {idx}")).unwrap_or_default();
    let found = format!(
        "{} broken, first {} of task {}{step}: {}",
        breaches.len(),
        first.invariant,
        first.task_id,
        first.detail
    );
    Ok(failure("invariants", found, "a defect of Tasker: keep `tasker task events` of that task and report it"))
}
