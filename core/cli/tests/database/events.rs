//! Published events and subscriptions, from the command line.

use crate::program::Program;

const APPROVAL: &str = "{name: approval, namespace: shop, steps: {ask: {wait: {signal: go}}}, \
     events: {asked: {on: success, step: ask}, all_done: {on: success}}}";

async fn with_approval() -> Program {
    let program = Program::new().await;
    program.write("approval.yaml", APPROVAL);
    program.ok(&["workflow", "register", "approval.yaml"]);
    program
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_listed_shown_and_delivered_again() {
    let program = with_approval().await;
    assert!(program.ok(&["workflow", "show", "shop.approval"]).contains("all_done"), "the events are shown");
    assert_eq!(program.ok(&["event", "list"]), "no such event");
    program.ok(&["subscription", "add", "out", "--event", "shop.asked", "--queue", "out_events"]);
    program.ok(&["run", "shop.approval", "--key", "a"]);
    program.ok(&["signal", "a", "go", "--payload", "5"]);
    let listed = program.json(&["event", "list", "--task", "a"]);
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|row| row["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["shop.all_done", "shop.asked"], "newest first");
    assert_eq!((&listed[1]["delivered"], &listed[0]["delivered"]), (&1.into(), &0.into()));
    let asked = listed[1]["publication_id"].as_str().unwrap();
    let shown = program.json(&["event", "show", asked]);
    assert_eq!(shown["payload"]["result"], 5);
    assert_eq!(shown["deliveries"][0]["state"], "done");
    assert!(program.ok(&["event", "show", asked]).contains("out"));
    assert_eq!(program.ok(&["event", "redeliver", asked]), "1 delivery again");
    assert_eq!(program.ok(&["event", "redeliver", "@last", "--subscription", "out"]), "1 delivery again");
    assert_eq!(program.ok(&["event", "redeliver", "--dead"]), "0 deliveries again");
    let engine = program.engine().await;
    let sent: i64 =
        sqlx::query_scalar("select count(*) from pgmq.q_out_events").fetch_one(engine.pool()).await.unwrap();
    assert_eq!(sent, 3);
    let misspelt = program.run(&["event", "list", "--event", "shop.askd"]);
    assert_eq!(misspelt.code, 4, "{misspelt:?}");
    assert!(misspelt.err.contains("did you mean shop.asked?"), "{misspelt:?}");
    assert_eq!(program.run(&["event", "show", "nothing"]).code, 4);
    assert_eq!(program.run(&["event", "redeliver"]).code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_shown_once_and_mistakes_are_told() {
    let program = with_approval().await;
    let url = "https://example.com/hook";
    let add = |name: &str, event: &str, more: &[&str]| {
        let mut all = vec!["subscription", "add", name, "--event", event];
        all.extend(more);
        program.run(&all)
    };
    let added = add("hook", "shop.asked", &["--webhook", url]);
    assert_eq!(added.code, 0, "{added:?}");
    let secret = added.out.split_once("secret: ").unwrap().1.trim().to_owned();
    assert!(secret.starts_with("whsec_") && secret.len() == 70, "{secret}");
    assert!(!program.ok(&["subscription", "list", "-o", "json"]).contains(&secret));
    program.write("secret.txt", "a secret of the test\n");
    let given = add("other", "*", &["--webhook", url, "--secret-file", "secret.txt"]);
    assert_eq!((given.code, given.out.contains("secret")), (0, false), "{given:?}");
    let engine = program.engine().await;
    let kept: Vec<String> =
        sqlx::query_scalar("select secret from tasker.subscription_secret order by subscription_id")
            .fetch_all(engine.pool())
            .await
            .unwrap();
    assert_eq!(kept, [secret, "a secret of the test".to_owned()]);
    let mistakes: [(&str, &str, &[&str], i32, &str); 6] = [
        ("typo", "shop.askd", &["--webhook", url], 4, "did you mean shop.asked?"),
        ("hook", "*", &["--webhook", url], 1, "subscription \"hook\" exists already"),
        ("url", "*", &["--webhook", "example.com"], 2, "is no URL of a webhook"),
        ("Name", "*", &["--webhook", url], 2, "`Name` is no subscription name"),
        ("own", "*", &["--queue", "tq1_0"], 2, "one of Tasker's own"),
        ("both", "*", &["--queue", "q", "--webhook", url], 2, "cannot be used with"),
    ];
    for (name, event, more, code, message) in mistakes {
        let ran = add(name, event, more);
        assert!(ran.err.contains(message), "{ran:?}");
        assert_eq!(ran.code, code, "{ran:?}");
    }
    program.ok(&["run", "shop.approval", "--key", "a"]);
    program.ok(&["signal", "a", "go"]);
    let asked = program.run(&["subscription", "remove", "hook", "--no-input"]);
    assert_eq!(asked.code, 3, "{asked:?}");
    assert!(asked.err.contains("the 1 delivery it has not got"), "{asked:?}");
    program.ok(&["subscription", "remove", "hook", "--yes"]);
    let gone = program.run(&["subscription", "pause", "othr"]);
    assert_eq!(gone.code, 4);
    assert!(gone.err.contains("did you mean `other`?"), "{gone:?}");
    program.ok(&["subscription", "pause", "other"]);
    assert!(program.ok(&["subscription", "list"]).contains("paused"));
}
