//! A worker's program from outside: the one in `examples/greeter.rs`.

mod support;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use support::*;
use tasker::prelude::*;

/// Cargo builds examples beside the tests that it runs.
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
fn greeter() -> Command {
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let program = path.join("examples").join("greeter");
    assert!(program.exists(), "build it first: cargo build -p tasker --example greeter");
    Command::new(program)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn it_describes_its_steps_without_a_database() {
    let run = |arguments: &[&str]| -> Output {
        greeter().args(arguments).env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none").output().unwrap()
    };
    let described = run(&["describe"]);
    assert!(described.status.success(), "{}", text(&described.stderr));
    let signatures = tasker::Signatures::from_json(&text(&described.stdout)).unwrap();
    assert_eq!(signatures.get("greet").unwrap().param("name").unwrap().name, "name");
    let wrong = run(&["wrok"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("usage: work"));
    let unreachable = run(&["work"]);
    assert_eq!(unreachable.status.code(), Some(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_until_it_is_told_to_stop() {
    let db = db().await;
    let mut program = greeter()
        .args(["work", "--concurrency", "2"])
        .env("DATABASE_URL", db.database.url())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let tasker = Tasker::connect(&db.database.engine_url()).await.unwrap();
    // The program registers the workflow as it starts.
    let mut tries = 0;
    let task = loop {
        let submit = tasker.submit("greeting", serde_json::json!({"name": "ada"}));
        match submit.await {
            Ok(task) => break task,
            Err(error) if tries > 100 => panic!("{error}"),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let done = task.wait_for(Duration::from_secs(20)).await.unwrap();
    assert_eq!(done.result::<String>().unwrap(), "HELLO ADA");
    let stop = Command::new("kill").args(["-TERM", &program.id().to_string()]).status().unwrap();
    assert!(stop.success());
    let ended = tokio::task::spawn_blocking(move || program.wait().map(|status| (status, program)));
    let (status, _) = tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap().unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    db.check().await;
}
