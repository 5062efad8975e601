//! A throw-away server of the supervisor.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tasker_postgres::{Options, Postgres};
use uuid::Uuid;

use crate::variant::{PgBouncer, Surroundings, Variant, surround};

const PREFIX: &str = "tasker-test-";
/// Younger directories may belong to a start that has not taken its lock yet.
const ABANDONED_AFTER: Duration = Duration::from_mins(1);

/// A PostgreSQL in a temporary directory, without durability. Dropping it stops the server and
/// deletes the directory.
#[derive(Debug)]
pub struct Embedded {
    /// Present until the drop.
    postgres: Option<Postgres>,
    surroundings: Surroundings,
    socket: Option<PathBuf>,
}

impl Embedded {
    /// Starts a server and blocks until it is ready; takes about a second. Also deletes what test
    /// processes that were killed have left.
    pub fn start() -> io::Result<Self> {
        Self::start_as(Variant::default())
    }

    /// The same for a server that is met in another way.
    pub fn start_as(variant: Variant) -> io::Result<Self> {
        sweep(&std::env::temp_dir());
        let refuse = |error: io::Error| io::Error::other(format!("cannot prepare the tests' server: {error}"));
        let directory = std::env::temp_dir().join(format!("{PREFIX}{}", Uuid::now_v7()));
        let mut settings = vec![("max_connections".to_owned(), "300".to_owned())];
        let socket = variant.socket.then(|| make_socket_directory().map_err(refuse)).transpose()?;
        if let Some(socket) = &socket {
            settings.push(("unix_socket_directories".to_owned(), socket.display().to_string()));
        }
        let options = Options { durable: false, settings, ..Options::new(directory) };
        let postgres = Postgres::start(&options).map_err(io::Error::other)?;
        let surroundings = surround(postgres.url(), postgres.data_dir(), socket.as_deref(), variant).map_err(refuse)?;
        Ok(Self { postgres: Some(postgres), surroundings, socket })
    }

    /// Returns the URL of the server, with a database to connect to.
    pub fn url(&self) -> &str {
        &self.surroundings.url
    }

    /// Returns `user:password@host:port` of the PgBouncer in front of it.
    pub fn pgbouncer(&self) -> Option<&str> {
        self.surroundings.pgbouncer.as_ref().map(PgBouncer::authority)
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let Some(postgres) = self.postgres.take() else {
            return;
        };
        self.surroundings = Surroundings::default();
        let directory = postgres.data_dir().to_owned();
        drop(postgres);
        // What is left is found by the sweep of a later start.
        let _ = fs::remove_dir_all(directory);
        if let Some(socket) = &self.socket {
            let _ = fs::remove_dir_all(socket);
        }
    }
}

/// The server's account must write to it, and a socket's path may have a hundred bytes only.
fn make_socket_directory() -> io::Result<PathBuf> {
    let directory = PathBuf::from(format!("/tmp/{PREFIX}{}", Uuid::new_v4().simple()));
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777))?;
    Ok(directory)
}

/// Deletes the directories of servers whose process was killed. Those of other accounts stay.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_ours && is_abandoned(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_abandoned(directory: &PathBuf) -> bool {
    let modified = fs::metadata(directory).and_then(|metadata| metadata.modified());
    let is_old = modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > ABANDONED_AFTER));
    let lock = File::open(directory.join("lock"));
    let is_free = lock.is_ok_and(|lock| lock.try_lock_shared().is_ok());
    is_old && is_free && Postgres::running(directory).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_directories_that_nobody_holds_are_swept() {
        let parent = std::env::temp_dir().join(format!("testkit-sweep-{}", Uuid::now_v7()));
        let make = |name: &str, age: Duration| {
            let directory = parent.join(name);
            fs::create_dir_all(&directory).unwrap();
            let lock = File::create(directory.join("lock")).unwrap();
            let modified = File::open(&directory).unwrap().metadata().unwrap().modified().unwrap() - age;
            File::open(&directory).unwrap().set_modified(modified).unwrap();
            lock
        };
        let hour = Duration::from_hours(1);
        let held = make("tasker-test-held", hour);
        held.lock().unwrap();
        make("tasker-test-abandoned", hour);
        make("tasker-test-young", Duration::ZERO);
        make("of-somebody-else", hour);

        sweep(&parent);
        let mut left: Vec<_> = fs::read_dir(&parent).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["of-somebody-else", "tasker-test-held", "tasker-test-young"]);
        fs::remove_dir_all(&parent).unwrap();
    }
}
