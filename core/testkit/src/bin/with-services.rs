//! `with-services [--tls] [--socket] [--unprivileged] [--pgbouncer] COMMAND [ARGUMENT...]` runs a command with the services that the tests
//! need.
//!
//! It starts a throw-away PostgreSQL and names it in `TASKER_TEST_DATABASE_URL`, unless that is set
//! already; SIGINT, SIGTERM and SIGHUP go to the command; its exit code is ours. Nothing is left behind.

use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use tasker_testkit::{Embedded, TEST_DATABASE_URL, TEST_PGBOUNCER, Variant, given_url};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

const USAGE: u8 = 2;
const NO_SERVICE: u8 = 1;
const CANNOT_RUN: u8 = 127;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let mut variant = Variant::default();
    let mut first = words.next();
    while first.as_ref().and_then(|word| word.to_str()).is_some_and(|word| variant.take(word)) {
        first = words.next();
    }
    let Some(program) = first else {
        eprintln!("usage: with-services [--tls] [--socket] [--unprivileged] [--pgbouncer] COMMAND [ARGUMENT...]");
        return ExitCode::from(USAGE);
    };
    let mut command = Command::new(&program);
    command.args(words);
    #[cfg(feature = "containers")]
    let mut container = None;
    // Another way to meet a server is of one that is started here.
    let given = if variant == Variant::default() { given_url() } else { None };
    let embedded = match given {
        Some(url) => {
            command.env(TEST_DATABASE_URL, url);
            None
        }
        #[cfg(feature = "containers")]
        None if variant == Variant::default()
            && let Some(url) = contained(&mut container) =>
        {
            command.env(TEST_DATABASE_URL, url);
            None
        }
        None => match Embedded::start_as(variant) {
            Ok(embedded) => {
                command.env(TEST_DATABASE_URL, embedded.url());
                if let Some(pgbouncer) = embedded.pgbouncer() {
                    command.env(TEST_PGBOUNCER, pgbouncer);
                }
                Some(embedded)
            }
            Err(error) => {
                eprintln!("with-services: {error}");
                return ExitCode::from(NO_SERVICE);
            }
        },
    };
    let code = match run(command) {
        Ok(status) => exit_code(status),
        Err(error) => {
            eprintln!("with-services: cannot run {}: {error}", program.display());
            CANNOT_RUN
        }
    };
    drop(embedded);
    ExitCode::from(code)
}

/// Answers the URL of a server in a container, which `place` then holds; none where no Docker answers.
#[cfg(feature = "containers")]
fn contained(place: &mut Option<tasker_testkit::Container>) -> Option<String> {
    *place = tasker_testkit::Container::start().unwrap_or_else(|error| {
        eprintln!("with-services: {error}; going on without a container");
        None
    });
    place.as_ref().map(|container| container.url().to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn run(mut command: Command) -> io::Result<ExitStatus> {
    // On a terminal the command has to share our process group, to read from it and to get Ctrl-C.
    // Elsewhere it gets its own, so that a signal reaches the programs that it runs as well.
    let has_own_group = !io::stdin().is_terminal();
    if has_own_group {
        command.process_group(0);
    }
    // Before the command: from here on a signal ends it, not us.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut child = command.spawn()?;
    loop {
        tokio::select! {
            status = child.wait() => return status,
            number = received(&mut interrupt, libc::SIGINT) => forward(&child, number, has_own_group),
            number = received(&mut terminate, libc::SIGTERM) => forward(&child, number, has_own_group),
            number = received(&mut hang_up, libc::SIGHUP) => forward(&child, number, has_own_group),
        }
    }
}

/// Waits for a signal and returns its number. Cancel safe: a signal that nobody waited for is kept.
async fn received(source: &mut Signal, number: i32) -> i32 {
    source.recv().await;
    number
}

#[expect(unsafe_code, reason = "std does not offer kill")]
fn forward(child: &Child, number: i32, to_group: bool) {
    // Not reaped yet, so the number is still the child's.
    let Some(pid) = child.id().and_then(|id| libc::pid_t::try_from(id).ok()) else {
        return;
    };
    // SAFETY: kill touches no memory of this process.
    unsafe { libc::kill(if to_group { -pid } else { pid }, number) };
}

/// As a shell has it: 128 and the signal for a command that a signal ended.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
