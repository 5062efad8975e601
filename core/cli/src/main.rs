//! The `tasker` program: develop, run and look after workflows from the command line.

mod args;
mod commands;
mod complete;
mod config;
mod failure;
mod input;
mod output;
mod when;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;

use crate::args::Cli;
use crate::commands::Context;
use crate::config::Config;
use crate::failure::{Outcome, invalid};
use crate::output::Output;

fn main() -> ExitCode {
    // Answers a shell that asks for completions, and ends the program then.
    clap_complete::CompleteEnv::with_factory(Cli::command).var(complete::VARIABLE).complete();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let format = cli.global.output;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(format);
            ExitCode::from(u8::try_from(failure.exit_code()).unwrap_or(1))
        }
    }
}

/// Tells of wrong arguments, in JSON where they ask for it; shows the help that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let wants_json = arguments.iter().any(|a| matches!(a.as_str(), "-ojson" | "-o=json" | "--output=json"))
        || arguments.windows(2).any(|pair| matches!(pair[0].as_str(), "-o" | "--output") && pair[1] == "json");
    if error.use_stderr() && wants_json {
        let text = error.render().to_string();
        let message = text.trim().trim_start_matches("error: ").to_owned();
        failure::invalid(message).tell(args::Format::Json);
    } else if error.print().is_err() {
        // Nobody reads it; the exit code speaks.
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn run(cli: Cli) -> Outcome {
    let config = Config::load(&cli.global)?;
    start_log(&config)?;
    for warning in config::unknown_variables() {
        output::talk(warning);
    }
    let context = Context {
        output: Output::new(cli.global.output, config::no_color()),
        may_ask: !cli.global.no_input && std::io::IsTerminal::is_terminal(&std::io::stdin()),
        yes: cli.global.yes,
        config,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| invalid(format!("cannot start: {error}")))?;
    // On the main thread: children that must die with this process are tied to the thread that spawns them.
    let outcome = runtime.block_on(commands::run(&context, cli.command));
    runtime.shutdown_background();
    outcome
}

fn start_log(config: &Config) -> Outcome {
    let filter = config.get("log").unwrap_or("warn");
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| invalid(format!("`log` is not a filter: {error}; try `info` or `tasker_engine=debug`")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.get("log_format") {
        Some("json") => builder.json().init(),
        Some("text") | None => builder.init(),
        Some(other) => {
            return Err(invalid(format!("`log_format` must be text or json, not `{other}`")));
        }
    }
    Ok(())
}
