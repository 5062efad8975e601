//! What `tasker db` says before it acts, and the roles that it makes.

use sqlx::Executor;

use crate::program::Program;

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_written_and_nothing_is_done() {
    let program = Program::empty().await;
    let plan = program.ok(&["db", "migrate", "--plan"]);
    assert!(plan.contains("-- migration 0001 tables, in one transaction"), "{plan}");
    assert!(plan.contains("create table \"tasker\".task"), "{plan}");
    assert_eq!(program.json(&["db", "status"])["applied"].as_array().unwrap().len(), 0);
    program.ok(&["db", "migrate"]);
    assert!(program.ok(&["db", "migrate", "--plan"]).contains("nothing would run"));
    assert_eq!(program.json(&["db", "migrate", "--plan"]).as_array().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_made_once_and_named() {
    let program = Program::empty().await;
    // Roles are the whole server's.
    let schema = ["--schema", "cli_roles"];
    assert_eq!(program.run(&[&["db", "roles"][..], &schema].concat()).code, 5, "there is no schema yet");
    program.ok(&[&["db", "migrate"][..], &schema].concat());
    for _ in 0..2 {
        let made = program.json(&[&["db", "roles"][..], &schema].concat());
        assert_eq!(made["roles"][1], "cli_roles_worker");
    }
    let engine = program.engine().await;
    for role in ["owner", "worker", "submit", "read"] {
        let sql = format!("drop owned by cli_roles_{role}; drop role cli_roles_{role}");
        engine.pool().execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    }
}
