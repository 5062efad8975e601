//! The directory of one server: what is kept in it, who owns it, and who uses it now.
//!
//! ```text
//! lock           held (flock) by the supervising process; its number inside
//! password       of the superuser `tasker`; made once, mode 0600
//! databases      the databases made here, one a line
//! instance.json  port and URL of the last start, mode 0600
//! postgres.log   what the server printed since its last start
//! data/          PGDATA, owned by the account that runs the server
//! ```

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{process, thread};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::account::Account;
use crate::error::{Error, ErrorKind, Result};
use crate::os;

/// A probe for a running server may hold the lock for an instant; a supervisor holds it for good.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);
/// How long an orphaned server gets to shut down before a start gives up.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Place {
    /// Without symbolic links: the server is recognised by this path in its command line.
    root: PathBuf,
    account: Option<Account>,
    /// Whether `root` stands in for the directory that was wanted.
    is_moved: bool,
}

/// The last start, so that others can attach and the next start keeps its port.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Instance {
    pub(crate) pid: u32,
    pub(crate) port: u16,
    pub(crate) url: String,
}

/// What the server says of itself in `postmaster.pid`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Postmaster {
    pub(crate) pid: u32,
    pub(crate) ready: bool,
}

impl Place {
    /// Chooses the directory, without making it: `wanted`, unless the server's account cannot get there.
    pub(crate) fn choose(wanted: &Path, account: Option<Account>) -> Result<Self> {
        let wanted = resolve(wanted).map_err(|error| refuse(wanted, "is not a usable path", error))?;
        let Some(closed) = account.as_ref().and_then(|account| account.first_closed(&wanted)) else {
            return Ok(Self { root: wanted, account, is_moved: false });
        };
        let name = format!("{:016x}", fnv(wanted.as_os_str().as_encoded_bytes()));
        let fallbacks =
            [PathBuf::from("/var/lib/tasker").join(&name), std::env::temp_dir().join(format!("tasker-{name}"))];
        let reachable = |root: &PathBuf| {
            make_directory(root).is_ok() && account.as_ref().is_none_or(|account| account.first_closed(root).is_none())
        };
        match fallbacks.into_iter().find(reachable) {
            Some(root) => Ok(Self { root, account, is_moved: true }),
            None => Err(Error::new(
                ErrorKind::DataDirectory,
                format!(
                    "the account that runs PostgreSQL cannot enter {}, and neither /var/lib/tasker nor the temporary \
                     directory can stand in for {}; choose a data directory that every account can reach",
                    closed.display(),
                    wanted.display()
                ),
            )),
        }
    }

    pub(crate) fn create(&self) -> Result<()> {
        make_directory(&self.root).map_err(|error| refuse(&self.root, "cannot be made or is not ours", error))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn is_moved(&self) -> bool {
        self.is_moved
    }

    pub(crate) fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("postgres.log")
    }

    /// Takes the place for this process until the file is dropped.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        let fail = |error| refuse(&path, "cannot be locked", error);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fail)?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(fail(error)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => return Err(self.in_use(&path)),
            }
        }
        file.set_len(0).and_then(|()| write!(file, "{}", process::id())).map_err(fail)?;
        Ok(file)
    }

    fn in_use(&self, lock: &Path) -> Error {
        let holder = fs::read_to_string(lock).unwrap_or_default();
        Error::new(
            ErrorKind::InUse,
            format!(
                "the PostgreSQL in {} is already supervised by process {}; stop that process, or connect to its server",
                self.root.display(),
                holder.trim()
            ),
        )
    }

    /// Returns the major version that made the data directory; none before the first start.
    pub(crate) fn major(&self) -> Option<u32> {
        fs::read_to_string(self.data().join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    /// Makes an empty directory that belongs to the server's account. `initdb` fills it, and only a
    /// complete one is renamed to `data`: a start that dies half-way leaves nothing that looks usable.
    pub(crate) fn prepare_data(&self) -> io::Result<PathBuf> {
        let partial = self.root.join("data.partial");
        match fs::remove_dir_all(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&partial)?,
        }
        fs::set_permissions(&partial, Permissions::from_mode(0o700))?;
        self.give_to_account(&partial)?;
        Ok(partial)
    }

    /// Returns the superuser's password, made on first use, and the file that holds it.
    pub(crate) fn password(&self) -> io::Result<(String, PathBuf)> {
        let path = self.root.join("password");
        if let Ok(password) = fs::read_to_string(&path)
            && !password.trim().is_empty()
        {
            return Ok((password.trim().to_owned(), path));
        }
        let password = Uuid::new_v4().simple().to_string();
        write_private(&path, password.as_bytes())?;
        // initdb reads it, and runs under the server's account.
        self.give_to_account(&path)?;
        Ok((password, path))
    }

    fn give_to_account(&self, path: &Path) -> io::Result<()> {
        self.account.as_ref().map_or(Ok(()), |account| chown(path, Some(account.uid), Some(account.gid)))
    }

    pub(crate) fn has_database(&self, name: &str) -> bool {
        let made = fs::read_to_string(self.root.join("databases")).unwrap_or_default();
        made.lines().any(|line| line == name)
    }

    pub(crate) fn remember_database(&self, name: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(self.root.join("databases"))?;
        writeln!(file, "{name}")
    }

    pub(crate) fn instance(&self) -> Option<Instance> {
        serde_json::from_slice(&fs::read(self.root.join("instance.json")).ok()?).ok()
    }

    pub(crate) fn remember_instance(&self, instance: &Instance) -> io::Result<()> {
        write_private(&self.root.join("instance.json"), &serde_json::to_vec(instance)?)
    }

    pub(crate) fn postmaster(&self) -> Option<Postmaster> {
        parse_postmaster(&fs::read_to_string(self.data().join("postmaster.pid")).ok()?)
    }

    /// Returns whether `pid` is a server that runs on this place.
    pub(crate) fn is_server(&self, pid: u32) -> bool {
        if cfg!(target_os = "linux") {
            // Also tells a live server from a zombie, whose command line is empty.
            let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let data = self.data();
            command_line.split(|byte| *byte == 0).any(|argument| argument == data.as_os_str().as_encoded_bytes())
        } else {
            os::exists(pid)
        }
    }

    /// Ends a server that outlived its supervisor, and unblocks a start after a crash of everything.
    /// The caller holds the lock, so no supervisor lives.
    pub(crate) fn end_orphan(&self) -> Result<()> {
        let Some(postmaster) = self.postmaster() else {
            return Ok(());
        };
        if self.is_server(postmaster.pid) {
            tracing::info!(pid = postmaster.pid, "ending a PostgreSQL that outlived its supervisor");
            // An error means that it has just ended.
            let _ = os::signal(postmaster.pid, os::FAST_SHUTDOWN);
            let deadline = Instant::now() + ORPHAN_PATIENCE;
            while self.is_server(postmaster.pid) {
                if Instant::now() > deadline {
                    let message =
                        format!("the orphaned PostgreSQL {} in {} does not end", postmaster.pid, self.root.display());
                    return Err(Error::new(ErrorKind::InUse, message));
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        self.disown_stale_pid_file().map_err(|error| refuse(&self.data(), "has a stale postmaster.pid", error))
    }

    /// PostgreSQL refuses to start while the number in `postmaster.pid` belongs to any live process,
    /// also one that merely got the same number. Removing the file would remove the check for backends
    /// that still use the shared memory, too; PostgreSQL takes the number of its own parent for stale
    /// and goes on to that check, so we put ours there.
    fn disown_stale_pid_file(&self) -> io::Result<()> {
        let path = self.data().join("postmaster.pid");
        let Ok(text) = fs::read_to_string(&path) else {
            return Ok(());
        };
        match text.split_once('\n') {
            // Opened for writing in place: the owner stays the server's account.
            Some((_, rest)) => fs::write(&path, format!("{}\n{rest}", process::id())),
            None => fs::remove_file(&path),
        }
    }
}

/// Line 1 is the process, line 8 its status, padded with blanks.
fn parse_postmaster(text: &str) -> Option<Postmaster> {
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok()?;
    Some(Postmaster { pid, ready: lines.nth(6).is_some_and(|status| status.trim() == "ready") })
}

/// Makes a path absolute and follows the symbolic links in the part of it that exists.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    for ancestor in absolute.ancestors() {
        if let (Ok(real), Ok(rest)) = (fs::canonicalize(ancestor), absolute.strip_prefix(ancestor)) {
            // Joining nothing would add a slash at the end.
            return Ok(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
        }
    }
    Ok(absolute)
}

/// Makes the directory with those above it, and refuses one of another account: in the temporary
/// directory anybody could have put it there.
fn make_directory(path: &Path) -> io::Result<()> {
    let mut missing: Vec<&Path> = path.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
    missing.reverse();
    fs::create_dir_all(path)?;
    if !os::is_root() {
        return Ok(());
    }
    for directory in missing {
        // A restrictive umask would keep the server's account out.
        fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    }
    let metadata = fs::symlink_metadata(path)?;
    if metadata.uid() != 0 || metadata.is_symlink() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it does not belong to root"));
    }
    Ok(())
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(content)?;
    fs::rename(&partial, path)
}

/// FNV-1a, which stays the same between builds, as the hasher of std does not.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn refuse(path: &Path, what: &str, source: io::Error) -> Error {
    Error::new(ErrorKind::DataDirectory, format!("{} {what}: {source}", path.display())).with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_the_eighth_line_of_the_pid_file() {
        let starting = "42\n/data\n1700000000\n5432\n\n127.0.0.1\n  1 2\nstarting\n";
        assert_eq!(parse_postmaster(starting), Some(Postmaster { pid: 42, ready: false }));
        let ready = starting.replace("starting", "ready   ");
        assert_eq!(parse_postmaster(&ready), Some(Postmaster { pid: 42, ready: true }));
        assert_eq!(parse_postmaster("42\n"), Some(Postmaster { pid: 42, ready: false }));
        assert_eq!(parse_postmaster(""), None);
    }

    #[test]
    fn the_name_of_a_fallback_never_changes() {
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
