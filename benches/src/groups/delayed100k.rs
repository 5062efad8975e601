//! What 100,000 delayed steps add to the cost of a claim: two databases, one with them and one without, take turns.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sqlx::PgConnection;
use tasker_engine::{Caller, Engine, NewWorker, pgmq};

use crate::bench::Bench;
use crate::database::Database;
use crate::load;
use crate::samples::Samples;
use crate::workflows;

/// Steps that each claim takes.
const WANT: usize = 8;
/// Claims before those that count.
const WARM: usize = 50;

/// A worker whose claims are made by hand.
struct Claimer {
    engine: Engine,
    connection: PgConnection,
    caller: Caller,
}

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let delayed = bench.config.size(100_000, 2_000);
    let claims = bench.config.size(400, 50);
    let (plain, crowded) = (bench.server.database("plain").await?, bench.server.database("delayed").await?);
    let mut claimers = [prepare(&plain, 0, WARM + claims).await?, prepare(&crowded, delayed, WARM + claims).await?];
    let mut times = [Samples::default(), Samples::default()];
    for round in 0..WARM + claims {
        // Who is first may find warmer caches; each is first every other time.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let took = claimers[which].claim().await?;
            if round >= WARM {
                times[which].push(took.as_secs_f64() * 1e6);
            }
        }
    }
    for claimer in claimers {
        claimer.engine.pool().close().await;
    }
    bench.drop(plain).await?;
    bench.drop(crowded).await?;
    let [without, with] = times;
    bench.report.samples("claim_us", &without);
    bench.report.samples("claim_among_delayed_us", &with);
    bench.report.figure("delayed100k_claim_ratio", with.median() / without.median());
    Ok(())
}

/// Submits single steps, some for tomorrow and enough for now, and announces a worker for them.
async fn prepare(database: &Database, delayed: usize, claims: usize) -> Result<Claimer> {
    let workflow = workflows::single();
    load::announce(database, workflow.clone()).await?;
    let tasker = database.tasker().connect().await?;
    let engine = tasker.engine().clone();
    let mut connection = database.connect().await?;
    load::submit_later(&engine, &mut connection, &workflow, delayed, Duration::from_hours(24)).await?;
    load::submit(&engine, &mut connection, &workflow, claims * WANT).await?;
    let waiting: i64 = sqlx::query_scalar("select count(*) from tasker.timer").fetch_one(&mut connection).await?;
    ensure!(usize::try_from(waiting)? == delayed, "{waiting} timers for {delayed} delayed steps");

    let kind = "rust";
    let lease = Duration::from_mins(10);
    let worker = NewWorker {
        name: "bench".to_owned(),
        kind: kind.to_owned(),
        host: "localhost".to_owned(),
        pid: i32::try_from(std::process::id())?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        concurrency: 256,
        lease,
    };
    let worker_id = engine.start_worker(&worker).await?;
    let handlers = [("default".to_owned(), "noop".to_owned())];
    let handlers: Vec<i32> =
        engine.announce(worker_id, kind, &handlers).await?.iter().map(|handler| handler.handler_id).collect();
    let queues = engine.serve_queues(worker_id, kind, &handlers, &[]).await?;
    let caller = Caller {
        worker_id,
        queues,
        handlers,
        exclude: Vec::new(),
        want: WANT,
        handoff: 0,
        turn: 0,
        lease,
        relaxed: false,
    };
    Ok(Claimer { engine, connection, caller })
}

impl Claimer {
    async fn claim(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let reply = pgmq::receive(&self.engine, &mut self.connection, &self.caller).await?;
        let took = begun.elapsed();
        self.caller.turn = self.caller.turn.wrapping_add(1);
        ensure!(reply.leased.len() == WANT, "a claim of {WANT} steps got {}", reply.leased.len());
        Ok(took)
    }
}
