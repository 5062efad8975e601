//! The orders' own table.

use sqlx::{PgConnection, PgPool};
use thiserror::Error;
use uuid::Uuid;

use super::{Cart, Confirmation, Order};

/// An order as its table has it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct OrderRow {
    /// The shop's number for it.
    pub order_id: String,
    /// `placed` or `confirmed`.
    pub state: String,
    /// What was paid, once it is confirmed.
    pub total: Option<rust_decimal::Decimal>,
    /// The task that handles it.
    pub task_id: Option<Uuid>,
}

/// Writes a new order. Answers whether it is new: an order that exists stays as it is.
pub async fn place(connection: &mut PgConnection, order: &Order) -> Result<bool, sqlx::Error> {
    let placed = sqlx::query(
        "insert into orders (order_id, customer, email, currency) values ($1, $2, $3, $4) on conflict do nothing",
    )
    .bind(&order.order_id)
    .bind(&order.customer.name)
    .bind(&order.customer.email)
    .bind(order.currency.code())
    .execute(connection)
    .await?;
    Ok(placed.rows_affected() == 1)
}

/// Notes which task handles an order.
pub async fn set_task(connection: &mut PgConnection, order_id: &str, task_id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("update orders set task_id = $2 where order_id = $1")
        .bind(order_id)
        .bind(task_id)
        .execute(connection)
        .await
        .map(drop)
}

/// The order was confirmed before.
#[derive(Debug, Error, PartialEq)]
#[error("order {0} is confirmed already")]
pub struct AlreadyConfirmed(String);

impl Cart {
    /// Confirms an order, once it is paid and set aside. One that came without a row, from another system say, gets its row now.
    ///
    /// The outer error may be mended by another call, the inner one not.
    pub async fn confirm(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Result<Confirmation, AlreadyConfirmed>, sqlx::Error> {
        let confirmed = sqlx::query(
            "insert into orders (order_id, customer, email, currency, state, total, confirmed_at)
             values ($1, $2, $3, $4, 'confirmed', $5, now())
             on conflict (order_id) do update
               set state = excluded.state, total = excluded.total, confirmed_at = excluded.confirmed_at
               where orders.state = 'placed'",
        )
        .bind(&self.order_id)
        .bind(&self.customer.name)
        .bind(&self.customer.email)
        .bind(self.currency.code())
        .bind(self.total)
        .execute(connection)
        .await?;
        let order_id = self.order_id.clone();
        if confirmed.rows_affected() == 0 {
            return Ok(Err(AlreadyConfirmed(order_id)));
        }
        Ok(Ok(Confirmation { order_id, total: self.total, currency: self.currency }))
    }
}

/// Reads an order.
pub async fn find(pool: &PgPool, order_id: &str) -> Result<Option<OrderRow>, sqlx::Error> {
    sqlx::query_as("select order_id, state, total, task_id from orders where order_id = $1")
        .bind(order_id)
        .fetch_optional(pool)
        .await
}
