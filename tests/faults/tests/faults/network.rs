//! Connections that break at any moment.

use std::time::Duration;

use rand::Rng as _;
use tasker_faults::Order;
use tokio::time::sleep;

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
            world.submit(4, Order { slow_ms: 10, failures: 1 }).await;
            proxy.cut_one();
            let pause = rand::rng().random_range(5..60);
            sleep(Duration::from_millis(pause)).await;
        }
        proxy.cut_all();
        world.survive("connections cut at random").await;
    }
}
