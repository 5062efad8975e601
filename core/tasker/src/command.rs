//! The command line of a worker's program: `work` and `describe`.

use std::io::Write as _;
use std::process::ExitCode;

use tasker_model::{Error, ErrorKind, Result};

use crate::Tasker;

const USAGE: &str = "usage: work [--queues NAMESPACE[/QUEUE],...] [--concurrency N]   run steps until SIGTERM
       describe                                                 print what the steps take and give, as JSON";

/// Runs the command that the program's arguments say, and answers the exit code: `main` of a worker's program.
///
/// `work [--queues a,b/slow] [--concurrency N]` runs steps until SIGTERM. `describe` prints the handlers' signatures as
/// JSON, for `tasker workflow lint --handlers FILE`.
///
/// Logs to standard error unless the program has set up `tracing` itself: `TASKER_LOG` filters (`info` unless said), and
/// `TASKER_LOG_FORMAT=json` writes lines for machines.
///
/// ```no_run
/// # use tasker::prelude::*;
/// # fn orders() -> Workflow { Workflow::new("orders") }
/// #[tokio::main]
/// async fn main() -> std::process::ExitCode {
///     // Without connecting: `describe` needs no database.
///     match Tasker::builder().env().and_then(tasker::Builder::connect_lazy) {
///         Ok(tasker) => tasker::run(tasker.workflow(orders())).await,
///         Err(error) => { eprintln!("{error}"); std::process::ExitCode::from(2) }
///     }
/// }
/// ```
pub async fn run(tasker: Tasker) -> ExitCode {
    crate::logging::start();
    let result = match Command::parse(std::env::args().skip(1)) {
        Ok(command) => command.run(tasker).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(u8::try_from(error.kind.exit_code()).unwrap_or(1))
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Work { queues: Option<Vec<String>>, concurrency: Option<usize> },
    Describe,
}

impl Command {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        match arguments.next().as_deref() {
            Some("work") => {}
            Some("describe") => {
                return match arguments.next() {
                    None => Ok(Self::Describe),
                    Some(more) => Err(usage(&format!("`describe` takes no `{more}`"))),
                };
            }
            Some(other) => return Err(usage(&format!("there is no command `{other}`"))),
            None => return Err(usage("no command was given")),
        }
        let (mut queues, mut concurrency) = (None, None);
        while let Some(argument) = arguments.next() {
            let (option, value) = match argument.split_once('=') {
                Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
                None => (argument, arguments.next()),
            };
            match (option.as_str(), value) {
                ("--queues", Some(value)) => {
                    queues = Some(value.split(',').map(|queue| queue.trim().to_owned()).collect());
                }
                ("--concurrency", Some(value)) => {
                    let slots = value
                        .parse()
                        .map_err(|_| usage(&format!("--concurrency is `{value}`; it must be a whole number")))?;
                    concurrency = Some(slots);
                }
                ("--queues" | "--concurrency", None) => {
                    return Err(usage(&format!("{option} needs a value")));
                }
                _ => return Err(usage(&format!("`work` takes no `{option}`"))),
            }
        }
        Ok(Self::Work { queues, concurrency })
    }

    async fn run(self, mut tasker: Tasker) -> Result<ExitCode> {
        match self {
            Self::Describe => {
                tasker.check()?;
                let text = serde_json::to_string_pretty(&tasker.describe()).map_err(|cause| {
                    Error::new(ErrorKind::Internal, "the signatures cannot be written").caused_by(cause)
                })?;
                writeln!(std::io::stdout(), "{text}").map_err(|cause| {
                    Error::new(ErrorKind::Unavailable, "the signatures cannot be printed").caused_by(cause)
                })?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Work { queues, concurrency } => {
                if let Some(queues) = queues {
                    tasker = tasker.queues(queues);
                }
                if let Some(slots) = concurrency {
                    tasker = tasker.concurrency(slots);
                }
                // A pool that cannot connect only says, much later, that it timed out.
                drop(tasker.engine().open().await?);
                let reason = tasker.work().run().await?;
                Ok(ExitCode::from(u8::try_from(reason.exit_code()).unwrap_or(1)))
            }
        }
    }
}

fn usage(what: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("{what}\n{USAGE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command> {
        Command::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_command_line_is_read_whole_or_refused_with_the_usage() {
        let command = parse("work --queues orders,billing/slow --concurrency=4").unwrap();
        let queues = Some(vec!["orders".to_owned(), "billing/slow".to_owned()]);
        assert_eq!(command, Command::Work { queues, concurrency: Some(4) });
        assert_eq!(parse("describe").unwrap(), Command::Describe);
        for wrong in ["", "wrok", "work --concurrency", "work --concurrency x", "work --threads 2", "describe all"] {
            let error = parse(wrong).unwrap_err();
            assert_eq!(error.kind.exit_code(), 2);
            assert!(error.message.contains("usage: work"), "{error}");
        }
    }
}
