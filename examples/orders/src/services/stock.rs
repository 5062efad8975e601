//! Sets goods aside.

use thiserror::Error;

use super::{Cart, Goods, Shop};

/// There is not enough of an article.
#[derive(Debug, Error, PartialEq)]
#[error("{sku} is out of stock: {wanted} wanted, {on_hand} on hand")]
pub struct OutOfStock {
    /// The article.
    pub sku: String,
    /// What the order needs.
    pub wanted: i32,
    /// What there is.
    pub on_hand: i32,
}

impl Shop {
    /// Sets everything in the cart aside, or nothing. Idempotent: what an order has is not taken again.
    ///
    /// The outer error may be mended by another call, the inner one not.
    pub async fn reserve(&self, cart: &Cart) -> Result<Result<Goods, OutOfStock>, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        // In the order of the articles, so that two orders never wait for each other.
        for (sku, wanted) in &cart.items {
            let taken = sqlx::query(
                "with taken as (
               update stock set on_hand = on_hand - $3
               where sku = $2 and on_hand >= $3
                 and not exists (select from reservation r where r.order_id = $1 and r.sku = $2)
               returning sku)
             insert into reservation (order_id, sku, quantity) select $1, sku, $3 from taken",
            )
            .bind(&cart.order_id)
            .bind(sku)
            .bind(wanted)
            .execute(&mut *tx)
            .await?;
            if taken.rows_affected() == 0 {
                let (is_reserved, on_hand): (bool, i32) = sqlx::query_as(
                    "select exists (select from reservation where order_id = $1 and sku = $2),
                        coalesce((select on_hand from stock where sku = $2), 0)",
                )
                .bind(&cart.order_id)
                .bind(sku)
                .fetch_one(&mut *tx)
                .await?;
                if !is_reserved {
                    return Ok(Err(OutOfStock { sku: sku.clone(), wanted: *wanted, on_hand }));
                }
            }
        }
        tx.commit().await?;
        let pieces = cart.items.values().map(|quantity| i64::from(*quantity)).sum();
        Ok(Ok(Goods { order_id: cart.order_id.clone(), pieces }))
    }

    /// Puts an article on the shelf; one that is there stays as it is.
    pub async fn stock_up(&self, sku: &str, name: &str, on_hand: i32) -> Result<(), sqlx::Error> {
        sqlx::query("insert into stock (sku, name, on_hand) values ($1, $2, $3) on conflict do nothing")
            .bind(sku)
            .bind(name)
            .bind(on_hand)
            .execute(&self.pool)
            .await
            .map(drop)
    }
}
