//! Connections that break at any moment.

use std::time::Duration;

use rand::Rng as _;
use tasker_faults::Order;
use tokio::time::{Instant, sleep};

use crate::config::{rounds, scaled};
use crate::program::Program;
use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_cut_at_random_under_load() {
    for _ in 0..rounds() {
        let mut world = World::new().await;
        let (proxy, url) = world.proxy().await;
        let _workers = (Program::start(&url, &[]).await, Program::start(&url, &[]).await);
        for _ in 0..scaled(25) {
            world.submit(4, Order { slow_ms: 10, failures: 1, ..Order::default() }).await;
            proxy.cut_one();
            let pause = rand::rng().random_range(5..60);
            sleep(Duration::from_millis(pause)).await;
        }
        proxy.cut_all();
        world.survive("connections cut at random").await;
    }
}

/// Nobody closes them: whoever waits for an answer must stop waiting by himself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_fall_silent() {
    for _ in 0..rounds() {
        let mut world = World::new().await;
        let (proxy, url) = world.proxy().await;
        let _worker = Program::start(&url, &[]).await;
        world.submit(1, Order { slow_ms: 300, failures: 1, ..Order::default() }).await;
        world.until("a step is done", "select exists (select from tasker.step where state = 'done')").await;
        proxy.silence_all();
        let silent = Instant::now();
        world.wait_for_all().await;
        world.hold_promises("connections fell silent", silent.elapsed()).await;
    }
}
