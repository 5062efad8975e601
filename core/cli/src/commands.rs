//! The commands, one module for each group.

mod db;
mod dev;
mod doctor;
mod event;
mod graph;
mod lint;
mod program;
mod queue;

mod submit;
mod task;
mod tree;
mod watch;
mod worker_process;
mod workflow;

use crate::args::{Command, ConfigCommand};
use crate::config::Config;
use crate::failure::{Failure, Outcome};
use crate::output::Output;

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) output: Output,
    /// Whether somebody is there to answer.
    pub(crate) may_ask: bool,
    /// Whether every confirmation is given in advance.
    pub(crate) yes: bool,
}

/// Runs a command.
pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Dev(args) => dev::run(context, args).await,
        Command::Run(args) => submit::run(context, *args).await,
        Command::Signal(args) => task::signal(context, args).await,
        Command::Compensate(args) => task::compensate(context, args).await,
        Command::Task(command) => task::run(context, command).await,
        Command::Workflow(command) => workflow::run(context, command).await,
        Command::Event(command) => event::events(context, command).await,
        Command::Subscription(command) => event::subscriptions(context, command).await,
        Command::Queue(command) => queue::queues(context, command).await,
        Command::Worker(command) => queue::workers(context, command).await,
        Command::Db(command) => db::run(context, command).await,
        Command::Doctor(args) => doctor::run(context, args).await,
        Command::Config(ConfigCommand::Show { origin }) => {
            program::config(context, origin);
            Ok(())
        }
        Command::Completions { shell } => program::completions(context, shell),
        Command::Version => {
            program::version(context);
            Ok(())
        }
    }
}

impl Context {
    /// Asks for a confirmation; fails with exit code 3 where nobody can give it, 1 where it is refused.
    pub(crate) fn confirm(&self, question: &str) -> Outcome {
        if self.yes {
            return Ok(());
        }
        if !self.may_ask {
            return Err(Failure::NeedsDecision(format!("{question} Say so with --yes")));
        }
        if let Ok(true) = inquire::Confirm::new(question).with_default(false).prompt() {
            return Ok(());
        }
        crate::output::talk("nothing was done");
        Err(Failure::Told(1))
    }

    /// Takes an answer from its option, or asks for it; fails with exit code 3 where nobody can give it.
    pub(crate) fn answer(&self, given: Option<String>, option: &str, question: &str) -> Outcome<String> {
        let given = given.filter(|text| !text.trim().is_empty());
        if let Some(text) = given {
            return Ok(text);
        }
        if self.may_ask
            && let Ok(text) = inquire::Text::new(question).prompt()
            && !text.trim().is_empty()
        {
            return Ok(text);
        }
        Err(Failure::NeedsDecision(format!("{question} Say so with {option} TEXT")))
    }
}
