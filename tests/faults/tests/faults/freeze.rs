//! A worker that stands still past its lease and then goes on, as after a long pause of its machine.

use std::time::Duration;

use tasker_faults::Order;
use tokio::time::{Instant, sleep};

use crate::config::rounds;
use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stopped_past_its_lease_and_continued() {
    for _ in 0..rounds() {
        let mut world = World::new().await;
        let sleeper = world.worker().await;
        world.submit(8, Order { slow_ms: 400, failures: 1, ..Order::default() }).await;
        let slow = "select exists (select from tasker.step s join tasker.task k using (task_id) \
                    join tasker.workflow_step w on w.revision_id = k.revision_id and w.idx = s.idx \
                    where w.name = 'ship' and s.state = 'ready')";
        world.until("slow steps run", slow).await;
        sleeper.freeze();
        let frozen = Instant::now();
        let _heir = world.worker().await;
        // Its steps come to others when the lease ends; then it goes on with the same ones.
        sleep(Duration::from_millis(2_600)).await;
        sleeper.thaw();
        world.wait_for_all().await;
        // Whatever the sleeper still believes has been said by now.
        sleep(Duration::from_millis(500)).await;
        world.hold_promises("a worker frozen for 2.6 s", frozen.elapsed()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stopped_inside_its_transaction_finds_its_lease_gone() {
    for _ in 0..rounds() {
        let mut world = World::new().await;
        let mut sleeper = world.worker_stopping_at("mid_step").await;
        world.submit(1, Order::default()).await;
        sleeper.says("at mid_step").await;
        sleeper.freeze();
        let frozen = Instant::now();
        let _heir = world.worker().await;
        world.wait_for_all().await;
        let resumed = frozen.elapsed();
        // It wakes up, and inserts its effect for a step that another one has done.
        sleeper.go().await;
        sleeper.thaw();
        sleep(Duration::from_secs(1)).await;
        world.hold_promises("a worker frozen before its transaction", resumed).await;
    }
}

/// A third of two seconds is no whole number of microseconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_worker_is_heard_of_whatever_its_lease() {
    let world = World::new().await;
    let _worker = world.worker().await;
    world.until("the worker says that it is idle", "select idle_until is not null from tasker.worker").await;
    let before = "create table seen as select heartbeat_at from tasker.worker";
    sqlx::query(before).execute(&world.pool).await.unwrap();
    let again = "select w.heartbeat_at > s.heartbeat_at + interval '1 second' from tasker.worker w, seen s";
    world.until("it goes on saying so", again).await;
}
