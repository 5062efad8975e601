//! All 200 orders through a real worker on a real database.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use example_orders::services::Order;
use example_orders::{Ending, Outcome, PlaceError, order_processing, place};
use futures::StreamExt as _;
use support::{TestShop, file, shop};
use tasker::{ErrorKind, Tasker, Workflow};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_mins(2);

async fn tasker(test: &TestShop) -> (Tasker, Workflow) {
    let workflow = order_processing();
    let tasker = Tasker::from_pool(test.pool.clone()).workflow(workflow.clone()).with_state(test.shop.clone());
    tasker.register().await.unwrap();
    (tasker, workflow)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_orders_end_as_their_file_says_and_nobody_pays_twice() {
    let test = shop().await;
    let file = file();
    file.stock_up(&test.shop).await.unwrap();
    let (tasker, workflow) = tasker(&test).await;
    let worker = tasker.start().await.unwrap();

    let (pool, workflow) = (&test.pool, &workflow);
    let endings = futures::stream::iter(&file.orders).map(|entry| async move {
        let task = place(pool, workflow, &entry.order).await.unwrap();
        (entry, Ending::of(&task).await.unwrap())
    });
    let endings: Vec<_> = timeout(PATIENCE, endings.buffer_unordered(50).collect()).await.unwrap();
    worker.drain(Duration::from_secs(5)).await;

    let mut counts: BTreeMap<Outcome, usize> = BTreeMap::new();
    for (entry, ending) in &endings {
        *counts.entry(ending.outcome).or_default() += 1;
        assert_eq!(entry.expect.differs(ending), None, "{}: {ending:?}", entry.order.order_id);
    }
    let expected = [(Outcome::Complete, 175), (Outcome::Declined, 13), (Outcome::OutOfStock, 9), (Outcome::Invalid, 3)];
    assert_eq!(counts, expected.into());

    // One charge for each order that completed, over what the file says; none for a declined one.
    let charges: BTreeMap<String, String> = sqlx::query_as("select key, amount::text from provider_charge")
        .fetch_all(pool)
        .await
        .unwrap()
        .into_iter()
        .collect();
    let by_token = "select count(*) from (select from provider_charge group by token having count(*) > 1) twice";
    assert_eq!(test.number(by_token).await, 0);
    for (entry, ending) in &endings {
        let charge = charges.get(&format!("order:{}", entry.order.order_id));
        match ending.outcome {
            Outcome::Complete => assert_eq!(charge.unwrap().parse().ok(), entry.expect.total),
            // Charged or not: the charge and the reservation run side by side. The hold expires.
            Outcome::OutOfStock => {}
            _ => assert_eq!(charge, None),
        }
    }

    // Pieces do not come from nowhere and do not vanish, and what completed has all of its own.
    for article in &file.stock {
        let (on_hand, reserved): (i32, i64) = sqlx::query_as(
            "select on_hand, coalesce((select sum(quantity) from reservation r where r.sku = s.sku), 0)
             from stock s where sku = $1",
        )
        .bind(&article.sku)
        .fetch_one(pool)
        .await
        .unwrap();
        assert_eq!(i64::from(on_hand) + reserved, i64::from(article.on_hand), "{}", article.sku);
    }
    for (entry, _) in endings.iter().filter(|(_, ending)| ending.outcome == Outcome::Complete) {
        let reserved: Option<i64> = sqlx::query_scalar("select sum(quantity) from reservation where order_id = $1")
            .bind(&entry.order.order_id)
            .fetch_one(pool)
            .await
            .unwrap();
        assert_eq!(reserved.unwrap_or_default(), pieces(&entry.order), "{}", entry.order.order_id);
    }
    let confirmed = "select count(*) from orders where state = 'confirmed' and confirmed_at is not null";
    assert_eq!(test.number(confirmed).await, 175);
    assert_eq!(test.number("select count(*) from tasker.check_invariants()").await, 0);
}

fn pieces(order: &Order) -> i64 {
    order.lines.iter().map(|line| i64::from(line.quantity)).sum()
}

#[tokio::test]
async fn an_order_and_its_task_exist_both_or_not_at_all() {
    let test = shop().await;
    let (_tasker, workflow) = tasker(&test).await;
    let order = file().orders.swap_remove(0).order;
    let count = async || {
        let orders = test.number("select count(*) from orders").await;
        (orders, test.number("select count(*) from tasker.task").await)
    };

    let mut empty = order.clone();
    empty.lines.clear();
    let refused = place(&test.pool, &workflow, &empty).await.unwrap_err();
    assert!(matches!(&refused, PlaceError::Tasker(error) if error.kind == ErrorKind::InputInvalid), "{refused:?}");
    assert_eq!(count().await, (0, 0));

    let first = place(&test.pool, &workflow, &order).await.unwrap();
    let again = place(&test.pool, &workflow, &order).await.unwrap();
    assert!(first.is_new() && !again.is_new());
    assert_eq!(first.id(), again.id());

    let mut other = order;
    other.payment_token = "tok_visa_other".to_owned();
    let conflict = place(&test.pool, &workflow, &other).await.unwrap_err();
    assert!(matches!(&conflict, PlaceError::Tasker(error) if error.kind == ErrorKind::Conflict), "{conflict:?}");
    assert_eq!(count().await, (1, 1));
}
