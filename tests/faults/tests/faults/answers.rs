//! A settlement lost on its way: before it is sent, while the server works on it, after the commit and before the answer. Each with the
//! worker killed, and with only its connections cut.

use tasker_faults::Order;
use tokio::time::Instant;

use crate::config::rounds;
use crate::points::Point;
use crate::program::Program;
use crate::proxy::Keep;
use crate::world::World;

/// How the worker fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Killed,
    Cut,
}

/// What the parameters of a settlement contain, and nothing else that a worker sends.
const SETTLEMENT: &str = "success";

const FEW: Order = Order { slow_ms: 0, failures: 0, is_doomed: false };

/// Loses a settlement at the place where `keep` says, or in the middle of the server's work on it.
async fn lose_settlement(keep: Option<Keep>, fate: Fate) {
    for _ in 0..rounds() {
        let mut world = World::new().await;
        let (proxy, url) = world.proxy().await;
        let victim = Program::start(&url, &[]).await;
        let point = match keep {
            Some(keep) => {
                proxy.trap("", SETTLEMENT, keep);
                None
            }
            None => Some(Point::hold(&world, "settle_begun").await),
        };
        world.submit(3, FEW).await;
        match &point {
            Some(point) => drop(point.waiters(&world).await),
            None => proxy.has_fired().await,
        }
        if keep == Some(Keep::Answer) {
            world.until("a step is done", "select exists (select from tasker.step where state = 'done')").await;
        }
        let lost = Instant::now();
        let _heir = if fate == Fate::Killed {
            victim.kill().await;
            proxy.cut_all();
            (world.worker().await, None)
        } else {
            proxy.cut_all();
            (victim, Some(()))
        };
        if let Some(point) = point {
            point.release().await;
        }
        world.wait_for_all().await;
        let place = keep.map_or("in the server".to_owned(), |keep| format!("{keep:?} kept back"));
        world.hold_promises(&format!("settlement lost, {place}, worker {fate:?}"), lost.elapsed()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_before_its_settlement_is_sent() {
    lose_settlement(Some(Keep::Request), Fate::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_after_its_settlement_is_sent() {
    lose_settlement(None, Fate::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_after_the_commit_and_before_the_answer() {
    lose_settlement(Some(Keep::Answer), Fate::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_cut_around_a_settlement() {
    tokio::join!(
        lose_settlement(Some(Keep::Request), Fate::Cut),
        lose_settlement(None, Fate::Cut),
        lose_settlement(Some(Keep::Answer), Fate::Cut),
    );
}

/// The commit of `ctx.transaction` is sent, and whether it happened stays unknown.
async fn lose_commit(keep: Keep) {
    for _ in 0..rounds() {
        let mut world = World::new().await;
        let (proxy, url) = world.proxy().await;
        let mut worker = Program::start(&url, &[("FAULT_STOP_AT", "in_transaction")]).await;
        world.submit(1, FEW).await;
        worker.says("at in_transaction").await;
        proxy.trap("insert into effect", "COMMIT", keep);
        worker.go().await;
        proxy.has_fired().await;
        if keep == Keep::Answer {
            world.until("the effect is there", "select exists (select from effect)").await;
        }
        let lost = Instant::now();
        proxy.cut_all();
        world.wait_for_all().await;
        world.hold_promises(&format!("commit of a step's own transaction, {keep:?} lost"), lost.elapsed()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_a_steps_own_transaction_whose_result_is_unknown() {
    tokio::join!(lose_commit(Keep::Request), lose_commit(Keep::Answer));
}
