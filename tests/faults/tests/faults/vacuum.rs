//! A transaction that stays open and keeps every dead row from being removed.

use std::time::Duration;

use sqlx::Executor as _;
use tasker_faults::Order;
use tokio::time::Instant;

use crate::config::scaled;
use crate::world::World;

/// By how much a batch may take longer than the first, with every dead row since then in its way. Generous: other tests run beside it.
const SLOWER: f64 = 4.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_idle_transaction_that_holds_back_vacuum() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let mut idle = world.open().await;
    idle.execute("begin isolation level repeatable read").await.unwrap();
    idle.execute("select pg_current_xact_id()").await.unwrap();
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..4 {
        let start = Instant::now();
        world.submit(scaled(100), Order::default()).await;
        world.wait_for_all().await;
        times.push(start.elapsed());
    }
    let dead =
        "select coalesce(sum(n_dead_tup), 0)::bigint from pg_stat_user_tables where schemaname in ('tasker', 'pgmq')";
    sqlx::query("select pg_stat_force_next_flush()").execute(&world.pool).await.unwrap();
    let dead = world.number(dead).await;
    eprintln!("long idle transaction: batches took {times:?}, {dead} dead rows are kept");
    idle.execute("rollback").await.unwrap();
    world.hold_promises("long idle transaction", Duration::ZERO).await;
    let first = times[0].as_secs_f64().max(0.2);
    let last = times[times.len() - 1].as_secs_f64();
    assert!(last < first * SLOWER, "the last batch took {last:.2} s, the first {first:.2} s");
}
