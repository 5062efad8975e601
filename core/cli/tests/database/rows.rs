//! What a step is said to be doing, and how tasks are found and paged.

use std::time::Duration;

use tasker_engine::queries::{StepDisplay, StepRow, TaskFilter, WorkerState};
use tasker_engine::{Change, Engine};
use tasker_model::{ErrorKind, StepFailure, TaskId};

use crate::program::Program;
use crate::worker::{Worker, declined};

async fn step(engine: &Engine, task: TaskId, name: &str) -> StepRow {
    let detail = engine.task_detail(task).await.unwrap();
    detail.steps.into_iter().find(|step| step.name == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_says_what_it_is_doing() {
    let program = Program::with_orders().await;
    let engine = program.engine().await;
    let task: TaskId = program.ok(&["run", "shop.orders", "--set", "lines=[]"]).parse().unwrap();
    let held = step(&engine, task, "validate").await;
    assert_eq!((held.display, held.held.as_deref()), (StepDisplay::Held, Some("no_handler")));
    assert_eq!(step(&engine, task, "charge").await.display, StepDisplay::Waiting);
    assert_eq!(engine.unserved_handlers().await.unwrap().len(), 4);
    assert_eq!(program.run(&["doctor"]).code, 1, "steps wait for a handler");

    let mut worker = Worker::start(&engine).await;
    assert_eq!(engine.unserved_handlers().await.unwrap().len(), 0);
    assert_eq!(step(&engine, task, "validate").await.display, StepDisplay::Ready);
    let queue = engine.queues().await.unwrap().pop().unwrap();
    assert_eq!((queue.visible, queue.leased, queue.workers), (1, 0, 1));

    // Claimed, but no heartbeat has told of it yet.
    let claimed = worker.claim().await;
    assert_eq!(step(&engine, task, "validate").await.display, StepDisplay::Running);
    worker.beat(&claimed).await;
    let running = step(&engine, task, "validate").await;
    assert_eq!((running.display, running.worker.as_deref()), (StepDisplay::Running, Some("till-1")));
    let workers = engine.workers(false).await.unwrap();
    assert_eq!((workers[0].state, workers[0].running), (WorkerState::Live, 1));

    // A short backoff waits in the queue, a long one as a timer: both are said alike.
    for delay in [Duration::from_millis(700), Duration::from_secs(30)] {
        let step_claimed = worker.claim().await.pop().unwrap_or_else(|| claimed[0].clone());
        let error = StepFailure::unexpected("the network is down");
        worker.settle(&step_claimed, Change::Retry { error, delay }).await;
        let retrying = step(&engine, task, "validate").await;
        assert_eq!(retrying.display, StepDisplay::Retrying);
        assert!(retrying.due_at.is_some());
        assert!(retrying.error.unwrap().get().contains("network"));
        tokio::time::sleep(Duration::from_millis(800)).await;
    }
    let shown = program.ok(&["task", "show", &task.to_string()]);
    assert!(shown.contains("↻ validate") && shown.contains("attempt 3/2 in 2"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_output_is_that_of_the_sinks() {
    let program = Program::with_orders().await;
    program.write(
        "two.yaml",
        "name: two\nnamespace: shop\nsteps:\n  a: { call: orders.validate }\n  b: { call: orders.charge }\n  c: { call: orders.reserve, after: [b] }\n",
    );
    program.ok(&["workflow", "register", "two.yaml"]);
    let engine = program.engine().await;
    let mut worker = Worker::start(&engine).await;
    let two: TaskId = program.ok(&["run", "shop.two"]).parse().unwrap();
    let skipped: TaskId = program.ok(&["run", "shop.two", "--skip", "a"]).parse().unwrap();
    assert!(engine.task_output(two).await.unwrap().is_none());
    worker.drain().await;
    let output = engine.task_output(two).await.unwrap().unwrap();
    assert_eq!(output.get(), r#"{"a":{"step": 0, "exact": 1.10},"c":{"step": 2, "exact": 1.10}}"#);
    let output = engine.task_output(skipped).await.unwrap().unwrap();
    assert_eq!(output.get(), r#"{"c":{"step": 2, "exact": 1.10}}"#);
    let unknown = engine.task_output(TaskId::generate()).await.unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_found_by_what_people_type() {
    let program = Program::with_orders().await;
    let engine = program.engine().await;
    assert_eq!(engine.find_task("@last").await.unwrap_err().kind, ErrorKind::NotFound);
    let mut ids: Vec<TaskId> = Vec::new();
    for key in ["first", "second", "deadbeef"] {
        ids.push(program.ok(&["run", "shop.orders", "--set", "lines=[]", "--key", key]).parse().unwrap());
    }
    let text = ids[1].to_string();
    for (typed, expected) in
        [("@last", ids[2]), ("second", ids[1]), ("deadbeef", ids[2]), (text.as_str(), ids[1]), (&text[..32], ids[1])]
    {
        assert_eq!(engine.find_task(typed).await.unwrap(), expected, "{typed}");
    }
    assert_eq!(engine.find_task(&text.to_uppercase()).await.unwrap(), ids[1]);
    let several = engine.find_task(&text[..6]).await.unwrap_err();
    assert_eq!(several.kind, ErrorKind::Invalid);
    assert!(ids.iter().all(|id| several.message.contains(&id.to_string())), "{several}");
    for nothing in ["019", "ffffffff", "", "@first", "\0"] {
        assert_eq!(engine.find_task(nothing).await.unwrap_err().kind, ErrorKind::NotFound, "{nothing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_and_filtered() {
    let program = Program::with_orders().await;
    let engine = program.engine().await;
    let mut ids: Vec<TaskId> = Vec::new();
    for n in 0..5 {
        let customer = format!("customer=c{}", n % 2);
        ids.push(program.ok(&["run", "shop.orders", "--set", "lines=[]", "--set", &customer]).parse().unwrap());
    }
    ids.reverse();
    let page = TaskFilter { limit: 2, ..TaskFilter::default() };
    let mut found: Vec<TaskId> = Vec::new();
    loop {
        let rows = engine.list_tasks(&TaskFilter { before: found.last().copied(), ..page.clone() }).await.unwrap();
        if rows.is_empty() {
            break;
        }
        assert!(rows.len() <= 2);
        found.extend(rows.iter().map(|row| row.task_id));
    }
    assert_eq!(found, ids);
    let mut worker = Worker::start(&engine).await;
    let first = worker.claim().await.remove(0);
    worker.settle(&first, Change::Failure { error: declined() }).await;
    for (arguments, count) in [
        (&["--state", "failed"][..], 1),
        (&["--state", "running", "--limit", "3"], 3),
        (&["--workflow", "orders"], 5),
        (&["--workflow", "shop.orders", "--tag", "customer=c0"], 3),
        (&["--workflow", "elsewhere.orders"], 0),
        (&["--namespace", "shop"], 5),
        (&["--key", "none"], 0),
        (&["--since", "2100-01-01T00:00:00Z"], 0),
    ] {
        let mut all = vec!["task", "list"];
        all.extend(arguments);
        assert_eq!(program.json(&all).as_array().unwrap().len(), count, "{arguments:?}");
    }
    let too_many = TaskFilter { limit: 1_001, ..TaskFilter::default() };
    assert_eq!(engine.list_tasks(&too_many).await.unwrap_err().kind, ErrorKind::Invalid);
}
