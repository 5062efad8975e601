//! Tasks submitted and worked on for real.
#![expect(clippy::float_cmp, reason = "these numbers are exact")]

mod support;

use std::time::Duration;

use support::*;
use tasker::ErrorKind;
use tasker::prelude::*;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_task_exists_if_and_only_if_the_callers_transaction_commits() {
    let db = db().await;
    let workflow = orders();
    let tasker = Tasker::from_pool(db.pool.clone()).workflow(workflow.clone());

    let mut tx = db.pool.begin().await.unwrap();
    sqlx::query("insert into orders (total) values (1)").execute(&mut *tx).await.unwrap();
    let lost = workflow.submit(&mut tx, order(&[1.0])).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!((db.count("orders").await, db.count("task").await), (0, 0));
    assert_eq!(lost.status().await.unwrap_err().kind, ErrorKind::NotFound);

    let mut tx = db.pool.begin().await.unwrap();
    sqlx::query("insert into orders (total) values (1)").execute(&mut *tx).await.unwrap();
    let task = workflow
        .submit(&mut tx, order(&[1.0]))
        .key("order:1")
        .tags(serde_json::json!({"tenant": "acme"}))
        .await
        .unwrap();
    let same = tasker.submit(&workflow, order(&[1.0])).key("order:1").within(&mut tx).await.unwrap();
    assert_eq!((task.id(), task.is_new(), same.is_new()), (same.id(), true, false));
    tx.commit().await.unwrap();
    assert_eq!((db.count("orders").await, db.count("task").await), (1, 1));
    assert_eq!(task.status().await.unwrap(), TaskState::Running);

    let error = tasker.submit("orders.order_processing", order(&[2.0])).key("order:1").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(error.message.contains(&task.id().to_string()), "{error}");
    let error = tasker.submit("orders.order_processing", serde_json::json!({"items": 1})).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InputInvalid);
    let error = tasker.submit("orders.order_procesing", order(&[2.0])).await.unwrap_err();
    assert!(error.message.contains("did you mean orders.order_processing?"), "{error}");
    let error = tasker.submit(&workflow, order(&[2.0])).skip("no_such_step").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    db.check().await;
}

/// The first submit of a program registers the workflow, on a connection that no waiting transaction holds.
#[tokio::test]
async fn first_submits_from_more_transactions_than_connections_do_not_wait_for_each_other() {
    let db = db().await;
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(3)
        .acquire_timeout(Duration::from_secs(5))
        .connect(db.database.url())
        .await
        .unwrap();
    let workflow = orders();
    let _tasker = Tasker::from_pool(pool.clone()).workflow(workflow.clone());
    let submits = (0..6).map(|_| async {
        let mut tx = pool.begin().await.unwrap();
        workflow.submit(&mut tx, order(&[1.0])).await.unwrap();
        tx.commit().await.unwrap();
    });
    futures::future::join_all(submits).await;
    assert_eq!(db.count("task").await, 6);
}

#[tokio::test]
async fn a_workflow_without_a_tasker_says_so() {
    let db = db().await;
    let mut conn = db.pool.acquire().await.unwrap();
    let workflow = orders();
    let error = workflow.submit(&mut conn, order(&[1.0])).await.unwrap_err();
    assert!(error.message.contains("belongs to no Tasker"), "{error}");
    let _one = Tasker::from_pool(db.pool.clone()).workflow(workflow.clone());
    let _two = Tasker::from_pool(db.pool.clone()).workflow(workflow.clone());
    let error = workflow.submit(&mut conn, order(&[1.0])).await.unwrap_err();
    assert!(error.message.contains("two Taskers"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_runs_tasks_until_it_is_told_to_stop() {
    let db = db().await;
    let tasker = Tasker::connect(&db.database.engine_url()).await.unwrap().workflow(orders()).concurrency(8);
    let before = tasker.submit("orders.order_processing", order(&[0.5])).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = tasker.clone();
    let working =
        tokio::spawn(async move { worker.work().with_graceful_shutdown(async { drop(stopped.await) }).await });

    let done = before.wait_for(SOON).await.unwrap();
    assert_eq!(done.result::<String>().unwrap(), "0.5 for 1 lines");
    let mut tasks = Vec::new();
    for n in 0..40 {
        tasks.push(tasker.submit("orders.order_processing", order(&[f64::from(n)])).await.unwrap());
    }
    for (n, task) in tasks.iter().enumerate() {
        let done = task.wait_for(SOON).await.unwrap();
        assert!(done.is_complete());
        assert_eq!(done.result::<String>().unwrap(), format!("{n} for 1 lines"));
    }
    let failed = tasker.submit("orders.order_processing", order(&[])).await.unwrap().wait_for(SOON).await.unwrap();
    assert_eq!(failed.status(), TaskState::Failed);
    assert_eq!(failed.code().as_deref(), Some("EMPTY_CART"));
    assert_eq!(failed.result::<String>().unwrap_err().kind, ErrorKind::Permanent);
    let error = failed.result::<String>().unwrap_err();
    assert!(error.message.contains("the cart is empty"), "{error}");

    let later = tasker
        .submit("orders.order_processing", order(&[1.0]))
        .delay(Duration::from_mins(10))
        .priority(Priority::High)
        .correlation_id("c1")
        .skip(ReserveStock)
        .await
        .unwrap();
    assert_eq!(later.wait_for(Duration::from_millis(50)).await.unwrap_err().kind, ErrorKind::Timeout);
    later.cancel("not wanted").await.unwrap();
    let ended = later.wait_for(SOON).await.unwrap();
    assert_eq!(ended.status(), TaskState::Cancelled);
    assert_eq!(ended.result::<String>().unwrap_err().kind, ErrorKind::Cancelled);
    assert_eq!(tasker.task(later.id()).detail().await.unwrap().correlation_id.as_deref(), Some("c1"));
    assert_eq!(tasks[0].steps().await.unwrap().len(), 4);
    assert!(tasks[0].events().await.unwrap().iter().any(|event| event.kind == "complete"));

    stop.send(()).unwrap();
    tokio::time::timeout(SOON, working).await.unwrap().unwrap().unwrap();
    db.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_and_a_server_end_together() {
    let db = db().await;
    let tasker = Tasker::connect(&db.database.engine_url()).await.unwrap().workflow(orders());
    let server = async {
        let task = tasker.submit("orders.order_processing", order(&[2.0])).await?;
        task.wait_for(SOON).await?.result::<String>()
    };
    let result = tokio::select! {
        result = server => result,
        result = tasker.work() => panic!("the worker ended first: {result:?}"),
    };
    assert_eq!(result.unwrap(), "2 for 1 lines");
    // The worker whose future was dropped drains in the background.
    let gone = "select count(*) from tasker.worker where stopped_at is null";
    for _ in 0..100 {
        let alive: i64 = sqlx::query_scalar(gone).fetch_one(&db.pool).await.unwrap();
        if alive == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the worker went on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_commits_its_rows_with_its_result() {
    let db = db().await;
    let workflow = Workflow::new("charges").step_fn(
        "charge",
        async |ctx: Ctx, Input(order): Input<OrderIn>| -> Result<Settled<f64>, StepError> {
            let task = ctx.input().task.id.to_string();
            ctx.transaction(async |tx| {
                let total: f64 = order.items.iter().sum();
                sqlx::query("insert into charge values ($1, $2)").bind(task).bind(total).execute(&mut *tx).await?;
                if ctx.attempt() == 1 {
                    return Err(StepError::retryable("gateway timed out").retry_after(Duration::from_millis(10)));
                }
                Ok(total)
            })
            .await
        },
    );
    let tasker = Tasker::connect(&db.database.engine_url()).await.unwrap().workflow(workflow);
    let worker = tasker.start().await.unwrap();
    let task = tasker.submit("charges", order(&[1.0, 2.0])).await.unwrap();
    assert_eq!(task.wait_for(SOON).await.unwrap().result::<f64>().unwrap(), 3.0);
    assert_eq!(task.steps().await.unwrap()[0].attempt, 2);
    assert_eq!(db.count("charge").await, 1);
    worker.drain(Duration::from_secs(1)).await;
    db.check().await;
}
