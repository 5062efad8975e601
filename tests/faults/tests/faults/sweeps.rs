//! Backends ended inside the sweeper and the engine's own messages: the next sweep does what was left.

use std::time::Duration;

use sqlx::PgConnection;
use tasker::{Engine, Retry};
use tasker_engine::sweep::{RetryPolicies, Swept};
use tasker_engine::{Beat, Caller, NewWorker, pgmq};
use tasker_faults::Order;

use crate::config::rounds;
use crate::points::Point;
use crate::world::World;

const LEASE: Duration = Duration::from_secs(2);

struct Soon;

impl RetryPolicies for Soon {
    async fn retry(&self, _: i32, _: i32) -> tasker::Result<Retry> {
        Ok(Retry { base_ms: 10, ..Retry::attempts(100) })
    }
}

async fn sweep(engine: Engine) -> tasker::Result<Swept> {
    let mut conn = engine.acquire().await?;
    Ok(engine.sweep(&mut conn, &Soon).await?.map(|(swept, _)| swept).unwrap_or_default())
}

/// Runs a statement on a connection of its own, and has it ended at a point; then the same again, whole. Answers its number.
async fn strike_statement(world: &World, point: &str, sql: &'static str) -> i64 {
    let held = Point::hold(world, point).await;
    let mut victim: PgConnection = world.open().await;
    let running = tokio::spawn(async move { sqlx::query(sql).execute(&mut victim).await });
    held.strike(world).await;
    assert!(running.await.unwrap().is_err(), "{point}: the statement was ended");
    world.number(sql).await
}

/// Makes a worker that exists in the database only; answers its id.
async fn phantom(world: &World) -> i32 {
    let name = "phantom".to_owned();
    let worker = NewWorker {
        kind: "rust".to_owned(),
        host: name.clone(),
        pid: 1,
        version: "0".to_owned(),
        concurrency: 1,
        lease: LEASE,
        name,
    };
    world.tasker.engine().start_worker(&worker).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_ended_while_it_clears_away_dead_workers() {
    let world = World::new().await;
    for _ in 0..rounds() {
        phantom(&world).await;
        sqlx::query("update tasker.worker set heartbeat_at = heartbeat_at - interval '1 hour'")
            .execute(&world.pool)
            .await
            .unwrap();
        let held = Point::hold(&world, "sweep_workers").await;
        let sweeping = tokio::spawn(sweep(world.tasker.engine().clone()));
        held.strike(&world).await;
        assert!(sweeping.await.unwrap().is_err());
        let swept = sweep(world.tasker.engine().clone()).await.unwrap();
        assert_eq!(swept.workers, 1, "the lock of the ended sweep is free and its work is done");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_ended_while_it_times_out_a_step() {
    for point in ["expire_locked", "expire_stored"] {
        let mut world = World::new().await;
        let engine = world.tasker.engine().clone();
        let worker_id = phantom(&world).await;
        let handlers: Vec<(String, String)> =
            ["receive", "charge", "ship", "notify", "close"].map(|step| ("default".to_owned(), step.to_owned())).into();
        let announced = engine.announce(worker_id, "rust", &handlers).await.unwrap();
        let ids: Vec<i32> = announced.iter().map(|one| one.handler_id).collect();
        let queues = engine.serve_queues(worker_id, "rust", &ids, &[]).await.unwrap();
        world.submit(1, Order::default()).await;
        let caller = Caller {
            worker_id,
            queues,
            handlers: ids,
            exclude: Vec::new(),
            want: 1,
            handoff: 1,
            turn: 0,
            lease: LEASE,
            relaxed: false,
        };
        let mut conn = engine.open().await.unwrap();
        let claimed = pgmq::receive(&engine, &mut conn, &caller).await.unwrap().leased.remove(0);
        let beats = [Beat { lease: claimed.lease, running: Duration::from_hours(1) }];
        pgmq::extend(&engine, &mut conn, worker_id, None, &beats, LEASE).await.unwrap();
        let held = Point::hold(&world, point).await;
        let sweeping = tokio::spawn(sweep(engine.clone()));
        held.strike(&world).await;
        assert!(sweeping.await.unwrap().is_err());
        assert_eq!(sweep(engine).await.unwrap().timed_out, 1);
        let attempt = world.number("select attempt::bigint from tasker.step where idx = 0").await;
        assert_eq!(attempt, 2, "timed out once, although it was begun twice");
        let _worker = world.worker().await;
        world.survive(&format!("backend ended at {point}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_ended_while_it_clears_and_repairs() {
    let mut world = World::new().await;
    drop(world.worker().await);
    for _ in 0..rounds() {
        world.submit(1, Order::default()).await;
        let leftover = "insert into tasker.timer (due_at, task_id, idx, gen, kind) \
                        select now() + interval '1 day', task_id, 0, 99, 'run' from tasker.task order by created_at desc limit 1";
        sqlx::query(leftover).execute(&world.pool).await.unwrap();
        let cleared = strike_statement(&world, "sweep_leftovers", "select tasker.sweep_leftovers()").await;
        assert_eq!(cleared, 1);
        // Breaks I2 by hand.
        sqlx::query(
            "do $$ declare q int; begin
               for q in select queue_id from tasker.queue where queue_id > 0 loop execute format('delete from pgmq.q_tq%s_1', q); end loop;
             end $$",
        )
        .execute(&world.pool)
        .await
        .unwrap();
        let repaired = strike_statement(&world, "repair_told", "select tasker.repair_steps(array_agg(task_id), array_agg(idx), array_agg(gen)) from tasker.ownerless_steps(now())").await;
        assert_eq!(repaired, 1);
        let worker = world.worker().await;
        world.survive("backend ended while it repaired").await;
        worker.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_ended_inside_an_internal_message() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for point in ["internal_dropped", "internal_applied"] {
        let held = Point::hold(&world, point).await;
        let order = Order { slow_ms: 2_500, failures: 0, ..Order::default() };
        let deadline = Duration::from_millis(1_500);
        world.tasker.submit("storm", order).deadline_in(deadline).await.unwrap();
        held.strike(&world).await;
        // Its message is leased for half a minute to the one that was ended; nobody should have to wait for that here.
        sqlx::query("update pgmq.q_tq0_1 set vt = now()").execute(&world.pool).await.unwrap();
        let missed = "select not exists (select from tasker.task where parent_task is null and (state <> 'failed' or error->>'kind' <> 'deadline_exceeded'))";
        world.until("the task missed its deadline", missed).await;
        world.hold_invariants(point).await;
    }
}
