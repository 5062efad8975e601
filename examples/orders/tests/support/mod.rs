//! A database with Tasker's tables and the shop's, for one test.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::path::Path;

use example_orders::OrderFile;
use example_orders::services::{Cart, Currency, Customer, Shop};
use sqlx::PgPool;
use tasker::Tasker;
use tasker_testkit::TestDatabase;

pub(crate) struct TestShop {
    pub(crate) shop: Shop,
    pub(crate) pool: PgPool,
    /// Deleted at the end of the test.
    _database: TestDatabase,
}

pub(crate) async fn shop() -> TestShop {
    let database = tasker_testkit::database("orders", async |url| {
        let tasker = Tasker::connect(url).await.unwrap();
        tasker.migrate().await.unwrap();
        Shop::new(tasker.pool().clone()).migrate().await.unwrap();
        tasker.pool().close().await;
    })
    .await;
    let pool = database.pool().await;
    TestShop { shop: Shop::new(pool.clone()), pool, _database: database }
}

pub(crate) fn file() -> OrderFile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/orders.json");
    OrderFile::read(&path).unwrap()
}

pub(crate) fn cart(order_id: &str, token: &str, items: &[(&str, i32)]) -> Cart {
    Cart {
        order_id: order_id.to_owned(),
        customer: Customer { name: "Zoë".to_owned(), email: "zoe@example.org".to_owned(), country: "NL".to_owned() },
        currency: Currency::Eur,
        subtotal: "40.00".parse().unwrap(),
        discount: "4.00".parse().unwrap(),
        total: "36.00".parse().unwrap(),
        items: items.iter().map(|(sku, quantity)| ((*sku).to_owned(), *quantity)).collect(),
        payment_token: token.to_owned(),
    }
}

impl TestShop {
    /// Reads one number.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }
}
