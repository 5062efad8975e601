//! The database's clock jumps. A worker's own durations are monotonic by type (`tokio::time::Instant`): only this clock can jump.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use tasker_faults::Order;
use tokio::time::{Instant, sleep};

use crate::config::rounds;
use crate::world::World;

/// Moves the engine's clock for every session that begins from now on. A third of the workers' sessions is ended, so that sessions of
/// both times work beside each other; then all.
async fn jump(world: &World, seconds: i64) {
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&world.pool).await.unwrap();
    let set = format!("alter database \"{name}\" set tasker.clock_offset = '{seconds} seconds'");
    sqlx::raw_sql(AssertSqlSafe(set)).execute(&world.pool).await.unwrap();
    for third in ["pid % 3 = 0", "true"] {
        let end = format!(
            "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity \
             where datname = current_database() and pid <> pg_backend_pid() and {third}"
        );
        world.number(&end).await;
        sleep(Duration::from_millis(200)).await;
    }
}

async fn survive_jump(seconds: i64) {
    for _ in 0..rounds() {
        let mut world = World::new().await;
        sqlx::query("insert into tasker.setting (key, value) values ('test_mode', 'on')")
            .execute(&world.pool)
            .await
            .unwrap();
        let _workers = (world.worker().await, world.worker().await);
        world.submit(40, Order { slow_ms: 100, failures: 1, ..Order::default() }).await;
        let jumped = Instant::now();
        jump(&world, seconds).await;
        world.wait_for_all().await;
        world.hold_promises(&format!("clock {seconds:+} s"), jumped.elapsed()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_ahead_by_an_hour() {
    survive_jump(3600).await;
}

/// What was due waits until the clock is there again: a jump back delays by as much as it jumps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_back_by_three_seconds() {
    survive_jump(-3).await;
}
