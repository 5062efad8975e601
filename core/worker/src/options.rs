//! How a worker runs.

use std::time::Duration;

use tasker_model::{Error, ErrorKind, Result};

/// The shortest lease: below it a busy process could not renew in time.
const SHORTEST_LEASE: Duration = Duration::from_secs(2);
/// Above this a time is a mistake of units, and the arithmetic of times ends somewhere.
const LONGEST: Duration = Duration::from_hours(24);
const NAME_BYTES: usize = 255;

/// What may be chosen for a worker; [`Default`] is right for most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Its name, for people; host and process id by default.
    pub name: Option<String>,
    /// The runtime of its handlers: `rust`, `ruby`, `python`, `bun` or `remote`. `rust` by default.
    pub kind: String,
    /// How many steps run at once; 10 by default.
    pub concurrency: usize,
    /// The queues it serves, each `namespace` or `namespace/queue`; empty means all that its handlers need.
    pub queues: Vec<String>,
    /// How long a step stays with this process without a heartbeat; 30 s by default, at least 2 s.
    pub lease: Duration,
    /// The longest pause between two looks into the queues; 500 ms by default.
    pub poll_max: Duration,
    /// How long running handlers may take at shutdown; 25 s by default.
    pub drain: Duration,
    /// The largest number of connections that settle outcomes; 4 by default.
    pub committers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: None,
            kind: "rust".to_owned(),
            concurrency: 10,
            queues: Vec::new(),
            lease: Duration::from_secs(30),
            poll_max: Duration::from_millis(500),
            drain: Duration::from_secs(25),
            committers: 4,
        }
    }
}

impl Options {
    /// Refuses what cannot work; the message says what to change.
    pub fn check(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::new(ErrorKind::Invalid, message));
        if self.concurrency == 0 || self.concurrency > 10_000 {
            return invalid(format!("concurrency is {}; a worker has 1 to 10000 slots", self.concurrency));
        }
        if self.lease < SHORTEST_LEASE {
            return invalid(format!(
                "the lease is {} ms; it must be at least {} ms",
                self.lease.as_millis(),
                SHORTEST_LEASE.as_millis()
            ));
        }
        if self.lease > LONGEST {
            return invalid(format!(
                "the lease is {:?}; what a dead worker held would stay away as long: at most a day",
                self.lease
            ));
        }
        if self.poll_max < Duration::from_millis(2) || self.poll_max > LONGEST {
            return invalid(format!("poll_max is {:?}; it must be 2 ms to a day", self.poll_max));
        }
        if self.name.as_ref().is_some_and(|name| name.contains('\0') || name.len() > NAME_BYTES) {
            return invalid(format!("the worker's name must have at most {NAME_BYTES} bytes and no NUL"));
        }
        if self.committers == 0 || self.committers > 64 {
            return invalid(format!("committers is {}; a worker has 1 to 64", self.committers));
        }
        if !["rust", "ruby", "python", "bun", "remote"].contains(&self.kind.as_str()) {
            return invalid(format!(
                "`{}` is no kind of worker; it is one of rust, ruby, python, bun, remote",
                self.kind
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed_and_what_cannot_work_is_not() {
        assert!(Options::default().check().is_ok());
        let wrong = [
            Options { concurrency: 0, ..Options::default() },
            Options { lease: Duration::from_secs(1), ..Options::default() },
            Options { lease: Duration::MAX, ..Options::default() },
            Options { poll_max: Duration::ZERO, ..Options::default() },
            Options { poll_max: Duration::MAX, ..Options::default() },
            Options { name: Some("a\0b".to_owned()), ..Options::default() },
            Options { name: Some("n".repeat(1_000)), ..Options::default() },
            Options { committers: 0, ..Options::default() },
            Options { kind: "java".to_owned(), ..Options::default() },
        ];
        for options in wrong {
            assert!(options.check().is_err(), "{options:?}");
        }
    }
}
