//! What can go wrong while a local PostgreSQL is found, initialised, started or stopped.

use std::fmt;
use std::io;

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Says which part failed, for callers that treat some failures differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No usable server binaries: absent, too old, or out of reach of the account that runs them.
    NoBinaries,
    /// The data directory cannot be used: not writable, or made by another major version.
    DataDirectory,
    /// Another process supervises a server on the data directory.
    InUse,
    /// The requested port is taken.
    PortInUse,
    /// An option is not valid.
    InvalidOption,
    /// `initdb` or the creation of the database failed.
    Initialise,
    /// The server did not start.
    Start,
    /// The server did not stop.
    Stop,
}

/// A failure, with what to do about it in its message.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<io::Error>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn with_source(mut self, source: io::Error) -> Self {
        self.source = Some(source);
        self
    }

    pub(crate) fn from_io(kind: ErrorKind, what: &str, source: io::Error) -> Self {
        Self::new(kind, format!("{what}: {source}")).with_source(source)
    }

    /// Returns which part failed.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
