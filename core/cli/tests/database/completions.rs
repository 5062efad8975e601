//! A shell is told the names that the database knows.

use crate::program::Program;

fn complete(program: &Program, words: &[&str]) -> Vec<String> {
    let mut all = vec!["--", "tasker"];
    all.extend(words);
    let output = program
        .command(&all)
        .env("COMPLETE", "bash")
        .env("_CLAP_IFS", "\n")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_and_tasks_are_completed() {
    let program = Program::with_orders().await;
    let id = program.ok(&["run", "shop.orders", "--set", "lines=[]", "--key", "order-1"]);
    assert_eq!(complete(&program, &["run", "sh"]), ["shop.orders"]);
    let tasks = complete(&program, &["task", "show", ""]);
    for name in ["@last", "order-1", &id] {
        assert!(tasks.iter().any(|task| task == name), "{name} in {tasks:?}");
    }
    assert_eq!(complete(&program, &["task", "cancel", "order"]), ["order-1"]);
    assert!(complete(&program, &["workf"]).contains(&"workflow".to_owned()));
}
