//! The steps of a start: initialise the data directory, make the database, run the server until it is ready.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::binaries::Binaries;
use crate::error::{Error, ErrorKind, Result};
use crate::os;
use crate::place::Place;
use crate::process::Process;
use crate::server::Options;

/// The superuser of the server.
pub(crate) const USER: &str = "tasker";
/// Recovery after a crash counts towards it.
const START_PATIENCE: Duration = Duration::from_mins(2);
/// A free port can be taken by somebody else before the server binds it; backends of a crashed
/// server need a moment to leave its shared memory.
const START_ATTEMPTS: u32 = 8;
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Lines of the server's log that an error shows.
const LOG_LINES: usize = 8;

/// What the steps of a start share.
pub(crate) struct Starting<'a> {
    pub(crate) options: &'a Options,
    pub(crate) place: &'a Place,
    pub(crate) binaries: &'a Binaries,
}

/// Why a server ended before it was ready.
enum Refusal {
    PortTaken,
    /// Backends of a crashed server still run.
    MemoryInUse,
    Other(Error),
}

impl Starting<'_> {
    /// Initialises the data directory unless that is done, and returns the password.
    pub(crate) fn initialise(&self) -> Result<String> {
        let data = |error| Error::from_io(ErrorKind::DataDirectory, "cannot prepare the data directory", error);
        let (password, password_file) = self.place.password().map_err(data)?;
        if self.place.major().is_some() {
            return Ok(password);
        }
        let partial = self.place.prepare_data().map_err(data)?;
        let mut initdb = self.command("initdb", &partial);
        initdb.arg("--pgdata").arg(&partial).arg("--pwfile").arg(&password_file);
        initdb.args(["--username", USER, "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"]);
        if !self.options.durable {
            initdb.arg("--no-sync");
        }
        os::end_with_parent(&mut initdb);
        let output = initdb.stdin(Stdio::null()).output();
        let output = output.map_err(|error| Error::from_io(ErrorKind::Initialise, "cannot run initdb", error))?;
        if !output.status.success() {
            let printed = last_lines(&String::from_utf8_lossy(&output.stderr));
            return Err(Error::new(ErrorKind::Initialise, format!("initdb failed ({}): {printed}", output.status)));
        }
        fs::rename(&partial, self.place.data()).map_err(data)?;
        tracing::info!(directory = %self.place.root().display(), version = self.binaries.version, "initialised PostgreSQL");
        Ok(password)
    }

    /// Makes the database in single-user mode: no client program or library is needed for it.
    pub(crate) fn make_database(&self) -> Result<()> {
        let name = &self.options.database;
        if self.place.has_database(name) {
            return Ok(());
        }
        let fail = |error| Error::from_io(ErrorKind::Initialise, "cannot make the database", error);
        let data = self.place.data();
        let mut single = self.command("postgres", &data);
        single
            .arg("--single")
            .arg("-D")
            .arg(&data)
            .args(["-c", "exit_on_error=true"])
            .args(self.durability())
            .arg("template1");
        os::end_with_parent(&mut single);
        single.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = single.spawn().map_err(fail)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A server that ends early says why on its error output, below.
            let _ = writeln!(stdin, "create database \"{name}\"");
        }
        let output = child.wait_with_output().map_err(fail)?;
        let printed = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() && !printed.contains("already exists") {
            let message = format!("cannot make the database `{name}` ({}): {}", output.status, last_lines(&printed));
            return Err(Error::new(ErrorKind::Initialise, message));
        }
        self.place.remember_database(name).map_err(fail)
    }

    /// Starts the server on the first port that works.
    pub(crate) fn run(&self) -> Result<(Process, u16)> {
        let mut last_port = self.place.instance().map(|instance| instance.port);
        for attempt in 1..=START_ATTEMPTS {
            let port = match self.options.port {
                Some(port) => check_free(port).map(|()| port)?,
                None => free_port(last_port.take())?,
            };
            match self.run_on(port) {
                Ok(process) => return Ok((process, port)),
                Err(Refusal::Other(error)) => return Err(error),
                Err(Refusal::PortTaken) => {
                    tracing::debug!(port, attempt, "the port was taken meanwhile");
                }
                Err(Refusal::MemoryInUse) => {
                    tracing::warn!(attempt, "backends of a crashed PostgreSQL still run; waiting");
                }
            }
            thread::sleep(RETRY_PAUSE);
        }
        let message = format!("PostgreSQL did not start in {START_ATTEMPTS} attempts: {}", self.log());
        Err(Error::new(ErrorKind::Start, message))
    }

    fn run_on(&self, port: u16) -> std::result::Result<Process, Refusal> {
        let fail = |error| Refusal::Other(Error::from_io(ErrorKind::Start, "cannot run PostgreSQL", error));
        let log = File::create(self.place.log()).map_err(fail)?;
        let data = self.place.data();
        let mut command = self.command("postgres", &data);
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        // No socket: its path may be too long, and the URL needs TCP anyway.
        command.args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
            "-c",
            "logging_collector=off",
        ]);
        command.args(self.durability());
        for (name, value) in &self.options.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let printed = log.try_clone().map_err(fail)?;
        command.stdin(Stdio::null()).stdout(printed).stderr(log);
        let process = Process::spawn(command).map_err(fail)?;
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if process.wait(Duration::from_millis(10)) {
                return Err(self.refusal());
            }
            if self.place.postmaster().is_some_and(|server| server.ready && server.pid == process.pid()) {
                return Ok(process);
            }
            if Instant::now() > deadline {
                // It is not usable and nobody else would end it; the outcome changes nothing.
                let _ = process.signal(os::KILL);
                let waited = START_PATIENCE.as_secs();
                let message = format!("PostgreSQL is not ready after {waited} s: {}", self.log());
                return Err(Refusal::Other(Error::new(ErrorKind::Start, message)));
            }
        }
    }

    fn refusal(&self) -> Refusal {
        let log = fs::read_to_string(self.place.log()).unwrap_or_default();
        if log.contains("Address already in use") {
            Refusal::PortTaken
        } else if log.contains("shared memory block") && log.contains("in use") {
            Refusal::MemoryInUse
        } else {
            Refusal::Other(Error::new(
                ErrorKind::Start,
                format!("PostgreSQL ended before it was ready: {}", self.log()),
            ))
        }
    }

    fn log(&self) -> String {
        let path = self.place.log();
        format!("{} (the end of {})", last_lines(&fs::read_to_string(&path).unwrap_or_default()), path.display())
    }

    /// Prepares a server program: the right account, a working directory it may enter, out of reach of
    /// the terminal's Ctrl-C, and none of the caller's `PG*` and locale variables.
    fn command(&self, program: &str, directory: &Path) -> Command {
        let mut command = self.binaries.command(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", directory).env("LC_ALL", "C").env("TZ", "UTC");
        command.current_dir(directory).process_group(0);
        if let Some(account) = self.place.account() {
            account.apply(&mut command);
        }
        command
    }

    fn durability(&self) -> &'static [&'static str] {
        if self.options.durable {
            &[]
        } else {
            &["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
        }
    }
}

fn check_free(port: u16) -> Result<()> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    bound.map(drop).map_err(|error| {
        let message =
            format!("port {port} on 127.0.0.1 cannot be used ({error}); choose another, or leave the choice to us");
        Error::new(ErrorKind::PortInUse, message).with_source(error)
    })
}

/// Returns the preferred port if it is free, else any free one. PostgreSQL itself cannot be asked to choose.
fn free_port(preferred: Option<u16>) -> Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = preferred.map_or_else(|| bind(0), |port| bind(port).or_else(|_| bind(0)));
    let port = listener.and_then(|listener| listener.local_addr()).map(|address| address.port());
    port.map_err(|error| Error::from_io(ErrorKind::Start, "no free port on 127.0.0.1", error))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
