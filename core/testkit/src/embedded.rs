//! A throw-away server of the supervisor.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tasker_postgres::{Options, Postgres, Result};
use uuid::Uuid;

const PREFIX: &str = "tasker-test-";
/// Younger directories may belong to a start that has not taken its lock yet.
const ABANDONED_AFTER: Duration = Duration::from_mins(1);

/// A PostgreSQL in a temporary directory, without durability. Dropping it stops the server and
/// deletes the directory.
#[derive(Debug)]
pub struct Embedded {
    /// Present until the drop.
    postgres: Option<Postgres>,
}

impl Embedded {
    /// Starts a server and blocks until it is ready; takes about a second. Also deletes what test
    /// processes that were killed have left.
    pub fn start() -> Result<Self> {
        sweep(&std::env::temp_dir());
        let directory = std::env::temp_dir().join(format!("{PREFIX}{}", Uuid::now_v7()));
        let options = Options {
            durable: false,
            settings: vec![("max_connections".to_owned(), "300".to_owned())],
            ..Options::new(directory)
        };
        let postgres = Some(Postgres::start(&options)?);
        Ok(Self { postgres })
    }

    /// Returns the URL of the server, with a database to connect to.
    pub fn url(&self) -> &str {
        self.postgres.as_ref().map_or("", Postgres::url)
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let Some(postgres) = self.postgres.take() else {
            return;
        };
        let directory = postgres.data_dir().to_owned();
        drop(postgres);
        // What is left is found by the sweep of a later start.
        let _ = fs::remove_dir_all(directory);
    }
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
