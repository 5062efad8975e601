//! The workflow under the test kit: its shape, one step, a whole run without waiting.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use example_orders::services::{Confirmation, Payment, orders};
use example_orders::{OrderFile, order_processing};
use serde_json::{Value, json};
use support::{TestShop, cart, file, shop};
use tasker::testing::TestTasker;
use tasker::{ErrorKind, StepState, TaskState};

#[test]
fn the_charge_and_the_reservation_run_side_by_side() {
    let revision = order_processing().revision().unwrap();
    let parents = |name: &str| {
        let step = revision.step_by_name(name).unwrap();
        let names = step.parents.iter().map(|parent| revision.steps[usize::try_from(*parent).unwrap()].name.clone());
        names.collect::<Vec<_>>()
    };
    assert!(parents("validate_cart").is_empty());
    assert_eq!(parents("charge_payment"), ["validate_cart"]);
    assert_eq!(parents("reserve_stock"), ["validate_cart"]);
    assert_eq!(parents("confirm"), ["validate_cart", "charge_payment", "reserve_stock"]);
}

#[test]
fn the_workflow_is_a_page() {
    let source = include_str!("../src/workflow.rs");
    let lines: Vec<&str> =
        source.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).collect();
    assert!(lines.len() <= 25, "{} lines", lines.len());
    assert!(source.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn what_does_not_fit_the_schema_is_no_order() {
    let revision = order_processing().revision().unwrap();
    let good = serde_json::to_value(&file().orders[0].order).unwrap();
    let check = |change: &dyn Fn(&mut Value)| {
        let mut order = good.clone();
        change(&mut order);
        revision.validate_input(&order.to_string())
    };
    assert!(check(&|_| ()).is_ok());
    for wrong in [
        check(&|order| order["currency"] = json!("DOGE")),
        check(&|order| order["lines"] = json!([])),
        check(&|order| order["lines"][0]["unit_price"] = json!("free")),
        check(&|order| order["lines"][0]["quantity"] = json!(0)),
        check(&|order| drop(order.as_object_mut().unwrap().remove("payment_token"))),
    ] {
        assert_eq!(wrong.unwrap_err().kind, ErrorKind::InputInvalid);
    }
}

fn kit(test: &TestShop) -> TestTasker {
    TestTasker::new(&order_processing()).with_state(test.shop.clone())
}

#[tokio::test]
async fn a_charge_fails_for_good_only_where_the_bank_says_no() {
    let test = shop().await;
    let charge = async |token: &str| {
        let kit = kit(&test);
        let step = kit.step_named("charge_payment").result("validate_cart", cart(token, token, &[]));
        step.run().await.unwrap()
    };

    let payment: Payment = charge("tok_visa_ab").await.value().unwrap();
    assert_eq!(payment.amount.to_string(), "36.00");

    let declined = charge("tok_declined_expired_card_ab").await;
    let failure = declined.error().unwrap();
    assert_eq!(failure.code.as_deref(), Some("CARD_DECLINED"));
    assert!(!failure.retryable);
    assert_eq!(failure.message, "the card was declined: expired card");

    let unavailable = charge("tok_unavailable_1_ab").await;
    assert!(unavailable.error().unwrap().retryable);
    assert!(unavailable.retry_in().is_some());
}

#[tokio::test]
async fn a_flaky_order_completes_in_virtual_time_and_leaves_no_trace_of_tasker() {
    let test = shop().await;
    let OrderFile { orders: entries, .. } = file();
    let entry = entries.iter().find(|entry| entry.expect.charge_attempts == Some(3)).unwrap();
    for line in &entry.order.lines {
        test.shop.stock_up(&line.sku, &line.name, 10_000).await.unwrap();
    }
    let kit = kit(&test).on(&test.pool);
    let mut tx = test.pool.begin().await.unwrap();
    orders::place(&mut tx, &entry.order).await.unwrap();

    let run = kit.run_in(&mut tx, &entry.order).await.unwrap();
    assert_eq!(run.status, TaskState::Complete, "{:?}", run.error);
    assert_eq!(run.step("charge_payment").unwrap().attempts, 3);
    assert!(run.elapsed.as_secs() >= 2, "two retries wait: {:?}", run.elapsed);
    let confirmation: Confirmation = run.result().unwrap();
    assert_eq!(Some(confirmation.total), entry.expect.total);

    tx.rollback().await.unwrap();
    assert_eq!(test.number("select count(*) from tasker.task").await, 0);
    assert_eq!(test.number("select count(*) from orders").await, 0);
}

#[tokio::test]
async fn a_declined_card_ends_the_order_without_a_confirmation() {
    let test = shop().await;
    let OrderFile { orders: entries, stock: shelves } = file();
    for article in shelves {
        test.shop.stock_up(&article.sku, &article.name, article.on_hand).await.unwrap();
    }
    let declined = entries.iter().find(|entry| entry.order.payment_token.starts_with("tok_declined")).unwrap();
    let run = kit(&test).on(&test.pool).run(&declined.order).await.unwrap();
    assert_eq!(run.status, TaskState::Failed);
    assert_eq!(run.step("charge_payment").unwrap().attempts, 1);
    assert_eq!(run.step("charge_payment").unwrap().state, StepState::Failed);
    assert_eq!(run.step("confirm").unwrap().state, StepState::Cancelled);
}
