//! The order workflow: all that orchestration adds to the services.

use tasker::prelude::*;

use crate::services::{Cart, Goods, Order, Payment, Shop, cart, orders, payments, stock};

#[tasker::step]
async fn validate_cart(Input(order): Input<Order>) -> Result<Cart, StepError> {
    cart::validate(&order).permanent("INVALID_CART")
}

#[tasker::step(retry = 5)]
async fn charge_payment(cart: Dep<ValidateCart>, shop: State<Shop>) -> Result<Payment, StepError> {
    payments::charge(&shop.gateway, &cart)
        .await?
        .permanent("CARD_DECLINED")
}

#[tasker::step]
async fn reserve_stock(cart: Dep<ValidateCart>, shop: State<Shop>) -> Result<Goods, StepError> {
    stock::reserve(&shop.pool, &cart)
        .await?
        .permanent("OUT_OF_STOCK")
}

/// Validates the cart, then charges the card and sets the goods aside side by side, then confirms.
pub fn order_processing() -> Workflow {
    Workflow::new("order_processing")
        .namespace("orders")
        .input::<Order>()
        .step(validate_cart)
        .step(charge_payment)
        .step(reserve_stock)
        .step_fn(
            "confirm",
            async |paid: Dep<ChargePayment>, goods: Dep<ReserveStock>, ctx: Ctx| {
                ctx.transaction(async |tx| orders::confirm(tx, &paid, &goods).await)
                    .await
            },
        )
}
