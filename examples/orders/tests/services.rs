//! The services alone: nothing of Tasker runs here.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use example_orders::Outcome;
use example_orders::services::gateway::{Declined, GatewayError};
use example_orders::services::stock::OutOfStock;
use example_orders::services::{Goods, cart, orders};
use support::{cart as a_cart, file, shop};

#[tokio::test]
async fn a_payment_whose_answer_is_lost_is_charged_once() {
    let test = shop().await;
    let cart = a_cart("A-1", "tok_lost_answer_1_ab", &[]);

    let first = test.shop.charge(&cart).await;
    assert!(matches!(first, Err(GatewayError::TimedOut)), "{first:?}");
    let second = test.shop.charge(&cart).await.unwrap().unwrap();
    let third = test.shop.charge(&cart).await.unwrap().unwrap();

    assert_eq!(second, third);
    assert_eq!(second.amount, cart.total);
    assert_eq!(test.number("select count(*) from provider_charge").await, 1);
}

#[tokio::test]
async fn an_unavailable_provider_charges_nothing_until_it_answers() {
    let test = shop().await;
    let cart = a_cart("A-1", "tok_unavailable_2_ab", &[]);
    for _ in 0..2 {
        let refused = test.shop.charge(&cart).await;
        assert!(matches!(refused, Err(GatewayError::Unavailable)), "{refused:?}");
        assert_eq!(test.number("select count(*) from provider_charge").await, 0);
    }
    test.shop.charge(&cart).await.unwrap().unwrap();
    assert_eq!(test.number("select count(*) from provider_charge").await, 1);
}

#[tokio::test]
async fn a_declined_card_is_declined_with_the_banks_words() {
    let test = shop().await;
    let cart = a_cart("A-1", "tok_declined_insufficient_funds_ab", &[]);
    let declined = test.shop.charge(&cart).await.unwrap();
    assert_eq!(declined, Err(Declined { reason: "insufficient funds".to_owned() }));
    assert_eq!(test.number("select count(*) from provider_charge").await, 0);
}

#[tokio::test]
async fn goods_are_set_aside_once_and_all_or_none() {
    let test = shop().await;
    test.shop.stock_up("TEA", "Tea", 10).await.unwrap();
    test.shop.stock_up("POT", "Pot", 1).await.unwrap();

    let cart = a_cart("A-1", "", &[("POT", 1), ("TEA", 4)]);
    for _ in 0..2 {
        let goods = test.shop.reserve(&cart).await.unwrap().unwrap();
        assert_eq!(goods, Goods { order_id: "A-1".to_owned(), pieces: 5 });
    }
    // The pots are gone: the tea of this order stays on the shelf, too.
    let second = a_cart("A-2", "", &[("POT", 1), ("TEA", 4)]);
    let missing = test.shop.reserve(&second).await.unwrap();
    assert_eq!(missing, Err(OutOfStock { sku: "POT".to_owned(), wanted: 1, on_hand: 0 }));
    let unknown = test.shop.reserve(&a_cart("A-3", "", &[("XXX", 1)])).await.unwrap();
    assert_eq!(unknown, Err(OutOfStock { sku: "XXX".to_owned(), wanted: 1, on_hand: 0 }));

    let tea = "select on_hand::bigint from stock where sku = 'TEA'";
    assert_eq!(test.number(tea).await, 6);
    assert_eq!(test.number("select count(*) from reservation").await, 2);
}

#[tokio::test]
async fn an_order_is_confirmed_once() {
    let test = shop().await;
    let order = &file().orders[0].order;
    let mut connection = test.pool.acquire().await.unwrap();
    assert!(orders::place(&mut connection, order).await.unwrap());
    assert!(!orders::place(&mut connection, order).await.unwrap());

    let cart = cart::validate(order).unwrap();
    let confirmation = cart.confirm(&mut connection).await.unwrap().unwrap();
    assert_eq!(confirmation.order_id, order.order_id);
    let row = orders::find(&test.pool, &order.order_id).await.unwrap().unwrap();
    assert_eq!((row.state.as_str(), row.total), ("confirmed", Some(cart.total)));

    assert!(cart.confirm(&mut connection).await.unwrap().is_err());
    // One that came without a row gets it.
    a_cart("from elsewhere", "", &[]).confirm(&mut connection).await.unwrap().unwrap();
    assert!(a_cart("from elsewhere", "", &[]).confirm(&mut connection).await.unwrap().is_err());
}

#[test]
fn the_file_and_the_shop_add_up_to_the_same() {
    let file = file();
    assert_eq!(file.orders.len(), 200);
    for entry in &file.orders {
        match cart::validate(&entry.order) {
            Ok(cart) => assert_eq!(Some(cart.total), entry.expect.total, "{}", entry.order.order_id),
            Err(error) => assert_eq!(entry.expect.outcome, Outcome::Invalid, "{}: {error}", entry.order.order_id),
        }
    }
}
