//! Connections that break at any moment.

use std::time::Duration;

use rand::Rng as _;
use tasker_faults::Order;
use tokio::time::{Instant, sleep};

use crate::config::{rounds, scaled};
use crate::program::Program;
use crate::proxy::Keep;
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

/// Nobody closes them: whoever waits for an answer must stop waiting by himself, and so must the server. The two wait side by side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_fall_silent() {
    for _ in 0..rounds() {
        tokio::join!(silence_a_worker(), silence_a_client_before_its_commit());
    }
}

async fn silence_a_worker() {
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

/// The server has the locks of a step's own transaction, and its client is not heard of again.
async fn silence_a_client_before_its_commit() {
    let mut world = World::new().await;
    let (proxy, url) = world.proxy().await;
    let mut silent = Program::start(&url, &[("FAULT_STOP_AT", "in_transaction")]).await;
    world.submit(1, Order::default()).await;
    silent.says("at in_transaction").await;
    proxy.trap("insert into effect", "COMMIT", Keep::Request);
    silent.go().await;
    proxy.has_fired().await;
    silent.freeze();
    let lost = Instant::now();
    let _heir = world.worker().await;
    world.wait_for_all().await;
    let resumed = lost.elapsed();
    assert!(resumed.as_secs() < 25, "its locks were held for {resumed:?}");
    world.hold_promises("client silent before its commit", resumed).await;
}
