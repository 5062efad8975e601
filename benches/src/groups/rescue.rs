//! Workers are killed (`kill -9`) in the middle of their steps, again and again: how long until others run those steps, whether any task
//! is lost, and whether any effect is applied twice.

use std::time::Duration;

use anyhow::{Result, ensure};
use sqlx::{PgConnection, PgPool};
use tasker::prelude::*;

use crate::bench::Bench;
use crate::child::{Child, Work};
use crate::database::Database;
use crate::load;
use crate::samples::Samples;
use crate::workflows;

/// The shortest lease there is.
const LEASE: Duration = Duration::from_secs(2);
const WORKERS: usize = 3;
/// Between two kills; shorter than the lease, so that a rescue may itself be killed.
const PAUSE: Duration = Duration::from_millis(1_500);
/// Between two submits: about a dozen steps run at any time.
const SUBMIT: Duration = Duration::from_millis(50);
/// What a step takes.
const WORK: Duration = Duration::from_millis(100);
/// After the last kill; a task not finished by then is lost.
const PATIENCE: Duration = Duration::from_mins(1);

/// Leaves a trace outside its transaction, works, and leaves its effect inside: no key makes the effect unique.
#[tasker::step]
async fn trace(ctx: Ctx, State(pool): State<PgPool>) -> std::result::Result<Settled, StepError> {
    let (step, pid) = (ctx.idempotency_key().to_owned(), i64::from(std::process::id()));
    sqlx::query("insert into started (step, pid) values ($1, $2)").bind(&step).bind(pid).execute(&pool).await?;
    tokio::time::sleep(WORK).await;
    ctx.transaction(async |connection| {
        sqlx::query("insert into effect (step) values ($1)").bind(&step).execute(&mut *connection).await?;
        Ok::<_, StepError>(())
    })
    .await
}

/// The shape of the seven steps, each of which leaves its trace.
pub(crate) fn workflow() -> Workflow {
    Workflow::new("rescue")
        .step(trace.named("s0"))
        .step(trace.named("s1").after("s0"))
        .step(trace.named("s2").after("s0"))
        .step(trace.named("s3").after("s1"))
        .step(trace.named("s4").after("s2"))
        .step(trace.named("s5").after(["s3", "s4"]))
        .step(trace.named("s6").after("s5"))
}

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let kills = bench.config.size(60, 3);
    let database = bench.server.database("rescue").await?;
    let mut connection = database.connect().await?;
    for table in [
        "create table started (step text not null, pid bigint not null, at timestamptz not null default clock_timestamp())",
        "create table effect (step text not null, at timestamptz not null default clock_timestamp())",
        "create table killed (pid bigint not null, at timestamptz not null)",
        "create index on started (step)",
        "create index on effect (step)",
    ] {
        sqlx::query(table).execute(&mut connection).await?;
    }
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(worker(&database).await?);
    }
    let (over, is_over) = tokio::sync::oneshot::channel();
    let submits = tokio::spawn(submit(database.tasker().connect().await?, is_over));
    for kill in 0..kills {
        tokio::time::sleep(PAUSE).await;
        let victim = workers.remove(kill % WORKERS);
        sqlx::query("insert into killed (pid, at) values ($1, clock_timestamp())")
            .bind(i64::from(victim.pid()))
            .execute(&mut connection)
            .await?;
        victim.kill().await?;
        workers.push(worker(&database).await?);
    }
    let _ = over.send(());
    let tasks = submits.await??;
    // Who does not come to an end in time is lost, and counted below.
    let _ = tokio::time::timeout(PATIENCE, load::finished(&mut connection, Duration::from_millis(100))).await;
    for worker in workers {
        worker.stop().await?;
    }
    let times = rescues(&mut connection).await?;
    let complete = count(&mut connection, "select count(*) from tasker.task where state = 'complete'").await?;
    let twice =
        count(&mut connection, "select count(*) from (select from effect group by step having count(*) > 1) t").await?;
    let effects = count(&mut connection, "select count(distinct step) from effect").await?;
    println!("  {kills} kills hit {} running steps of {tasks} tasks", times.values().len());
    ensure!(effects == 7 * complete, "{effects} effects of {complete} complete tasks of seven steps");
    drop(connection);
    bench.drop(database).await?;
    bench.report.samples("rescue_ms", &times);
    bench.report.figure("rescue_p50_ms", times.median());
    bench.report.figure("rescue_p99_ms", times.quantile(0.99));
    bench.report.figure("rescue_lost", (tasks - complete) as f64);
    bench.report.figure("rescue_applied_twice", twice as f64);
    Ok(())
}

async fn worker(database: &Database) -> Result<Child> {
    Child::start(database, Work::Rescue, Some(20), Some(LEASE)).await
}

/// Submits at a steady pace until told to stop; answers how many.
async fn submit(tasker: Tasker, mut is_over: tokio::sync::oneshot::Receiver<()>) -> Result<i64> {
    let mut submitted = 0;
    loop {
        tokio::select! {
            _ = &mut is_over => break,
            () = tokio::time::sleep(SUBMIT) => {}
        }
        tasker.submit("rescue", workflows::input()).await?;
        submitted += 1;
    }
    tasker.pool().close().await;
    Ok(submitted)
}

/// Milliseconds from each kill to the next start of each step that was running in that process and had left no effect.
async fn rescues(connection: &mut PgConnection) -> Result<Samples> {
    let times: Vec<f64> = sqlx::query_scalar(
        "select (extract(epoch from min(again.at) - k.at) * 1000)::float8
         from killed k
         join started s on s.pid = k.pid and s.at < k.at
         join started again on again.step = s.step and again.at > k.at
         where not exists (select from effect e where e.step = s.step and e.at < k.at)
         group by k.pid, k.at, s.step",
    )
    .fetch_all(connection)
    .await?;
    Ok(times.into_iter().collect())
}

async fn count(connection: &mut PgConnection, sql: &'static str) -> Result<i64> {
    Ok(sqlx::query_scalar(sql).fetch_one(connection).await?)
}
