//! A migrated database for each test, and the workflow that the tests run.
#![allow(dead_code, reason = "each test file uses its part")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tasker::prelude::*;
use tasker_testkit::TestDatabase;

pub(crate) struct Db {
    pub(crate) database: TestDatabase,
    pub(crate) pool: PgPool,
}

pub(crate) async fn db() -> Db {
    let database = tasker_testkit::database("tasker_facade", async |url| {
        let tasker = Tasker::connect(url).await.unwrap();
        tasker.migrate().await.unwrap();
        sqlx::raw_sql("create table orders (id bigserial primary key, total float8); create table charge (task text, total float8)")
            .execute(tasker.pool())
            .await
            .unwrap();
        tasker.pool().close().await;
    })
    .await;
    let pool = database.pool().await;
    Db { database, pool }
}

impl Db {
    pub(crate) async fn count(&self, table: &'static str) -> i64 {
        let sql = match table {
            "orders" => "select count(*) from orders",
            "charge" => "select count(*) from charge",
            "task" => "select count(*) from tasker.task",
            other => panic!("no table {other}"),
        };
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) async fn check(&self) {
        let breaches: Vec<String> =
            sqlx::query_scalar("select c::text from tasker.check_invariants() c").fetch_all(&self.pool).await.unwrap();
        assert!(breaches.is_empty(), "{breaches:?}");
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub(crate) struct OrderIn {
    pub(crate) items: Vec<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Payment {
    pub(crate) amount: f64,
    pub(crate) attempt: u32,
}

#[tasker::step]
pub(crate) async fn validate_cart(Input(order): Input<OrderIn>) -> Result<f64, StepError> {
    if order.items.is_empty() {
        return Err(StepError::permanent("the cart is empty").code("EMPTY_CART"));
    }
    Ok(order.items.iter().sum())
}

#[tasker::step(retry = 5)]
pub(crate) async fn charge_payment(total: Dep<ValidateCart>, ctx: Ctx) -> Result<Payment, StepError> {
    Ok(Payment { amount: *total, attempt: ctx.attempt() })
}

#[tasker::step]
pub(crate) async fn reserve_stock(Input(order): Input<OrderIn>) -> usize {
    order.items.len()
}

#[tasker::step]
pub(crate) async fn confirm(payment: Dep<ChargePayment>, lines: Dep<ReserveStock>) -> String {
    format!("{} for {} lines", payment.amount, *lines)
}

pub(crate) fn orders() -> Workflow {
    Workflow::new("order_processing")
        .namespace("orders")
        .input::<OrderIn>()
        .step(validate_cart)
        .step(charge_payment)
        .step(reserve_stock.after(ValidateCart))
        .step(confirm)
}

pub(crate) fn order(items: &[f64]) -> OrderIn {
    OrderIn { items: items.to_vec() }
}
