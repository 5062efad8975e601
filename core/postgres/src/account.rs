//! The account that the server runs under. PostgreSQL refuses root, so root steps down.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::os;

/// An unprivileged account, used only when this process is root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// Returns the account to step down to, or none when this process is not root.
    pub(crate) fn for_server() -> Option<Self> {
        if !os::is_root() {
            return None;
        }
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let nobody = || Self { name: "nobody".to_owned(), uid: 65_534, gid: 65_534 };
        Some(find(&accounts, "postgres").or_else(|| find(&accounts, "nobody")).unwrap_or_else(nobody))
    }

    /// Makes the command run under this account; std drops the supplementary groups itself.
    pub(crate) fn apply(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Returns the first directory on the way to `path` that this account may not enter. The part of
    /// the path that does not exist yet is left out.
    pub(crate) fn first_closed(&self, path: &Path) -> Option<PathBuf> {
        let mut existing: Vec<&Path> = path.ancestors().filter(|ancestor| ancestor.is_dir()).collect();
        existing.reverse();
        existing.into_iter().find(|directory| !self.may_enter(directory)).map(Path::to_owned)
    }

    fn may_enter(&self, directory: &Path) -> bool {
        let Ok(metadata) = fs::metadata(directory) else {
            return false;
        };
        let bit = if metadata.uid() == self.uid {
            0o100
        } else if metadata.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        metadata.mode() & bit != 0
    }
}

fn find(accounts: &str, name: &str) -> Option<Account> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        // An account with uid 0 under another name would be refused by PostgreSQL all the same.
        (uid != 0).then(|| Account { name: name.to_owned(), uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn accounts_are_found_by_their_whole_name() {
        let accounts =
            "root:x:0:0:root:/root:/bin/sh\nmypostgres:x:7:7::/:/bin/sh\npostgres:x:101:104:,,,:/var:/bin/bash\n";
        let expected = Account { name: "postgres".to_owned(), uid: 101, gid: 104 };
        assert_eq!(find(accounts, "postgres"), Some(expected));
        assert_eq!(find(accounts, "nobody"), None);
        assert_eq!(find(accounts, "root"), None);
    }

    #[test]
    fn a_directory_closed_to_others_is_named() {
        let parent = std::env::temp_dir().join(format!("tasker-account-{}", uuid::Uuid::now_v7()));
        let closed = parent.join("closed");
        fs::create_dir_all(&closed).unwrap();
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let owner = fs::metadata(&closed).unwrap();
        let stranger = Account { name: "stranger".to_owned(), uid: owner.uid() + 4_242, gid: owner.gid() + 4_242 };
        let same = Account { name: "same".to_owned(), uid: owner.uid(), gid: owner.gid() };
        let below = closed.join("not/yet/there");

        assert_eq!(stranger.first_closed(&below), Some(closed.clone()));
        assert_eq!(same.first_closed(&below), None);
        assert_eq!(stranger.first_closed(&parent.join("data")), None);
        fs::remove_dir_all(&parent).unwrap();
    }
}
