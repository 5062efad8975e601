//! From an empty database to the end of a task.

use std::time::Duration;

use crate::program::{ORDERS, Program};
use crate::worker::{Worker, declined};
use tasker_engine::Change;

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_installed_shown_and_deleted() {
    let program = Program::empty().await;
    let status = program.json(&["db", "status"]);
    assert_eq!(status["current"], false);
    let refused = program.run(&["task", "list"]);
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.err.contains("tasker db migrate"), "{refused:?}");
    assert_eq!(program.run(&["doctor"]).code, 1);

    assert!(program.ok(&["db", "migrate"]).contains("applied 0001"));
    assert!(program.ok(&["db", "migrate"]).contains("was up to date"));
    assert_eq!(program.json(&["db", "status"])["current"], true);

    program.write("orders.yaml", ORDERS);
    program.ok(&["workflow", "register", "orders.yaml"]);
    let asked = program.run(&["db", "reset"]);
    assert_eq!(asked.code, 3, "{asked:?}");
    assert!(asked.err.contains("--yes"), "{asked:?}");
    assert!(!asked.err.contains("postgres:secret"));
    assert_eq!(program.json(&["workflow", "list"]).as_array().unwrap().len(), 1);
    program.ok(&["db", "reset", "--yes"]);
    assert_eq!(program.json(&["workflow", "list"]).as_array().unwrap().len(), 0);
    program.ok(&["db", "test-mode", "on"]);
    assert!(program.ok(&["doctor"]).contains("marked for tests"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_runs_to_its_end() {
    let program = Program::with_orders().await;
    let engine = program.engine().await;
    let id = program.ok(&[
        "run",
        "shop.orders",
        "-i",
        r#"{"lines":[1.10],"customer":"ada"}"#,
        "--key",
        "order:1",
        "--tag",
        "tenant=acme",
    ]);
    // A file and stdin with the same value are the same input.
    program.write("order.json", r#"{"customer": "ada", "lines": [1.10]}"#);
    let again = program.json(&["run", "shop.orders", "-i", "@order.json", "--key", "order:1"]);
    assert_eq!((again["task_id"].as_str().unwrap(), again["created"].as_bool()), (id.as_str(), Some(false)));
    let piped = program
        .run_with(&["run", "shop.orders", "-i", "-", "--key", "order:1"], r#"{"lines":[1.10],"customer":"ada"}"#);
    assert_eq!((piped.code, piped.out.trim()), (0, id.as_str()), "{piped:?}");
    let conflict = program.run(&["run", "shop.orders", "-i", r#"{"lines":[2]}"#, "--key", "order:1"]);
    assert_eq!(conflict.code, 1, "{conflict:?}");
    assert!(conflict.err.contains(&id), "{conflict:?}");

    let slow = program.run(&["task", "wait", &id, "--timeout", "100ms"]);
    assert_eq!(slow.code, 7, "{slow:?}");
    Worker::start(&engine).await.drain().await;

    assert_eq!(program.ok(&["task", "wait", "order:1"]), r#"{"step": 3, "exact": 1.10}"#);
    let rows = program.json(&["task", "list", "--state", "complete", "--tag", "customer=ada", "--since", "1h"]);
    assert_eq!(rows[0]["task_id"], id.as_str());
    assert_eq!((&rows[0]["steps"], &rows[0]["steps_done"]), (&4.into(), &4.into()));
    assert_eq!(program.json(&["task", "list", "--tag", "customer=bob"]).as_array().unwrap().len(), 0);
    assert_eq!(program.json(&["task", "list", "--state", "running"]).as_array().unwrap().len(), 0);
    let shown = program.ok(&["task", "show", "@last"]);
    assert!(shown.contains("✓ confirm") && shown.contains("120 ms"), "{shown}");
    let events = program.json(&["task", "events", &id[..13]]);
    let kinds: Vec<_> = events.as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "done").count(), 4, "{kinds:?}");
    assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("submitted", "complete"));
    assert_eq!(events[0]["actor"], "ada");
    assert!(events.as_array().unwrap().iter().any(|e| e["worker"] == "till-1" && e["duration_ms"] == 120));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_followed_in_a_pipe_and_its_end_is_the_exit_code() {
    let program = Program::with_orders().await;
    let engine = program.engine().await;
    let mut worker = Worker::start(&engine).await;
    let mut command = program.command(&["run", "shop.orders", "--set", "lines=[]", "--watch", "--timeout", "60s"]);
    let running = tokio::task::spawn_blocking(move || command.output().unwrap());
    let first = loop {
        if let Some(step) = worker.claim().await.pop() {
            break step;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    worker.settle(&first, Change::Failure { error: declined() }).await;
    let output = running.await.unwrap();
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let lines: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: std::collections::HashSet<_> = lines.iter().map(|line| line["event_id"].as_i64()).collect();
    assert_eq!(numbers.len(), lines.len(), "no event is written twice");
    assert_eq!(lines.last().unwrap()["kind"], "failed");
    assert!(lines.iter().any(|line| line["step"] == "validate" && line["error"]["code"] == "CARD_DECLINED"));
    assert!(String::from_utf8(output.stderr).unwrap().contains("CARD_DECLINED"));

    let waited = program.run(&["task", "wait", "@last", "-o", "json"]);
    assert_eq!(waited.code, 6, "{waited:?}");
    let value: serde_json::Value = serde_json::from_str(&waited.out).unwrap();
    assert_eq!((&value["state"], &value["error"]["step"]), (&"failed".into(), &"validate".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_cancelled_with_a_reason_and_an_actor() {
    let program = Program::with_orders().await;
    let id = program.ok(&["run", "shop.orders", "--set", "lines=[]"]);
    let asked = program.run(&["task", "cancel", &id]);
    assert_eq!(asked.code, 3, "{asked:?}");
    assert!(asked.err.contains("--reason"), "{asked:?}");
    assert_eq!(program.json(&["task", "show", &id])["task"]["state"], "running");
    let cancelled = program.json(&["task", "cancel", &id, "--reason", "ordered twice"]);
    assert_eq!((&cancelled["state"], &cancelled["ending"]), (&"cancelled".into(), &false.into()));
    let events = program.json(&["task", "events", &id]);
    assert!(
        events.as_array().unwrap().iter().any(|e| e["actor"] == "ada" && e["reason"] == "ordered twice"),
        "{events}"
    );
    assert!(program.ok(&["task", "cancel", &id, "--reason", "again"]).contains("is cancelled"));
    assert_eq!(program.run(&["task", "watch", &id]).code, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_input_makes_no_task() {
    let program = Program::with_orders().await;
    program.write("large.json", &format!(r#"{{"lines":["{}"]}}"#, "x".repeat(300 * 1024)));
    let unknown_skip = ["run", "shop.orders", "--set", "lines=[]", "--skip", "nothing"];
    for (arguments, code, says) in [
        (&["run", "shop.orders", "-i", "large.json"][..], 2, "262144 bytes"),
        (&["run", "shop.orders", "-i", r#"{"lines":["\u0000"]}"#], 2, "u0000"),
        (&["run", "shop.orders"], 2, "lines"),
        (&["run", "shop.orders", "--set", "lines=3"], 2, "/lines"),
        (&["run", "shop.order", "--set", "lines=[]"], 4, "did you mean shop.orders?"),
        (&unknown_skip, 2, "nothing"),
        (&["task", "show", "no-such-task"], 4, "task list"),
    ] {
        let ran = program.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?} {ran:?}");
        assert!(ran.err.contains(says), "{arguments:?} {ran:?}");
        assert_eq!(ran.out, "");
    }
    let dry = program.json(&["run", "shop.orders", "--set", "lines=[1.50]", "--dry-run"]);
    assert_eq!(dry["input"]["lines"][0], 1.5);
    assert_eq!(program.json(&["task", "list"]).as_array().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_is_registered_exported_and_rolled_back() {
    let program = Program::with_orders().await;
    let exported = program.ok(&["workflow", "export", "shop.orders"]);
    program.write("exported.yaml", &exported);
    let again = program.json(&["workflow", "register", "exported.yaml"]);
    assert_eq!(again["created"], false, "the export is the same workflow: {exported}");

    program.write("two.yaml", &ORDERS.replace("1.0", "2.0"));
    let two = program.json(&["workflow", "register", "two.yaml"]);
    let shown = program.json(&["workflow", "show", "shop.orders"]);
    assert_eq!(shown["revision"], two["revision"]);
    assert_eq!(shown["revision_list"].as_array().unwrap().len(), 2);
    program.ok(&["workflow", "activate", "shop.orders", "1.0"]);
    assert_eq!(program.json(&["workflow", "list"])[0]["version"], "1.0");
    let unknown = program.run(&["workflow", "activate", "shop.orders", "3.0"]);
    assert_eq!(unknown.code, 4, "{unknown:?}");
    assert!(program.ok(&["workflow", "graph", "shop.orders"]).contains("after charge"));
}
