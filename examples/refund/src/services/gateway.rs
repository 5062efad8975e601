//! The payment gateway.

use serde::{Deserialize, Serialize};
use sqlx::PgPool;

/// Stands in for an outside party: a real one is reached over HTTP and keeps its books elsewhere. This one keeps them in a table beside
/// the shop's, so that all processes see them. Like a real one it takes no part in the shop's transactions.
#[derive(Debug, Clone)]
pub struct Gateway {
    pool: PgPool,
}

/// What the gateway answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Its number for the refund.
    pub refund_id: i64,
}

impl Gateway {
    /// Connects to the gateway.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Pays an amount back. Idempotent: the same key is the same refund.
    pub async fn refund(&self, key: &str, order_id: &str, amount_cents: i64) -> Result<Receipt, sqlx::Error> {
        let refund_id = sqlx::query_scalar(
            "insert into gateway_refund as r (key, order_id, amount_cents) values ($1, $2, $3)
             on conflict (key) do update set order_id = r.order_id
             returning refund_id",
        )
        .bind(key)
        .bind(order_id)
        .bind(amount_cents)
        .fetch_one(&self.pool)
        .await?;
        Ok(Receipt { refund_id })
    }

    /// Takes a refund back. Idempotent.
    pub async fn reverse(&self, receipt: Receipt) -> Result<(), sqlx::Error> {
        sqlx::query("update gateway_refund set is_reversed = true where refund_id = $1")
            .bind(receipt.refund_id)
            .execute(&self.pool)
            .await
            .map(drop)
    }
}
