//! Takes an order: its row and its task exist both, or neither does.

use sqlx::PgPool;
use tasker::{Task, Workflow};
use thiserror::Error;

use crate::services::{Order, orders};

/// Why an order was not taken.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// The order's row could not be written.
    #[error("the order cannot be written")]
    Database(#[from] sqlx::Error),
    /// The task was refused: the order does not fit the workflow's input, or its number was used for another order.
    #[error(transparent)]
    Tasker(#[from] tasker::Error),
}

/// Writes the order and submits its task in one transaction. The same order again is the same task.
pub async fn place(pool: &PgPool, workflow: &Workflow, order: &Order) -> Result<Task, PlaceError> {
    let mut tx = pool.begin().await?;
    orders::place(&mut tx, order).await?;
    let task = workflow.submit(&mut tx, order).key(format!("order:{}", order.order_id)).await?;
    orders::set_task(&mut tx, &order.order_id, task.id().0).await?;
    tx.commit().await?;
    Ok(task)
}
