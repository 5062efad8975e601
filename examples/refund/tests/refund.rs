//! Every way that a refund can go, under the test kit: its three days pass by themselves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use example_refund::services::{self, APPROVAL_LIMIT_CENTS, Assessment, Gateway, Request, assess};
use example_refund::{Approval, Outcome, refund};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use tasker::testing::{TestRun, TestTasker};
use tasker::{StepError, StepState, TaskState, Tasker};
use tasker_testkit::TestDatabase;

const THREE_DAYS: Duration = Duration::from_hours(72);

struct World {
    pool: PgPool,
    /// Deleted at the end of the test.
    _database: TestDatabase,
}

async fn world() -> World {
    let database = tasker_testkit::database("refund", async |url| {
        let tasker = Tasker::connect(url).await.unwrap();
        tasker.migrate().await.unwrap();
        services::migrate(tasker.pool()).await.unwrap();
        tasker.pool().close().await;
    })
    .await;
    World { pool: database.pool().await, _database: database }
}

impl World {
    fn kit(&self) -> TestTasker {
        TestTasker::new(&refund(THREE_DAYS)).with_state(Gateway::new(self.pool.clone())).on(&self.pool)
    }

    /// Runs a refund, and reads what the gateway, the ledger and the mailer have before all of Tasker's is rolled back.
    async fn run(&self, kit: TestTasker, request: &Request) -> (TestRun, Vec<String>) {
        let mut tx = self.pool.begin().await.unwrap();
        let run = kit.run_in(&mut tx, request).await.unwrap();
        let books = books(&mut tx).await;
        tx.rollback().await.unwrap();
        (run, books)
    }
}

async fn books(connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "select line from (
             select 1 as part, format('gateway %s, reversed: %s', amount_cents, is_reversed) as line from gateway_refund
             union all select 2, 'ledger ' || amount_cents from ledger_entry
             union all select 3, format('mail to %s: %s', customer, body) from mail
         ) as lines order by part",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

/// Asked for eight days after the order.
fn request(amount_cents: i64) -> Request {
    Request {
        order_id: "R-1".to_owned(),
        customer: "zoe@example.org".to_owned(),
        amount_cents,
        ordered_on: "2026-01-02".parse().unwrap(),
        requested_on: "2026-01-10".parse().unwrap(),
    }
}

fn refused(run: &TestRun) -> String {
    match run.result().unwrap() {
        Outcome::Refused(reason) => reason,
        Outcome::Refunded(entry) => panic!("it was booked as {entry:?}"),
    }
}

const PAID: [&str; 3] =
    ["gateway 25000, reversed: f", "ledger -25000", "mail to zoe@example.org: your refund is on its way"];

#[test]
fn the_policy_knows_three_answers() {
    assert_eq!(assess(&request(APPROVAL_LIMIT_CENTS)), Assessment::Automatic);
    assert_eq!(assess(&request(APPROVAL_LIMIT_CENTS + 1)), Assessment::NeedsApproval);
    let on = |day: &str| assess(&Request { requested_on: day.parse().unwrap(), ..request(1) });
    assert_eq!(on("2026-02-01"), Assessment::Automatic);
    assert_eq!(on("2026-02-02"), Assessment::TooOld);
}

#[tokio::test]
async fn a_small_refund_is_paid_and_booked_without_anybody() {
    let world = world().await;
    let (run, books) = world.run(world.kit(), &request(4_000)).await;
    assert_eq!(run.status, TaskState::Complete, "{:?}", run.error);
    assert!(matches!(run.result().unwrap(), Outcome::Refunded(_)));
    assert_eq!(run.step("approval").unwrap().state, StepState::Skipped);
    assert_eq!(books[..2], ["gateway 4000, reversed: f", "ledger -4000"]);
}

#[tokio::test]
async fn a_large_refund_is_paid_once_a_person_approves_it() {
    let world = world().await;
    let kit = world.kit().signal("approval", Approval { approved: true, by: "kim".to_owned() });
    let (run, books) = world.run(kit, &request(25_000)).await;
    assert_eq!(run.status, TaskState::Complete, "{:?}", run.error);
    assert!(run.elapsed < THREE_DAYS);
    let approval: Approval = run.step("verdict").unwrap().value().unwrap();
    assert_eq!(approval.by, "kim");
    assert_eq!(run.step("auto_approved").unwrap().state, StepState::Skipped);
    assert_eq!(books, PAID);
}

#[tokio::test]
async fn a_refund_that_a_person_refuses_costs_nothing_and_the_customer_knows() {
    let world = world().await;
    let kit = world.kit().signal("approval", Approval { approved: false, by: "kim".to_owned() });
    let (run, books) = world.run(kit, &request(25_000)).await;
    assert_eq!(refused(&run), "it was refused by kim");
    assert_eq!(run.step("gateway_refund").unwrap().state, StepState::Skipped);
    assert_eq!(books, ["mail to zoe@example.org: there is no refund: it was refused by kim"]);
}

#[tokio::test]
async fn an_answer_that_is_none_is_not_taken() {
    let world = world().await;
    let error = world.kit().signal("approval", json!({ "approved": "maybe" })).run(request(25_000)).await.unwrap_err();
    assert!(error.message.contains("approval"), "{error}");
}

#[tokio::test]
async fn a_refund_that_nobody_answers_is_refused_after_three_days() {
    let world = world().await;
    let (run, books) = world.run(world.kit(), &request(25_000)).await;
    // The milliseconds that the run really takes are not in it.
    assert!(run.elapsed > Duration::from_hours(71), "{:?}", run.elapsed);
    assert_eq!(refused(&run), "it was refused by the deadline");
    assert_eq!(books, ["mail to zoe@example.org: there is no refund: it was refused by the deadline"]);
}

#[tokio::test]
async fn an_order_that_is_too_old_is_rejected_without_asking_anybody() {
    let world = world().await;
    let late = Request { requested_on: "2026-02-28".parse().unwrap(), ..request(25_000) };
    let (run, books) = world.run(world.kit(), &late).await;
    assert_eq!(refused(&run), "the order is older than 30 days");
    assert_eq!(run.step("approval").unwrap().state, StepState::Skipped);
    assert_eq!(books, ["mail to zoe@example.org: there is no refund: the order is older than 30 days"]);
}

#[tokio::test]
async fn a_refund_that_cannot_be_booked_is_undone() {
    let world = world().await;
    services::close_month(&world.pool, request(1).requested_on).await.unwrap();
    let (run, books) = world.run(world.kit(), &request(4_000)).await;
    assert_eq!(run.status, TaskState::Failed);
    assert_eq!(run.step("book").unwrap().error.as_ref().unwrap().code.as_deref(), Some("MONTH_CLOSED"));
    assert_eq!(run.step("book").unwrap().attempts, 1);
    assert_eq!(run.step("undo:gateway_refund").unwrap().state, StepState::Done);
    assert_eq!(run.step("notify").unwrap().state, StepState::Cancelled);
    assert_eq!(books, ["gateway 4000, reversed: t"]);
}

#[tokio::test]
async fn a_gateway_that_is_down_is_asked_again_and_pays_once() {
    let world = world().await;
    let kit = world.kit().signal("approval", Approval { approved: true, by: "kim".to_owned() });
    let kit = kit.fail_next("gateway_refund", StepError::retryable("503 Service Unavailable"));
    let (run, books) = world.run(kit, &request(25_000)).await;
    assert_eq!(run.step("gateway_refund").unwrap().attempts, 2);
    assert_eq!(books, PAID);

    let gateway = Gateway::new(world.pool.clone());
    let first = gateway.refund("key", "R-2", 100).await.unwrap();
    assert_eq!(gateway.refund("key", "R-2", 100).await.unwrap(), first);
}
