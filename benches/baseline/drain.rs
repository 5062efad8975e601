//! The yardstick's drain: four committers share what was done, each settles up to 64 results a call and takes as many steps as fit.
//!
//! A driver of its own (tokio-postgres), no handlers: a leased step is done at once. See `tables.sql` for what it leaves out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, Row};
use uuid::Uuid;

/// Committers, each on a connection of its own.
const COMMITTERS: usize = 4;
/// Results a call, and steps asked for.
const BATCH: usize = 64;
/// Steps that are leased and not yet settled.
const SLOTS: usize = COMMITTERS * BATCH;
/// The graph of the seven steps: parents and children by index.
const GRAPH: [(&[i32], &[i32]); 7] =
    [(&[], &[1, 2]), (&[0], &[3]), (&[0], &[4]), (&[1], &[5]), (&[2], &[5]), (&[3, 4], &[6]), (&[5], &[])];
const COMPLETE: &str = "select * from baseline.complete_steps($1, $2, $3, $4, 64, $5, '60 s')";
const RESULT: &str = r#"{"ok": true, "value": "0123456789abcdef0123456789abcdef"}"#;

/// A step that ran.
struct Done {
    message: i64,
    task: Uuid,
    idx: i32,
}

/// What the committers share.
#[derive(Default)]
struct Shared {
    done: Mutex<VecDeque<Done>>,
    /// Steps leased or asked for.
    taken: AtomicUsize,
    settled: AtomicU64,
    first: OnceLock<Instant>,
    deadlocks: AtomicUsize,
}

/// Makes the tables and functions in an empty database.
pub(crate) async fn install(url: &str) -> Result<()> {
    let client = connect(url).await?;
    client.batch_execute(include_str!("tables.sql")).await?;
    client.batch_execute(include_str!("functions.sql")).await?;
    for (idx, (parents, children)) in (0_i32..).zip(GRAPH) {
        client.execute("insert into baseline.graph values ($1, $2, $3)", &[&idx, &parents, &children]).await?;
    }
    Ok(())
}

/// Makes tasks, a hundred in each transaction.
pub(crate) async fn submit(url: &str, tasks: usize, input: &serde_json::Value) -> Result<()> {
    let client = connect(url).await?;
    let mut left = tasks;
    while left > 0 {
        let ids: Vec<Uuid> = (0..left.min(100)).map(|_| Uuid::now_v7()).collect();
        client.execute("select baseline.submit($1, $2)", &[&ids, input]).await?;
        left -= ids.len();
    }
    Ok(())
}

/// Runs everything that was submitted; answers how long it took from the first step to the last commit.
pub(crate) async fn drain(url: &str, tasks: usize) -> Result<Duration> {
    let steps = (tasks * GRAPH.len()) as u64;
    let shared = Arc::new(Shared::default());
    let committers = (0..COMMITTERS).map(|_| {
        let (url, shared) = (url.to_owned(), Arc::clone(&shared));
        tokio::spawn(async move { commit(&connect(&url).await?, &shared, steps).await })
    });
    for committer in committers.collect::<Vec<_>>() {
        committer.await??;
    }
    let took = shared.first.get().map(Instant::elapsed).unwrap_or_default();
    let deadlocks = shared.deadlocks.load(Ordering::Relaxed);
    if deadlocks > 0 {
        println!("  the yardstick had {deadlocks} deadlocks, which are not counted as the engine's");
    }
    let client = connect(url).await?;
    let open: i64 = client.query_one("select count(*) from baseline.task where finished_at is null", &[]).await?.get(0);
    ensure!(open == 0, "{open} tasks of the baseline did not end");
    Ok(took)
}

async fn commit(client: &Client, shared: &Shared, steps: u64) -> Result<()> {
    let complete = client.prepare(COMPLETE).await?;
    while shared.settled.load(Ordering::Acquire) < steps {
        let batch: Vec<Done> = {
            let mut done = shared.done.lock().unwrap_or_else(PoisonError::into_inner);
            let size = done.len().min(BATCH);
            done.drain(..size).collect()
        };
        // What is settled frees its place for what is asked for.
        let taken = shared.taken.fetch_sub(batch.len(), Ordering::AcqRel) - batch.len();
        let want = SLOTS.saturating_sub(taken).min(BATCH);
        shared.taken.fetch_add(want, Ordering::AcqRel);
        if batch.is_empty() && want == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let messages: Vec<i64> = batch.iter().map(|done| done.message).collect();
        let tasks: Vec<Uuid> = batch.iter().map(|done| done.task).collect();
        let idx: Vec<i32> = batch.iter().map(|done| done.idx).collect();
        let results = vec![RESULT; batch.len()];
        let asked = i32::try_from(want)?;
        let rows = loop {
            match client.query(&complete, &[&messages, &tasks, &idx, &results, &asked]).await {
                // The call did nothing then, and can be made again, as the real engine would.
                Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => {
                    shared.deadlocks.fetch_add(1, Ordering::Relaxed);
                }
                answer => break answer?,
            }
        };
        run(&rows, shared);
        // The places asked for beyond what came are free again; more may come than were asked for, by hand-off.
        shared.taken.fetch_add(rows.len(), Ordering::AcqRel);
        shared.taken.fetch_sub(want, Ordering::AcqRel);
        shared.settled.fetch_add(batch.len() as u64, Ordering::AcqRel);
        if batch.is_empty() && rows.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    Ok(())
}

/// "Runs" leased steps: reads what a handler would, and is done.
fn run(rows: &[Row], shared: &Shared) {
    if rows.is_empty() {
        return;
    }
    shared.first.get_or_init(Instant::now);
    let mut done = shared.done.lock().unwrap_or_else(PoisonError::into_inner);
    done.extend(rows.iter().map(|row| {
        let (_input, _results): (&str, Option<&str>) = (row.get(3), row.get(4));
        Done { message: row.get(0), task: row.get(1), idx: row.get(2) }
    }));
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // Ends with its client; an error of it shows in the client's next call.
    tokio::spawn(connection);
    Ok(client)
}
