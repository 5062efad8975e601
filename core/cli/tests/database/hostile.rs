//! What nobody means to do: output that goes nowhere, texts that rule the terminal, roles without rights, options without effect.

use std::fs::File;

use crate::program::Program;

/// One character of each plane, of each direction of writing, and what a terminal would obey.
const EVERY_PLANE: &str = "esc\u{1b}[31m nl\n tab\t del\u{7f} é שלום\u{202e} 👩‍👩‍👧 \u{20000}\u{30000}\u{40000}\u{50000}\u{60000}\u{70000}\u{80000}\u{90000}\u{a0000}\u{b0000}\u{c0000}\u{d0000}\u{e0001}\u{f0000}\u{10ffff}\u{fffd}\u{ffff}";

#[tokio::test(flavor = "multi_thread")]
async fn every_character_comes_back_and_none_rules_the_terminal() {
    let program = Program::with_orders().await;
    let tag = format!("{EVERY_PLANE}={EVERY_PLANE}");
    let input = serde_json::json!({ "lines": [EVERY_PLANE], "customer": EVERY_PLANE }).to_string();
    let id = program.ok(&[
        "run",
        "shop.orders",
        "-i",
        &input,
        "--key",
        EVERY_PLANE,
        "--tag",
        &tag,
        "--correlation-id",
        EVERY_PLANE,
    ]);
    let shown = program.json(&["task", "show", EVERY_PLANE]);
    assert_eq!(shown["task"]["task_id"], id.as_str());
    assert_eq!(shown["task"]["key"], EVERY_PLANE);
    assert_eq!(shown["task"]["tags"][EVERY_PLANE], EVERY_PLANE);
    assert_eq!(shown["correlation_id"], EVERY_PLANE);
    assert_eq!(shown["input"]["lines"][0], EVERY_PLANE);
    assert_eq!(program.json(&["task", "list", "--tag", &tag])[0]["key"], EVERY_PLANE);
    assert_eq!(program.json(&["task", "list", "--key", EVERY_PLANE]).as_array().unwrap().len(), 1);
    let reason = format!("because {EVERY_PLANE}");
    let commands: [&[&str]; 4] = [
        &["task", "cancel", &id, "--reason", &reason, "--actor", EVERY_PLANE],
        &["task", "list"],
        &["task", "show", &id],
        &["task", "events", &id],
    ];
    for arguments in commands {
        let ran = program.run(arguments);
        let said = format!("{}{}", ran.out, ran.err);
        let rules = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!said.contains(rules), "{arguments:?}: {said:?}");
    }
    assert_eq!(program.ok(&["task", "list"]).lines().count(), 2, "a line a task");
    let told = program.run(&["task", "wait", &id]);
    assert!(!told.err.contains(['\u{1b}', '\u{202e}']), "{told:?}");
    let events = program.json(&["task", "events", &id]);
    assert!(events.as_array().unwrap().iter().any(|e| e["reason"] == reason.as_str() && e["actor"] == EVERY_PLANE));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_cannot_be_written_is_a_failure() {
    let program = Program::new().await;
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let list = program.command(&["task", "list"]).stdout(full()).output().unwrap();
    assert_eq!(list.status.code(), Some(1), "{list:?}");
    assert!(String::from_utf8(list.stderr).unwrap().contains("cannot write to stdout"));
    // What people are told is not data: the exit code stays what it is.
    let deaf = program.command(&["task", "show", "nothing"]).stderr(full()).output().unwrap();
    assert_eq!(deaf.status.code(), Some(4), "{deaf:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_effect_or_no_meaning_is_refused() {
    let program = Program::with_orders().await;
    program.write("bom.json", "\u{feff}{\"lines\":[]}");
    for (arguments, says) in [
        (&["run", "shop.orders", "--set", "lines=[]", "--timeout", "5s"][..], "--wait"),
        (&["run", "shop.orders", "--set", "lines=[]", "--delay", "-5s"], "no duration"),
        (&["run", "shop.orders", "--set", "lines=[]", "--deadline", "-5s"], "no duration"),
        (&["run", "shop.orders", "--set", "lines=[]", "--set", "a..b=1"], "a name is missing"),
        (&["workflow", "activate", "shop.orders", ""], "no revision"),
        (&["task", "list", "--since", "99999999999d"], "neither a duration"),
        (&["task", "list", "--since", "900000d"], "neither a duration"),
        (&["run", "shop.orders", "-i", "bom.json"], "byte order mark"),
    ] {
        let ran = program.run(arguments);
        assert_eq!(ran.code, 2, "{arguments:?} {ran:?}");
        assert!(ran.err.contains(says), "{arguments:?} {ran:?}");
    }
    assert_eq!(program.json(&["task", "list"]).as_array().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_json_where_json_is_asked_for() {
    let program = Program::with_orders().await;
    program.ok(&["run", "shop.orders", "--set", "lines=[]", "--key", "k"]);
    program.write("wrong.yaml", "name: wrong\nsteps: {a: {cal: h}}\n");
    for (arguments, kind, code) in [
        (&["task", "lst", "-o", "json"][..], "invalid", 2),
        (&["--output=json", "task", "list", "--limit", "0"], "invalid", 2),
        (&["run", "-o", "json"], "invalid", 2),
        (&["task", "wait", "k", "--timeout", "1ms", "-o", "json"], "timeout", 7),
        (&["task", "watch", "k", "--timeout", "1ms", "-o", "json"], "timeout", 7),
        (&["task", "cancel", "k", "-o", "json"], "needs_decision", 3),
        (&["workflow", "register", "wrong.yaml", "-o", "json"], "invalid", 1),
        (&["run", "shop.orders", "-i", "/", "-o", "json"], "invalid", 2),
        (&["--database-url", "postgres://u:p/q@h/d", "task", "list", "-o", "json"], "invalid", 2),
    ] {
        let ran = program.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?} {ran:?}");
        let error: serde_json::Value =
            serde_json::from_str(&ran.err).unwrap_or_else(|_| panic!("{arguments:?} {ran:?}"));
        assert_eq!((&error["error"]["kind"], &error["error"]["exit_code"]), (&kind.into(), &code.into()));
        assert!(!ran.err.contains("p/q"), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_only_read_is_told_so() {
    let program = Program::with_orders().await;
    program.ok(&["run", "shop.orders", "--set", "lines=[]"]);
    let engine = program.engine().await;
    let role = format!("reader_{}", uuid::Uuid::new_v4().simple());
    let sql = format!(
        "create role {role} login password 'reader';
         grant usage on schema tasker to {role}; grant select on all tables in schema tasker to {role}"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(engine.pool()).await.unwrap();
    let mut url = program.database.url().to_owned();
    let user = url.find("://").unwrap() + 3..url.rfind('@').unwrap();
    url.replace_range(user, &format!("{role}:reader"));
    let run = |arguments: &[&str]| {
        let mut all = vec!["--database-url", &url];
        all.extend(arguments);
        program.run(&all)
    };
    assert_eq!(run(&["task", "list"]).code, 0);
    assert_eq!(run(&["task", "show", "@last"]).code, 0);
    for refused in [
        &["run", "shop.orders", "--set", "lines=[]"][..],
        &["task", "cancel", "@last", "--reason", "x"],
        &["db", "reset", "--yes"],
        &["db", "test-mode", "on"],
    ] {
        let ran = run(refused);
        assert_eq!(ran.code, 1, "{refused:?} {ran:?}");
        assert!(ran.err.contains("forbidden") && ran.err.contains("owner"), "{refused:?} {ran:?}");
    }
    let doctor = run(&["doctor"]);
    assert!(doctor.out.contains("handlers") && doctor.out.contains("not checked"), "{doctor:?}");
    let sql = format!("drop owned by {role}; drop role {role}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(engine.pool()).await.unwrap();
}

/// A port on which something else answers, and one on which nothing does.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_postgres_is_called_so() {
    let program = Program::empty().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://a:secret@{}/d", listener.local_addr().unwrap());
    let other = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut client, _) = listener.accept().unwrap();
        let _ = client.read(&mut [0; 8]);
        client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let ran = program.run(&["task", "list", "--database-url", &url]);
    other.join().unwrap();
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.err.contains("no PostgreSQL") && !ran.err.contains("secret"), "{ran:?}");
    // The listener is gone with its thread.
    let ran = program.run(&["task", "list", "--database-url", &url]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.err.contains("is up"), "{ran:?}");
}
