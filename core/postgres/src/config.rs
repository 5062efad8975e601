//! The environment variables that this crate reads, and nothing else does.
#![expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the environment")]

use std::env;
use std::path::PathBuf;

/// The variable that names the directory of the server binaries.
pub(crate) const BIN_DIR: &str = "TASKER_PG_BIN_DIR";

pub(crate) fn bin_dir() -> Option<PathBuf> {
    env::var_os(BIN_DIR).filter(|value| !value.is_empty()).map(PathBuf::from)
}

pub(crate) fn path_directories() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

pub(crate) fn virtual_env() -> Option<PathBuf> {
    env::var_os("VIRTUAL_ENV").map(PathBuf::from)
}
