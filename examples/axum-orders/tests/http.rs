//! The server over real HTTP, on a real database.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::{Duration, Instant};

use example_axum_orders::{app, serve};
use example_orders::services::Shop;
use example_orders::{Entry, OrderFile, Outcome, order_processing};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use tasker::Tasker;
use tasker_testkit::TestDatabase;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    url: String,
    client: Client,
    pool: PgPool,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
    database: TestDatabase,
}

fn file() -> OrderFile {
    OrderFile::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../orders/data/orders.json")).unwrap()
}

fn one(outcome: Outcome) -> Entry {
    let mut entries = file().orders.into_iter();
    entries.find(|entry| entry.expect.outcome == outcome && entry.expect.charge_attempts.unwrap_or(1) == 1).unwrap()
}

async fn server() -> Server {
    let database = tasker_testkit::database("axum_orders", async |url| {
        let tasker = Tasker::connect(url).await.unwrap();
        tasker.migrate().await.unwrap();
        let shop = Shop::new(tasker.pool().clone());
        shop.migrate().await.unwrap();
        file().stock_up(&shop).await.unwrap();
        tasker.pool().close().await;
    })
    .await;
    let pool = database.pool().await;
    let shop = Shop::new(pool.clone());
    let workflow = order_processing();
    let tasker = Tasker::from_pool(pool.clone()).workflow(workflow.clone()).with_state(shop.clone());
    tasker.register().await.unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let token = CancellationToken::new();
    let running = tokio::spawn(serve(listener, app(tasker.clone(), workflow, shop), tasker, token.clone()));
    // Another test of this process may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Server { url, client: Client::new(), pool, stop: token, running, database }
}

impl Server {
    async fn post(&self, order: &Value) -> (StatusCode, Value) {
        let response = self.client.post(format!("{}/orders", self.url)).json(order).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn get(&self, id: &str) -> (StatusCode, Value) {
        let response = self.client.get(format!("{}/orders/{id}", self.url)).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    /// Asks for an order until its task has ended.
    async fn ended(&self, id: &str) -> Value {
        let began = Instant::now();
        loop {
            let (status, body) = self.get(id).await;
            assert_eq!(status, StatusCode::OK, "{body}");
            if body["task"]["state"] != "running" {
                return body;
            }
            assert!(began.elapsed() < PATIENCE, "{body}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends server and worker; the database lives on with what is returned.
    async fn stop(self) -> TestDatabase {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.running).await.unwrap().unwrap().unwrap();
        self.database
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_taken_at_once_and_confirmed_by_the_worker_beside_the_server() {
    let server = server().await;
    let entry = one(Outcome::Complete);
    let order = serde_json::to_value(&entry.order).unwrap();

    let (status, body) = server.post(&order).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    assert_eq!(body["new"], true);
    let (status, again) = server.post(&order).await;
    assert_eq!((status, &again["new"], &again["task_id"]), (StatusCode::ACCEPTED, &json!(false), &body["task_id"]));

    let ended = server.ended(&entry.order.order_id).await;
    assert_eq!(ended["state"], "confirmed", "{ended}");
    assert_eq!(ended["total"], json!(entry.expect.total));
    assert_eq!(ended["task"]["task_id"], body["task_id"]);
    for step in ["validate_cart", "charge_payment", "reserve_stock", "confirm"] {
        assert_eq!(ended["task"]["steps"][step], "done", "{ended}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_order_says_why() {
    let server = server().await;
    let entry = one(Outcome::Declined);
    let (status, body) = server.post(&serde_json::to_value(&entry.order).unwrap()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let ended = server.ended(&entry.order.order_id).await;
    assert_eq!((&ended["state"], &ended["task"]["state"]), (&json!("placed"), &json!("failed")), "{ended}");
    assert!(ended["task"]["reason"].as_str().unwrap().starts_with("the card was declined"), "{ended}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_is_refused_and_leaves_nothing() {
    let server = server().await;
    let order = serde_json::to_value(&one(Outcome::Complete).order).unwrap();

    let mut empty = order.clone();
    empty["lines"] = json!([]);
    let (status, body) = server.post(&empty).await;
    assert!(status.is_client_error(), "{status} {body}");
    assert!(body["error"].as_str().unwrap().contains("lines"), "{body}");
    let (status, _) = server.post(&json!({ "order_id": "A-1" })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    for table in ["select count(*) from orders", "select count(*) from tasker.task"] {
        let rows: i64 = sqlx::query_scalar(table).fetch_one(&server.pool).await.unwrap();
        assert_eq!(rows, 0, "{table}");
    }

    let (status, _) = server.post(&order).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let mut other = order.clone();
    other["payment_token"] = json!("tok_visa_other");
    let (status, body) = server.post(&other).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");

    let (status, body) = server.get("A-0").await;
    assert_eq!((status, &body["error"]), (StatusCode::NOT_FOUND, &json!("there is no order A-0")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_has_finished_what_it_had_begun() {
    let server = server().await;
    let pool = server.pool.clone();
    let mut entries = file().orders;
    entries.retain(|entry| entry.expect.outcome == Outcome::Complete && entry.expect.charge_attempts == Some(1));
    let orders: Vec<Value> = entries[..20].iter().map(|entry| serde_json::to_value(&entry.order).unwrap()).collect();
    let answers = futures::future::join_all(orders.iter().map(|order| server.post(order))).await;
    assert!(answers.iter().all(|(status, _)| *status == StatusCode::ACCEPTED), "{answers:?}");
    let _database = server.stop().await;

    // No step is left with a worker that is gone, and the next process finishes the rest.
    let broken: i64 =
        sqlx::query_scalar("select count(*) from tasker.check_invariants()").fetch_one(&pool).await.unwrap();
    assert_eq!(broken, 0);
    let shop = Shop::new(pool.clone());
    let tasker = Tasker::from_pool(pool.clone()).workflow(order_processing()).with_state(shop);
    let worker = tasker.start().await.unwrap();
    let began = Instant::now();
    let confirmed = "select count(*) from orders where state = 'confirmed'";
    while sqlx::query_scalar::<_, i64>(confirmed).fetch_one(&pool).await.unwrap() < 20 {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    worker.drain(Duration::from_secs(5)).await;
}
