//! Backends ended at each named point of settle, submit, claim and the timer pump (`pg_terminate_backend`).

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tasker_faults::Order;
use tokio::time::{Instant, sleep};

use crate::config::rounds;
use crate::world::{PATIENCE, World};

const SETTLE: [&str; 6] =
    ["settle_begun", "settle_dropped", "settle_locked", "settle_stored", "settle_counted", "settle_sent"];
const SUBMIT: [&str; 3] = ["submit_keyed", "submit_steps_made", "submit_sent"];
const CLAIM: [&str; 2] = ["claim_taken", "claim_read"];
const PUMP: [&str; 2] = ["pump_taken", "pump_sent"];

/// A point at which backends wait, for as long as this is held.
pub(crate) struct Point {
    name: String,
    holder: PgConnection,
}

impl Point {
    /// Lets everybody who comes to the point wait there.
    pub(crate) async fn hold(world: &World, point: &str) -> Self {
        let name = format!("tasker.wait.{point}");
        let mut holder = world.open().await;
        let lock = "select pg_advisory_lock(hashtextextended($1, 0))";
        sqlx::query(lock).bind(&name).execute(&mut holder).await.unwrap();
        Self { name, holder }
    }

    /// Waits until somebody waits at the point; answers the backends that do.
    pub(crate) async fn waiters(&self, world: &World) -> Vec<i32> {
        let end = Instant::now() + PATIENCE;
        loop {
            let sql = "select l.pid from pg_locks l join pg_database d on d.oid = l.database and d.datname = current_database() \
                       where l.locktype = 'advisory' and not l.granted and (l.classid::int8 << 32 | l.objid::int8) = hashtextextended($1, 0)";
            let waiters: Vec<i32> = sqlx::query_scalar(sql).bind(&self.name).fetch_all(&world.pool).await.unwrap();
            if !waiters.is_empty() {
                return waiters;
            }
            assert!(Instant::now() < end, "nobody comes to {}", self.name);
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits for somebody at the point, ends every backend that waits there, and lets the next ones pass.
    pub(crate) async fn strike(self, world: &World) {
        let waiters = self.waiters(world).await;
        let end = "select bool_and(pg_terminate_backend(pid, 5000)) from unnest($1::int[]) pid";
        let ended: bool = sqlx::query_scalar(end).bind(&waiters).fetch_one(&world.pool).await.unwrap();
        assert!(ended, "backends {waiters:?} at {} do not end", self.name);
        self.release().await;
    }

    /// Lets everybody pass.
    pub(crate) async fn release(self) {
        self.holder.close().await.unwrap();
    }
}

/// Ends backends at each point after `arrange` made somebody come there.
async fn strike_at(points: &[&str], order: Order, delay: Option<Duration>) {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    for point in points.iter().cycle().take(points.len() * rounds()) {
        let held = Point::hold(&world, point).await;
        for _ in 0..4 {
            let submit = world.tasker.submit("storm", order);
            let task = match delay {
                Some(delay) => submit.delay(delay).await,
                None => submit.await,
            };
            world.tasks.push(task.unwrap().id());
        }
        held.strike(&world).await;
        world.survive(&format!("backend ended at {point}")).await;
    }
}

const ORDER: Order = Order { slow_ms: 5, failures: 1, is_doomed: false };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_ended_at_six_points_of_settle() {
    strike_at(&SETTLE, ORDER, None).await;
}

/// The same while the slow steps end: one settles itself, in its own transaction, and where the order is doomed the other fails.
async fn strike_late(is_doomed: bool) {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    for point in SETTLE.iter().cycle().take(SETTLE.len() * rounds()) {
        world.submit(2, Order { slow_ms: 400, is_doomed, ..Order::default() }).await;
        let begun = "select not exists (select from tasker.task k join tasker.step s using (task_id) \
                     where k.finished_at is null and s.idx in (0, 2) and s.state <> 'done')";
        world.until("the first steps are done", begun).await;
        Point::hold(&world, point).await.strike(&world).await;
        if is_doomed {
            world.wait_for_all().await;
            world.hold_failures(point).await;
        } else {
            world.survive(&format!("backend ended at {point} of a slow step")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_ended_while_a_step_settles_itself() {
    strike_late(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_ended_while_a_task_fails() {
    strike_late(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_ended_at_each_point_of_claim() {
    strike_at(&CLAIM, ORDER, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_ended_at_each_point_of_the_timer_pump() {
    // More than two seconds, else it is a message at once.
    strike_at(&PUMP, ORDER, Some(Duration::from_millis(2_200))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_ended_at_each_point_of_submit_leave_no_task_behind() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    for (round, point) in SUBMIT.iter().cycle().take(SUBMIT.len() * rounds()).enumerate() {
        let held = Point::hold(&world, point).await;
        let key = format!("key {round}");
        let submit = tokio::spawn({
            let (tasker, key) = (world.tasker.clone(), key.clone());
            async move { tasker.submit("storm", ORDER).key(key).await.map(|task| task.id()) }
        });
        held.strike(&world).await;
        let error = submit.await.unwrap().unwrap_err();
        assert_eq!(error.kind, tasker::ErrorKind::Unavailable, "{point}: {error}");
        let left = world.number(&format!("select count(*) from tasker.task where key = '{key}'")).await;
        assert_eq!(left, 0, "{point}: what was not committed does not exist");
        let task = world.tasker.submit("storm", ORDER).key(key.clone()).await.unwrap();
        let same = world.tasker.submit("storm", ORDER).key(key).await.unwrap();
        assert!(task.is_new() && !same.is_new() && task.id() == same.id(), "{point}");
        world.tasks.push(task.id());
        world.survive(&format!("backend ended at {point}")).await;
    }
}
