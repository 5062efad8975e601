//! Runs the program as a shell would.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use tasker_engine::{Engine, Options};
use tasker_testkit::{TestDatabase, database};

/// A workflow of four steps; `confirm` waits for two.
pub(crate) const ORDERS: &str = "\
name: orders
namespace: shop
version: \"1.0\"
input: { type: object, required: [lines], properties: { lines: { type: array }, customer: { type: string } } }
search: [customer]
steps:
  validate: { call: orders.validate, with: { lines: input.lines }, retry: 2 }
  charge:   { call: orders.charge, with: { total: validate.total } }
  reserve:  { call: orders.reserve, with: { items: validate.items } }
  confirm:  { call: orders.confirm, after: [charge, reserve] }
";

/// A database with the schema, and a directory of its own for the program.
pub(crate) struct Program {
    pub(crate) database: TestDatabase,
    pub(crate) directory: PathBuf,
}

/// What a run of the program left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Program {
    /// Takes a database that is migrated already.
    pub(crate) async fn new() -> Self {
        let database = database("cli", async |url| {
            let engine = Engine::connect(&Options::new(url)).await.unwrap();
            engine.migrate().await.unwrap();
            engine.pool().close().await;
        })
        .await;
        Self { database, directory: directory() }
    }

    /// Takes an empty database.
    pub(crate) async fn empty() -> Self {
        Self { database: database("cli_empty", async |_| {}).await, directory: directory() }
    }

    /// The same with the workflow `shop.orders`.
    pub(crate) async fn with_orders() -> Self {
        let program = Self::new().await;
        program.write("orders.yaml", ORDERS);
        program.ok(&["workflow", "register", "orders.yaml"]);
        program
    }

    pub(crate) async fn engine(&self) -> Engine {
        Engine::connect(&Options::new(self.database.url())).await.unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.join(name), text).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tasker"));
        command
            .args(arguments)
            .current_dir(&self.directory)
            .env("DATABASE_URL", self.database.url())
            .env("USER", "ada")
            .env_remove("TASKER_DATABASE_URL")
            .env_remove("TASKER_SCHEMA");
        command
    }

    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &str) -> Ran {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // A program that refuses its arguments does not read: the pipe may be closed.
        let _ = pipe.write_all(stdin.as_bytes());
        drop(pipe);
        let output = child.wait_with_output().unwrap();
        Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    /// Runs it and expects exit code 0; answers what it wrote to stdout.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "tasker {arguments:?}: {ran:?}");
        ran.out.trim().to_owned()
    }

    /// The same with `-o json`; answers the value.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        serde_json::from_str(&self.ok(&all)).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Only a directory in the temporary one stays behind.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn directory() -> PathBuf {
    let path = std::env::temp_dir().join(format!("tasker-cli-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir_all(&path).unwrap();
    path
}
