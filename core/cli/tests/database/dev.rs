//! `tasker dev`: everything comes up with it and nothing outlives it.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::program::{ORDERS, Program};

/// A running `tasker dev` in a directory of its own.
struct Dev {
    child: Child,
    ready: PathBuf,
}

impl Dev {
    fn start(program: &Program, arguments: &[&str]) -> Self {
        let ready = program.directory.join("ready");
        let mut command = program.command(&["dev", "-o", "json", "--ready-file", "ready"]);
        let child = command
            .args(arguments)
            .env_remove("DATABASE_URL")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, ready }
    }

    /// Waits until the database is there; answers its URL.
    fn url(&mut self) -> String {
        let out = self.child.stdout.take().unwrap();
        let mut values = serde_json::Deserializer::from_reader(out).into_iter::<serde_json::Value>();
        values.next().unwrap().unwrap()["database_url"].as_str().unwrap().to_owned()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = std::process::Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_mins(1), "not in a minute: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn exists(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A process that nobody has reaped is gone all the same.
    !stat.is_empty() && !stat.contains(") Z ")
}

fn numbers(path: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_a_killed_dev_and_the_next_one_finds_the_tasks() {
    let program = Program::empty().await;
    program.write("orders.yaml", ORDERS);
    // The worker is a process with a child of its own: both must go.
    program.write("tasker.toml", "dev_worker = \"sh -c 'sleep 1000 & echo $$ $! > pids; wait'\"\n");
    let mut dev = Dev::start(&program, &[]);
    let url = dev.url();
    eventually("the worker runs", || numbers(&program.directory.join("pids")).len() == 2);
    assert!(!dev.ready.exists(), "a worker that never registers is not ready");
    let workers = numbers(&program.directory.join("pids"));
    // The program finds the running database without being told.
    let here = |arguments: &[&str]| {
        let output = program.command(arguments).env_remove("DATABASE_URL").output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap().trim().to_owned())
    };
    assert_eq!(here(&["db", "url"]), (Some(0), url.clone()));
    assert_eq!(here(&["workflow", "register", "orders.yaml"]).0, Some(0));
    let (code, task) = here(&["run", "shop.orders", "--set", "lines=[]"]);
    assert_eq!(code, Some(0));
    let other = program.command(&["dev"]).env_remove("DATABASE_URL").output().unwrap();
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    assert!(String::from_utf8(other.stderr).unwrap().contains("tasker db url"));

    dev.signal("-KILL");
    dev.child.wait().unwrap();
    eventually("the worker is gone", || !workers.iter().any(|pid| exists(*pid)));
    eventually("PostgreSQL is gone", || here(&["db", "url"]).0 == Some(5));

    let mut again = Dev::start(&program, &["--no-worker"]);
    again.url();
    eventually("it is ready", || again.ready.exists());
    let (code, shown) = here(&["task", "show", &task, "-o", "json"]);
    assert_eq!(code, Some(0));
    assert!(shown.contains("\"running\""), "{shown}");
    again.signal("-TERM");
    assert_eq!(again.child.wait().unwrap().code(), Some(0));
    assert_eq!(here(&["db", "url"]).0, Some(5));
    assert!(!again.ready.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_ends_with_its_worker_and_uses_a_given_database() {
    let program = Program::empty().await;
    program.write("tasker.toml", "dev_worker = \"sh -c 'echo $DATABASE_URL > seen; exit 3'\"\n");
    let ran = program.run(&["dev"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(ran.out.trim(), program.database.url());
    assert!(ran.err.contains("exit status: 3"), "{ran:?}");
    let seen = std::fs::read_to_string(program.directory.join("seen")).unwrap();
    assert_eq!(seen.trim(), program.database.url());
    assert_eq!(program.json(&["db", "status"])["current"], true);
    assert_eq!(program.run(&["dev", "--port", "5999"]).code, 2);
}
