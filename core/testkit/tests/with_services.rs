//! The program `with-services`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("testkit-services-{}", Uuid::now_v7()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs without a given server, with a temporary directory of its own.
fn with_services(directory: &Directory, script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_with-services"));
    command.args(["sh", "-c", script]).current_dir(&directory.0).env("TMPDIR", &directory.0);
    command.env_remove("TASKER_TEST_DATABASE_URL").env_remove("DATABASE_URL").stdin(Stdio::null());
    command
}

fn left(directory: &Directory) -> Vec<String> {
    let entries = fs::read_dir(&directory.0).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_command_gets_a_server_and_its_exit_code_is_returned() {
    let directory = Directory::new();
    let output = with_services(&directory, "echo $TASKER_TEST_DATABASE_URL; exit 7").output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.starts_with("postgres://tasker:"), "{printed}");
    assert!(left(&directory).is_empty());
}

#[test]
fn a_given_server_is_passed_on() {
    let directory = Directory::new();
    let mut command = with_services(&directory, "echo $TASKER_TEST_DATABASE_URL");
    let output = command.env("TASKER_TEST_DATABASE_URL", "postgres://elsewhere/x").output().unwrap();
    assert_eq!(output.stdout, b"postgres://elsewhere/x\n");
}

#[test]
fn a_signal_ends_the_command_and_leaves_nothing() {
    let directory = Directory::new();
    // The shell's child has to get the signal as well, or the shell would wait for it.
    let mut running = with_services(&directory, "touch ready; sleep 60; echo survived").spawn().unwrap();
    let start = Instant::now();
    while !directory.0.join("ready").exists() {
        assert!(start.elapsed() < Duration::from_mins(1), "the command does not start");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").arg(running.id().to_string()).status().unwrap().success());
    assert_eq!(running.wait().unwrap().code(), Some(128 + libc::SIGTERM));
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_eq!(left(&directory), ["ready"]);
}
