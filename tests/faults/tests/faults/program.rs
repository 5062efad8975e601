//! A worker in a process of its own, which a test kills, stops and continues.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::world::PATIENCE;

/// A running worker. Dropping it kills it.
pub(crate) struct Program {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// Starts a worker and waits until it works.
    pub(crate) async fn start(url: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_faults-worker"));
        command.env("DATABASE_URL", url).envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut program = Self { child, input, output };
        program.says("ready").await;
        program
    }

    /// Waits until the worker says this line.
    pub(crate) async fn says(&mut self, line: &str) {
        let heard = timeout(PATIENCE, async {
            while let Some(next) = self.output.next_line().await.unwrap() {
                if next == line {
                    return true;
                }
            }
            false
        });
        assert!(heard.await.is_ok_and(|heard| heard), "the worker does not say `{line}`");
    }

    /// Lets a worker that stopped itself at a point go on.
    pub(crate) async fn go(&mut self) {
        self.input.write_all(b"go\n").await.unwrap();
    }

    /// Ends it without a word, as kill -9 does.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Stops its execution, all threads of it.
    pub(crate) fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Continues it.
    pub(crate) fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        send_signal(pid, signal);
    }
}

/// Sends a signal to a process that this test started.
#[expect(unsafe_code, reason = "std cannot send signals")]
pub(crate) fn send_signal(pid: i32, signal: i32) {
    // SAFETY: kill takes two numbers and touches no memory of ours.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "process {pid} takes no signal");
}
