//! kill -9 of a worker inside a step: at once, in its transaction, after it, and between the handler and its settlement.

use tasker_faults::Order;
use tokio::time::Instant;

use crate::config::rounds;
use crate::world::World;

/// Kills a worker that stopped itself at a point; another one, which runs all the time, takes over when the lease ends.
async fn kill_at(point: &str) {
    for _ in 0..rounds() {
        let mut world = World::new().await;
        let mut victim = world.worker_stopping_at(point).await;
        world.submit(5, Order { slow_ms: 20, failures: 1, ..Order::default() }).await;
        victim.says(&format!("at {point}")).await;
        let _heir = world.worker().await;
        let killed = Instant::now();
        victim.kill().await;
        world.wait_for_all().await;
        world.hold_promises(&format!("kill -9 {point}"), killed.elapsed()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_in_the_middle_of_a_step() {
    kill_at("mid_step").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_inside_the_steps_own_transaction() {
    kill_at("in_transaction").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_after_the_steps_own_transaction() {
    kill_at("after_transaction").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_between_an_item_and_its_checkpoints_commit() {
    kill_at("in_checkpoint").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_after_a_checkpoint() {
    kill_at("after_checkpoint").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_while_a_step_divides_its_work() {
    kill_at("dividing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_inside_a_range() {
    kill_at("in_range").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_inside_a_child_task() {
    kill_at("in_child").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_while_it_undoes_a_step() {
    for _ in 0..rounds() {
        let mut world = World::new().await;
        let mut victim = world.worker_stopping_at("undoing").await;
        world.submit(5, Order { slow_ms: 200, is_doomed: true, ..Order::default() }).await;
        victim.says("at undoing").await;
        let _heir = world.worker().await;
        victim.kill().await;
        world.wait_for_all().await;
        world.hold_failures("kill -9 while a step is undone").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_between_the_handler_and_its_settlement() {
    kill_at("returned").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_while_it_delivers_an_event() {
    for _ in 0..rounds() {
        let mut world = World::new().await;
        let mut victim = world.worker_stopping_at("telling").await;
        world.submit(5, Order { slow_ms: 20, failures: 1, ..Order::default() }).await;
        victim.says("at telling").await;
        let _heir = world.worker().await;
        let killed = Instant::now();
        victim.kill().await;
        world.wait_for_all().await;
        // The lease of a delivery is thirty seconds.
        world
            .until("every event is delivered", "select not exists (select from tasker.delivery where state <> 'done')")
            .await;
        world.hold_promises("kill -9 telling", killed.elapsed()).await;
        let untold = world
            .number("select count(*) from tasker.publication where publication_id not in (select id from told)")
            .await;
        assert_eq!(untold, 0, "events that never came");
        let again = world.number("select count(*) from (select from told group by id having count(*) > 1) x").await;
        assert!(again >= 1, "what the killed worker had begun came again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_killed_one_after_the_other_under_load() {
    for _ in 0..rounds() {
        let mut world = World::new().await;
        let mut victim = world.worker().await;
        let _heir = world.worker().await;
        for _ in 0..crate::config::scaled(3) {
            world.submit(20, Order { slow_ms: 30, failures: 1, ..Order::default() }).await;
            let next = world.worker().await;
            std::mem::replace(&mut victim, next).kill().await;
        }
        world.survive("kill -9 under load").await;
    }
}
