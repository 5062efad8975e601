//! The order workflow: all that orchestration adds to the services.

use tasker::prelude::*;

use crate::services::{Cart, Confirmation, Goods, Order, Payment, Shop, cart};

#[tasker::step]
async fn validate_cart(Input(order): Input<Order>) -> Result<Cart, StepError> {
    cart::validate(&order).permanent("INVALID_CART")
}

#[tasker::step(retry = 5)]
async fn charge_payment(cart: Dep<ValidateCart>, shop: State<Shop>) -> Result<Payment, StepError> {
    shop.charge(&cart).await?.permanent("CARD_DECLINED")
}

#[tasker::step]
async fn reserve_stock(cart: Dep<ValidateCart>, shop: State<Shop>) -> Result<Goods, StepError> {
    shop.reserve(&cart).await?.permanent("OUT_OF_STOCK")
}

#[tasker::step]
async fn confirm(cart: Dep<ValidateCart>, ctx: Ctx) -> Result<Settled<Confirmation>, StepError> {
    ctx.transaction(async |tx| cart.confirm(tx).await?.permanent("CONFIRMED_BEFORE")).await
}

/// Validates the cart, then charges the payment and reserves the stock side by side, then confirms.
pub fn order_processing() -> Workflow {
    let orders = Workflow::new("order_processing").namespace("orders");
    let orders = orders.input::<Order>().step(validate_cart);
    let orders = orders.step(charge_payment).step(reserve_stock);
    orders.step(confirm.after((ChargePayment, ReserveStock)))
}
