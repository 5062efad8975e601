//! `-o json` is honoured by every command.

use crate::program::Program;
use crate::worker::Worker;

/// The commands that end by themselves, in an order in which each finds what it needs.
const COMMANDS: [&[&str]; 43] = [
    &["version"],
    &["config", "show"],
    &["completions", "bash"],
    &["db", "migrate"],
    &["db", "status"],
    &["db", "sql"],
    &["db", "url"],
    &["db", "test-mode", "on"],
    &["workflow", "register", "orders.yaml"],
    &["workflow", "list"],
    &["workflow", "show", "shop.orders"],
    &["workflow", "lint", "orders.yaml"],
    &["workflow", "graph", "orders.yaml"],
    &["workflow", "export", "shop.orders"],
    &["workflow", "activate", "shop.orders", "1.0"],
    &["run", "shop.orders", "--set", "lines=[]", "--key", "k"],
    &["task", "run", "shop.orders", "--set", "lines=[]", "--key", "k"],
    &["task", "list"],
    &["task", "show", "k"],
    &["task", "events", "k"],
    &["task", "cancel", "k", "--reason", "a test"],
    &["workflow", "register", "approval.yaml"],
    &["run", "default.approval", "--key", "a"],
    &["signal", "a", "first", "--payload", "{\"approved\": true}"],
    &["task", "signal", "a", "second"],
    &["subscription", "add", "out", "--event", "*", "--queue", "out_events"],
    &["subscription", "add", "hook", "--event", "reviewed", "--webhook", "http://127.0.0.1:1/hook"],
    &["workflow", "graph", "approval.yaml"],
    &["event", "list"],
    &["event", "show", "@last"],
    &["event", "redeliver", "@last", "--subscription", "out"],
    &["subscription", "list"],
    &["subscription", "pause", "out"],
    &["subscription", "resume", "out"],
    &["subscription", "remove", "hook"],
    &["workflow", "register", "undo.yaml"],
    &["run", "default.booking", "--key", "u", "--set", "to=x"],
    &["task", "compensate", "u", "--reason", "a test"],
    &["run", "default.booking", "--key", "v", "--set", "to=x"],
    &["compensate", "v", "--reason", "a test"],
    &["queue", "list"],
    &["worker", "list"],
    &["doctor"],
];

const APPROVAL: &str = "{name: approval, steps: {one: {wait: {signal: first}}, two: {after: [one], wait: {signal: second, timeout: 1h}}}, \
     events: {reviewed: {on: success, step: one}, all_done: {on: success}}}";

const BOOKING: &str =
    "{name: booking, steps: {book: {wait: {for: 1h}}, pay: {call: nobody, undo: nobody, after: [book]}}}";

/// Those that say with their exit code that the task was cancelled, and what resets the rest.
const ENDING: [&[&str]; 3] = [
    &["task", "wait", "k", "--timeout", "20s"],
    &["task", "watch", "k", "--timeout", "20s"],
    &["db", "reset", "--yes"],
];

/// Their own tests read their JSON: `dev` runs until it is stopped, roles are the whole server's.
const ELSEWHERE: [&str; 2] = ["dev", "db roles"];

#[tokio::test(flavor = "multi_thread")]
async fn every_command_writes_json() {
    let program = Program::with_orders().await;
    program.write("approval.yaml", APPROVAL);
    program.write("undo.yaml", BOOKING);
    let engine = program.engine().await;
    let mut left = leaves(&program, &[]);
    for arguments in COMMANDS.iter().chain(&ENDING) {
        if *arguments == ["queue", "list"] {
            // Not earlier: a step whose message is out ends only once a worker has read it.
            Worker::start(&engine).await;
        }
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let ran = program.run(&all);
        let is_expected = ran.code == 0 || ENDING.contains(arguments) && ran.code == 6;
        assert!(is_expected, "{arguments:?}: {ran:?}");
        let values: Vec<_> = serde_json::Deserializer::from_str(&ran.out).into_iter::<serde_json::Value>().collect();
        assert!(!values.is_empty() && values.iter().all(Result::is_ok), "{arguments:?}: {ran:?}");
        left.retain(|path| !arguments.join(" ").starts_with(path.as_str()));
    }
    left.retain(|path| !ELSEWHERE.contains(&path.as_str()));
    assert!(left.is_empty(), "not tried: {left:?}");
}

/// Every command that has no commands of its own, as its help says.
fn leaves(program: &Program, path: &[&str]) -> Vec<String> {
    let mut arguments = path.to_vec();
    arguments.push("-h");
    let help = program.ok(&arguments);
    let Some((_, commands)) = help.split_once("Commands:\n") else {
        return vec![path.join(" ")];
    };
    commands
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .flat_map(|name| {
            let mut below = path.to_vec();
            below.push(name);
            leaves(program, &below)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_json_too() {
    let program = Program::with_orders().await;
    let ran = program.run(&["task", "show", "nothing", "-o", "json"]);
    assert_eq!((ran.code, ran.out.as_str()), (4, ""));
    let value: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!((&value["error"]["kind"], &value["error"]["exit_code"]), (&"not_found".into(), &4.into()));
}
