//! Takes payments.

use super::gateway::{Declined, GatewayError};
use super::{Cart, Payment, Shop};

impl Shop {
    /// Holds the cart's total on the customer's card; the money is taken when the parcel leaves.
    /// Idempotent: an order is charged once, however often this is called.
    ///
    /// The outer error may be mended by another call, the inner one not.
    pub async fn charge(&self, cart: &Cart) -> Result<Result<Payment, Declined>, GatewayError> {
        let key = format!("order:{}", cart.order_id);
        let (token, amount, currency) = (&cart.payment_token, cart.total, cart.currency);
        let charged = self.gateway.charge(&key, token, amount, currency).await?;
        Ok(charged.map(|charge_id| Payment { charge_id, amount, currency }))
    }
}
