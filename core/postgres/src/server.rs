//! A supervised server.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::account::Account;
use crate::binaries::Binaries;
use crate::error::{Error, ErrorKind, Result};
use crate::os;
use crate::place::{Instance, Place};
use crate::process::Process;
use crate::start::{Starting, USER};

const STOP_PATIENCE: Duration = Duration::from_secs(30);
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How to run a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory that holds the data, the password and the log. Made when absent. When this process is
    /// root and the server's account cannot enter a parent of it (as under `/root`), `/var/lib/tasker/<hash>`
    /// stands in; a warning in the log says so.
    pub data_dir: PathBuf,
    /// Whether commits survive a crash of the machine. False turns `fsync`, `synchronous_commit` and
    /// `full_page_writes` off: for throw-away data only.
    pub durable: bool,
    /// The port on 127.0.0.1; none takes that of the last start if it is free, else any free port.
    pub port: Option<u16>,
    /// Further server settings, such as `("max_connections", "300")`.
    pub settings: Vec<(String, String)>,
    /// The directory of `initdb` and `postgres`; none searches (`TASKER_PG_BIN_DIR`, PATH, the usual packages).
    pub bin_dir: Option<PathBuf>,
    /// The database of the URL, made when absent: `[a-z][a-z0-9_]*`, at most 63 characters.
    pub database: String,
}

impl Options {
    /// Returns durable options with the database `tasker` and everything else chosen at start.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            durable: true,
            port: None,
            settings: Vec::new(),
            bin_dir: None,
            database: "tasker".to_owned(),
        }
    }
}

/// A running server, which stops when this value is dropped.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    place: Place,
    url: String,
    port: u16,
    version: String,
    /// Released after the server has stopped.
    _lock: File,
}

impl Postgres {
    /// Starts a server and blocks until it accepts connections; the first start also initialises the data directory.
    ///
    /// A second start on the same directory fails with [`ErrorKind::InUse`] while the first one lives.
    /// A server whose supervisor died is ended first, and a crash is recovered from.
    pub fn start(options: &Options) -> Result<Self> {
        check_database(&options.database)?;
        let place = Place::choose(&options.data_dir, Account::for_server())?;
        place.create()?;
        if place.is_moved() {
            let (wanted, used) = (options.data_dir.display(), place.root().display());
            tracing::warn!(%wanted, %used, "the account of PostgreSQL cannot enter the data directory; using another");
        }
        let lock = place.lock()?;
        place.end_orphan()?;
        let binaries = Binaries::find(options.bin_dir.as_deref(), place.major(), place.account())?;
        let starting = Starting { options, place: &place, binaries: &binaries };
        let password = starting.initialise()?;
        starting.make_database()?;
        let (process, port) = starting.run()?;
        let url = format!("postgres://{USER}:{password}@127.0.0.1:{port}/{}", options.database);
        let instance = Instance { pid: process.pid(), port, url };
        // Made before the record is written: if that fails, the drop stops the server.
        let version = binaries.version.clone();
        let postgres = Self { process, place, url: instance.url.clone(), port, version, _lock: lock };
        let recorded = postgres.place.remember_instance(&instance);
        recorded
            .map_err(|error| Error::from_io(ErrorKind::DataDirectory, "cannot record the running PostgreSQL", error))?;
        tracing::info!(pid = instance.pid, port, version = postgres.version, "PostgreSQL is ready");
        Ok(postgres)
    }

    /// Returns the URL of the server that another process runs on `data_dir`, if one does.
    pub fn running(data_dir: &Path) -> Option<String> {
        let place = Place::choose(data_dir, Account::for_server()).ok()?;
        let instance = place.instance()?;
        let postmaster = place.postmaster()?;
        let is_up = postmaster.ready && postmaster.pid == instance.pid && place.is_server(instance.pid);
        is_up.then_some(instance.url)
    }

    /// Returns the URL, which contains the password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process of the server.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the version of the server, such as `15.18`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the directory in use, which differs from the option when the server's account cannot reach that.
    pub fn data_dir(&self) -> &Path {
        self.place.root()
    }

    /// Returns whether the server has not ended.
    pub fn is_running(&self) -> bool {
        !self.process.has_ended()
    }

    /// Stops the server and blocks until it has ended: open transactions are rolled back, connections closed.
    ///
    /// One that does not end in 30 seconds is ended without a checkpoint; its next start recovers.
    pub fn stop(self) -> Result<()> {
        self.shut_down()
    }

    fn shut_down(&self) -> Result<()> {
        let steps =
            [(os::FAST_SHUTDOWN, STOP_PATIENCE), (os::IMMEDIATE_SHUTDOWN, KILL_PATIENCE), (os::KILL, KILL_PATIENCE)];
        for (signal, patience) in steps {
            let sent = self.process.signal(signal);
            sent.map_err(|error| Error::from_io(ErrorKind::Stop, "cannot signal PostgreSQL", error))?;
            if self.process.wait(patience) {
                return Ok(());
            }
            tracing::warn!(pid = self.pid(), signal, "PostgreSQL does not end; asking harder");
        }
        Err(Error::new(ErrorKind::Stop, format!("PostgreSQL {} does not end", self.pid())))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            tracing::error!(%error, "PostgreSQL was left running");
        }
    }
}

fn check_database(name: &str) -> Result<()> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let is_plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if starts_well && is_plain && name.len() <= 63 {
        return Ok(());
    }
    let message = format!("`{name}` is not a database name; use [a-z][a-z0-9_]*, at most 63 characters");
    Err(Error::new(ErrorKind::InvalidOption, message))
}
