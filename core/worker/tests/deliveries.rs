//! Published events on their way: to webhooks on a real server, and to subscribers of the process.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use futures::FutureExt as _;
use sha2::{Digest, Sha256};
use support::*;
use tasker_engine::Submission;
use tasker_engine::queries::PublicationFilter;
use tasker_engine::subscriptions::Target;
use tasker_model::{StepFailure, TaskId};
use tasker_worker::{Handlers, Published, Subscriber, Worker};
use tokio::time::Instant;

const SECRET: &str = "a secret of the test";
const PAID: &str = "{name: orders, steps: {charge: {call: h}}, events: {paid: {on: success, step: charge}}}";

/// One request as a server got it.
#[derive(Debug, Clone)]
struct Request {
    headers: HeaderMap,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// A server that answers with these codes in turn, the last one for ever; 0 never answers.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    async fn start(codes: &'static [u16]) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let app = Router::new().fallback(move |headers: HeaderMap, body: String| {
            let at = {
                let mut seen = seen.lock().unwrap();
                seen.push(Request { headers, body });
                seen.len() - 1
            };
            let code = codes[at.min(codes.len() - 1)];
            async move {
                if code == 0 {
                    std::future::pending::<()>().await;
                }
                let location = [("location", "/elsewhere")];
                (StatusCode::from_u16(code).unwrap(), location, "said the server")
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?token=1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    async fn has(&self, count: usize) -> Vec<Request> {
        until("the requests came", async || self.requests().len() >= count).await;
        self.requests()
    }
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < end, "it never came that {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Db {
    async fn hook(&self, name: &str, url: &str) {
        self.engine.subscribe(name, "paid", Target::Webhook { url, secret: SECRET }).await.unwrap();
    }

    async fn paid_by(&self, handlers: Handlers) -> Worker {
        let mut handlers = handlers;
        handlers.insert("default", "h", handler(|_| async { ok(r#"{"id": "p1"}"#) })).unwrap();
        self.worker_of(PAID, slots(10), handlers).await
    }

    async fn submit(&self, worker: &Worker, count: usize) -> Vec<TaskId> {
        let revision = self.revision(PAID).await;
        let tasks = vec![Submission::new(revision, json("{}")); count];
        worker.submit(&tasks).await.unwrap().iter().map(|task| task.task_id).collect()
    }

    /// Makes every delivery due that waits for another attempt, in place of the time that passes.
    async fn let_time_pass(&self) {
        sqlx::query(
            "update tasker.delivery set due_at = now() - interval '1 second' where state = 'pending' and not is_leased",
        )
        .execute(&self.pool)
        .await
        .unwrap();
    }

    async fn deliveries(&self, state: &str) -> i64 {
        sqlx::query_scalar("select count(*) from tasker.delivery where state = $1")
            .bind(state)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

/// HMAC as RFC 2104 has it.
fn hmac(key: &str, text: &str) -> String {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key.as_bytes());
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    let outer = Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize();
    outer.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_a_signed_request_soon() {
    let db = db().await;
    let server = Server::start(&[204]).await;
    db.hook("shop", &server.url).await;
    let worker = db.paid_by(Handlers::default()).await;
    // The looks of the start are over: what comes now is found because it was published.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let since = Instant::now();
    let task = db.submit(&worker, 1).await[0];
    let request = server.has(1).await.remove(0);
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!((&body["event"], &body["task_id"]), (&"default.paid".into(), &task.to_string().into()));
    assert_eq!(body["result"], serde_json::json!({"id": "p1"}));
    assert_eq!(request.header("tasker-event"), "default.paid");
    assert_eq!(request.header("tasker-attempt"), "1");
    assert_eq!(request.header("content-type"), "application/json");
    let (time, signature) = request.header("tasker-signature").split_once(",v1=").unwrap();
    let time = time.strip_prefix("t=").unwrap();
    assert_eq!(signature, hmac(SECRET, &format!("{time}.{}", request.body)));
    let now: i64 = sqlx::query_scalar("select extract(epoch from now())::bigint").fetch_one(&db.pool).await.unwrap();
    assert!((now - time.parse::<i64>().unwrap()).abs() < 10);
    until("it is done", async || db.deliveries("done").await == 1).await;
    worker.drain(Duration::from_secs(5)).await;
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_fails_is_tried_again_with_the_same_id() {
    let db = db().await;
    let server = Server::start(&[500, 302, 200]).await;
    db.hook("shop", &server.url).await;
    let worker = db.paid_by(Handlers::default()).await;
    db.submit(&worker, 1).await;
    // One second and two, less a quarter at most.
    let since = Instant::now();
    let requests = server.has(3).await;
    assert!(since.elapsed() > Duration::from_secs(2), "{:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    let attempts: Vec<&str> = requests.iter().map(|request| request.header("tasker-attempt")).collect();
    assert_eq!(attempts, ["1", "2", "3"]);
    assert!(requests.iter().all(|request| request.header("tasker-delivery") == requests[0].header("tasker-delivery")));
    assert!(requests.iter().all(|request| request.body == requests[0].body), "and the redirect was not followed");
    until("it is done", async || db.deliveries("done").await == 1).await;
    worker.drain(Duration::from_secs(5)).await;
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_webhook_is_given_up_after_twelve_attempts_and_can_be_delivered_again() {
    let db = db().await;
    let server = Server::start(&[503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 200]).await;
    db.hook("shop", &server.url).await;
    let worker = db.paid_by(Handlers::default()).await;
    let task = db.submit(&worker, 1).await[0];
    for attempt in 1..=12 {
        until("the next attempt ended", async || {
            db.let_time_pass().await;
            tasker_engine::pgmq::wake(&db.engine, &mut db.engine.acquire().await.unwrap(), &[-1]).await.unwrap();
            server.requests().len() >= attempt
        })
        .await;
    }
    until("it is dead", async || db.deliveries("dead").await == 1).await;
    let filter = PublicationFilter { task: Some(task), dead: true, ..Default::default() };
    let id = db.engine.publications(&filter).await.unwrap()[0].publication_id;
    let delivery = db.engine.publication(id).await.unwrap().deliveries.remove(0);
    assert_eq!(delivery.attempts, 12);
    assert_eq!(delivery.last_error.unwrap(), "it answered 503 Service Unavailable: said the server");
    assert_eq!(db.engine.redeliver(None, Some("shop")).await.unwrap(), 1);
    let last = server.has(13).await.remove(12);
    assert_eq!(last.header("tasker-attempt"), "1");
    until("it is done", async || db.deliveries("done").await == 1).await;
    worker.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_hangs_or_refuses_holds_up_no_other() {
    let db = db().await;
    let (hangs, answers) = (Server::start(&[0]).await, Server::start(&[200]).await);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    db.hook("hangs", &hangs.url).await;
    db.hook("refuses", &format!("http://{closed}")).await;
    db.hook("answers", &answers.url).await;
    let worker = db.paid_by(Handlers::default()).await;
    let since = Instant::now();
    db.submit(&worker, 100).await;
    answers.has(100).await;
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    assert!(hangs.requests().len() <= 8, "one subscription has eight places");
    until("an error is kept", async || {
        let error = "select count(*) from tasker.delivery where last_error like 'it cannot be reached%'";
        sqlx::query_scalar::<_, i64>(error).fetch_one(&db.pool).await.unwrap() > 0
    })
    .await;
    until("the time limit ended the first that hung", async || {
        let error = "select count(*) from tasker.delivery where last_error = 'it did not answer within 10 s'";
        sqlx::query_scalar::<_, i64>(error).fetch_one(&db.pool).await.unwrap() > 0
    })
    .await;
    worker.drain(Duration::ZERO).await;
}

fn subscriber<Fut>(take: impl Fn(Published) -> Fut + Send + Sync + 'static) -> Arc<dyn Subscriber>
where
    Fut: Future<Output = Result<(), StepFailure>> + Send + 'static,
{
    Arc::new(move |event: Published| take(event).boxed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_in_the_process_gets_each_event_and_again_after_an_error_or_a_panic() {
    let db = db().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (counted, kept) = (Arc::clone(&runs), Arc::clone(&seen));
    let mailer = subscriber(move |event| {
        let run = counted.fetch_add(1, Ordering::Relaxed);
        assert!(run != 0, "the first one panics");
        let kept = Arc::clone(&kept);
        async move {
            if run == 1 {
                return Err(StepFailure::unexpected("no mail server"));
            }
            let result: HashMap<String, String> = event.result().unwrap();
            kept.lock().unwrap().push((
                event.task_id,
                event.step.clone(),
                result["id"].clone(),
                event.delivery_attempt,
            ));
            Ok(())
        }
    });
    let mut handlers = Handlers::default();
    handlers.subscribe("paid", "mailer", mailer).unwrap();
    let worker = db.paid_by(handlers).await;
    let task = db.submit(&worker, 1).await[0];
    until("it was told", async || !seen.lock().unwrap().is_empty()).await;
    assert_eq!(*seen.lock().unwrap(), [(task, Some("charge".to_owned()), "p1".to_owned(), 3)]);
    until("it is done", async || db.deliveries("done").await == 1).await;
    worker.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_no_attempt_repairs_is_given_up_at_once() {
    let db = db().await;
    let mut handlers = Handlers::default();
    let fails = subscriber(|_| async { Err(StepFailure::permanent("no such customer")) });
    handlers.subscribe("*", "fails", fails).unwrap();
    let worker = db.paid_by(handlers).await;
    db.submit(&worker, 1).await;
    until("it is dead", async || db.deliveries("dead").await == 1).await;
    worker.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_without_the_subscriber_publishes_reaches_the_one_that_has_it() {
    let db = db().await;
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let counts = subscriber(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok(()) }
    });
    let mut handlers = Handlers::default();
    handlers.subscribe("paid", "counts", counts).unwrap();
    let has = Worker::start(db.engine.clone(), Vec::new(), handlers, slots(1)).await.unwrap();
    let works = db.paid_by(Handlers::default()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let since = Instant::now();
    db.submit(&works, 20).await;
    until("all came", async || seen.load(Ordering::Relaxed) >= 20).await;
    if !db.engine.is_pooled() {
        assert!(since.elapsed() < Duration::from_secs(3), "woken, not polled: {:?}", since.elapsed());
    }
    until("all are done", async || db.deliveries("done").await == 20).await;
    assert_eq!(seen.load(Ordering::Relaxed), 20, "each once");
    // Another subscription of that name is refused where it wants something else.
    let mut other = Handlers::default();
    other.subscribe("*", "counts", subscriber(|_| async { Ok(()) })).unwrap();
    assert!(Worker::start(db.engine.clone(), Vec::new(), other, slots(1)).await.is_err());
    for worker in [has, works] {
        worker.drain(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_died_leaves_its_deliveries_to_the_next() {
    let db = db().await;
    let server = Server::start(&[200]).await;
    db.hook("shop", &server.url).await;
    // A relay that takes the delivery and is never heard of again.
    let worker = db.paid_by(Handlers::default()).await;
    worker.drain(Duration::from_secs(5)).await;
    let revision = db.revision(PAID).await;
    let mut conn = db.engine.acquire().await.unwrap();
    let submission = Submission::new(revision, json("{}"));
    let task =
        db.engine.submit(&mut conn, &[submission], None, tasker_engine::Root::Anyone).await.unwrap().submitted[0];
    sqlx::query("select tasker.publish(array[$1], array[0], 'success', now())")
        .bind(task.task_id.0)
        .execute(&db.pool)
        .await
        .unwrap();
    let room = tasker_engine::deliveries::Room { each: 8, limit: 8, lease: Duration::from_secs(2) };
    let taken = db.engine.take_deliveries(&mut conn, &[], &[], room).await.unwrap();
    assert_eq!(taken.deliveries.len(), 1);
    let worker = db.paid_by(Handlers::default()).await;
    let is_lost = |request: &Request| request.header("tasker-delivery") == taken.deliveries[0].delivery_id.to_string();
    until("it was made again", async || server.requests().iter().any(is_lost)).await;
    let found = server.requests();
    assert_eq!(found.iter().find(|request| is_lost(request)).unwrap().header("tasker-attempt"), "2");
    worker.drain(Duration::from_secs(5)).await;
}
