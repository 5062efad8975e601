//! The program itself: its version, its configuration, its completion scripts.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Context;
use crate::args::Cli;
use crate::output::table;

pub(super) fn version(context: &Context) {
    let version = env!("CARGO_PKG_VERSION");
    let value = serde_json::json!({ "name": "tasker", "version": version });
    context.output.show(&value, |_| format!("tasker {version}"));
}

pub(super) fn completions(context: &Context, shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tasker", &mut script);
    let script = String::from_utf8_lossy(&script);
    let value = serde_json::json!({ "shell": shell.to_string(), "script": script });
    context.output.show(&value, |_| script.to_string());
}

pub(super) fn config(context: &Context, with_origin: bool) {
    context.output.show(&context.config.shown(), |settings| {
        let mut head = vec!["setting", "value"];
        if with_origin {
            head.push("origin");
        }
        head.push("about");
        let rows = settings.iter().map(|setting| {
            let mut row = vec![setting.name.to_owned(), setting.value.clone()];
            if with_origin {
                row.push(setting.origin.clone());
            }
            row.push(setting.about.to_owned());
            row
        });
        table(&head, rows.collect(), "")
    });
}
