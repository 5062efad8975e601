//! One workflow with the kinds of steps that a fault can meet: plain, with an effect, slow, failing, joining, one that decides, one that
//! saves where it is, one that waits, one that divides its work, one
//! that runs for each item of a list, one that is a task of its own, and one that is undone where the task fails.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use sqlx::PgPool;
use tasker::prelude::*;
use tasker::{Backoff, Batch, Batched, Child, Event, Item, Published, Range, Settled, Wait};

use crate::stop;

/// The tables that the steps write to.
pub const TABLES: &str = "create table effect (key text not null); create index on effect (key); \
                          create table counter (key text primary key, n bigint not null); \
                          create table told (id uuid not null)";

/// How many ranges the loading step divides its work into; the packing step runs for the result of each.
const RANGES: i64 = 3;

/// How many steps of a task and its child run, the ranges and items among them.
pub const STEPS: i64 = 10 + 2 * RANGES;

/// How many items the importing step has.
const ITEMS: u32 = 5;

/// How many effects a task has: three steps have one, the importing step one an item, the packing step one for each run,
/// its child one.
pub const EFFECTS: i64 = 4 + ITEMS as i64 + RANGES;

/// What a task is given.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
pub struct Order {
    /// How long the slow step takes.
    #[serde(default)]
    pub slow_ms: u64,
    /// How often the failing step fails before it succeeds.
    #[serde(default)]
    pub failures: u32,
    /// Whether the failing step, after `slow_ms`, fails for good.
    #[serde(default)]
    pub is_doomed: bool,
}

/// A result that stops its process while it is written: after the handler returned, before anything is settled.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Received(u32);

impl Serialize for Received {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        stop::here("returned");
        serializer.serialize_u32(self.0)
    }
}

/// Makes the workflow `storm`. A fault may cost many attempts, so there are many, soon after each other.
pub fn storm() -> Workflow {
    let patient = Retry { max_attempts: 1000, backoff: Backoff::Linear, base_ms: 50, cap_ms: 500, jitter: true };
    let limit = Duration::from_secs(10);
    Workflow::new("storm")
        .input::<Order>()
        .step(receive.retry(patient).timeout(limit))
        .step(charge.undo(give_back).retry(patient).timeout(limit))
        .step(ship.retry(patient).timeout(limit))
        .step(notify.retry(patient).timeout(limit))
        .step(import.retry(patient).timeout(limit))
        .step(load.batch(Batch::of_size(2).parallel(2)).retry(patient).timeout(limit))
        .step(pack.map("load.results").max_in_flight(2).retry(patient).timeout(limit))
        .child("aside", Child::workflow("aside").after(Receive))
        .step(choose.routes((Walk, Fly)).retry(patient).timeout(limit))
        .wait("pause", Wait::time(Duration::from_millis(20)).after("choose"))
        .step(walk.after((Choose, "pause")).retry(patient).timeout(limit))
        .step(fly.after(Choose).retry(patient).timeout(limit))
        .step(close.after((Walk, Fly, Pack, "aside")).retry(patient).timeout(limit))
        .event("received", Event::success_of(Receive))
        .event("paid", Event::success_of(Charge))
        .event("retried", Event::retry_of(Notify))
        .event("ended", Event::success())
}

/// Makes the workflow that one of its steps runs.
pub fn aside() -> Workflow {
    let patient = Retry { max_attempts: 1000, backoff: Backoff::Linear, base_ms: 50, cap_ms: 500, jitter: true };
    Workflow::new("aside").step(help.retry(patient).timeout(Duration::from_secs(10)))
}

/// Takes every event: keeps its id, and may stop before it says that it has it.
pub async fn teller(pool: PgPool, event: Published) -> Result<(), StepError> {
    sqlx::query("insert into told (id) values ($1::text::uuid)").bind(event.id.to_string()).execute(&pool).await?;
    stop::at("telling").await;
    Ok(())
}

/// Plain: its result is settled with others, in a batch.
#[tasker::step]
async fn receive(State(pool): State<PgPool>, ctx: Ctx) -> Result<Received, StepError> {
    count(&pool, &ctx).await?;
    Ok(Received(ctx.attempt()))
}

/// Has an effect.
#[tasker::step]
async fn charge(_received: Dep<Receive>, State(pool): State<PgPool>, ctx: Ctx) -> Result<Settled<u32>, StepError> {
    count(&pool, &ctx).await?;
    act(&ctx).await
}

/// Undoes the charge, with an effect of its own.
#[tasker::step]
async fn give_back(result: u32, ctx: Ctx) -> Result<Settled<u32>, StepError> {
    stop::at("undoing").await;
    assert_eq!(result, 1, "what the charge gave");
    act(&ctx).await
}

/// The step of the child.
#[tasker::step]
async fn help(State(pool): State<PgPool>, ctx: Ctx) -> Result<Settled<u32>, StepError> {
    count(&pool, &ctx).await?;
    stop::at("in_child").await;
    act(&ctx).await
}

/// Takes its time and has an effect.
#[tasker::step]
async fn ship(
    Input(order): Input<Order>,
    _received: Dep<Receive>,
    State(pool): State<PgPool>,
    ctx: Ctx,
) -> Result<Settled<u32>, StepError> {
    count(&pool, &ctx).await?;
    tokio::time::sleep(Duration::from_millis(order.slow_ms)).await;
    stop::at("mid_step").await;
    let settled = act(&ctx).await?;
    stop::at("after_transaction").await;
    Ok(settled)
}

/// Fails at first, then has an effect.
#[tasker::step]
async fn notify(
    Input(order): Input<Order>,
    _received: Dep<Receive>,
    State(pool): State<PgPool>,
    ctx: Ctx,
) -> Result<Settled<u32>, StepError> {
    count(&pool, &ctx).await?;
    if order.is_doomed {
        tokio::time::sleep(Duration::from_millis(order.slow_ms)).await;
        return Err(StepError::permanent("never"));
    }
    if ctx.attempt() <= order.failures {
        return Err(StepError::retryable("not yet"));
    }
    act(&ctx).await
}

/// Inserts an effect an item, each in one transaction with the checkpoint that says so.
#[tasker::step]
async fn import(_received: Dep<Receive>, State(pool): State<PgPool>, ctx: Ctx) -> Result<u32, StepError> {
    count(&pool, &ctx).await?;
    for item in ctx.cursor()?.unwrap_or(0)..ITEMS {
        let mut tx = pool.begin().await?;
        let key = format!("{}/{item}", ctx.idempotency_key());
        sqlx::query("insert into effect (key) values ($1)").bind(key).execute(&mut *tx).await?;
        ctx.checkpoint(item + 1).items(u64::from(item) + 1).on(&mut tx).await?;
        stop::at("in_checkpoint").await;
        tx.commit().await?;
        stop::at("after_checkpoint").await;
    }
    Ok(ITEMS)
}

/// Divides its work into ranges.
#[tasker::step]
async fn load(
    _received: Dep<Receive>,
    range: Item<Option<Range>>,
    State(pool): State<PgPool>,
    ctx: Ctx,
) -> Result<Batched<u64>, StepError> {
    count(&pool, &ctx).await?;
    let Item(Some(range)) = range else {
        stop::at("dividing").await;
        return Ok(Batched::items(5));
    };
    stop::at("in_range").await;
    Ok(Batched::done(range.to - range.from))
}

/// Runs for each item, and has an effect each time.
#[tasker::step]
async fn pack(_rows: Item<u64>, State(pool): State<PgPool>, ctx: Ctx) -> Result<Settled<u32>, StepError> {
    count(&pool, &ctx).await?;
    act(&ctx).await
}

/// Decides.
#[tasker::step]
async fn choose(_received: Dep<Receive>, State(pool): State<PgPool>, ctx: Ctx) -> Result<Decision, StepError> {
    count(&pool, &ctx).await?;
    Ok(Decision::route("walk"))
}

/// The route that is chosen, after a pause.
#[tasker::step]
async fn walk(State(pool): State<PgPool>, ctx: Ctx) -> Result<(), StepError> {
    count(&pool, &ctx).await
}

/// The route that is not.
#[tasker::step]
async fn fly(State(pool): State<PgPool>, ctx: Ctx) -> Result<(), StepError> {
    count(&pool, &ctx).await
}

/// Joins the branches.
#[tasker::step]
async fn close(
    charged: Dep<Charge>,
    shipped: Dep<Ship>,
    notified: Dep<Notify>,
    _imported: Dep<Import>,
    State(pool): State<PgPool>,
    ctx: Ctx,
) -> Result<u32, StepError> {
    count(&pool, &ctx).await?;
    Ok(*charged + *shipped + *notified)
}

/// Raises the step's counter, in a transaction of its own.
async fn count(pool: &PgPool, ctx: &Ctx) -> Result<(), StepError> {
    sqlx::query("insert into counter as c (key, n) values ($1, 1) on conflict (key) do update set n = c.n + 1")
        .bind(ctx.idempotency_key())
        .execute(pool)
        .await?;
    Ok(())
}

/// Inserts the step's effect, in the transaction that settles the step.
async fn act(ctx: &Ctx) -> Result<Settled<u32>, StepError> {
    let key = ctx.idempotency_key().to_owned();
    ctx.transaction(async |tx| {
        sqlx::query("insert into effect (key) values ($1)").bind(key).execute(&mut *tx).await?;
        stop::at("in_transaction").await;
        Ok::<_, StepError>(1)
    })
    .await
}
