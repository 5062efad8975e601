//! The program itself: its version, its configuration, its completion scripts.

use clap_complete::Shell;
use clap_complete::env::Shells;

use super::Context;
use crate::complete;
use crate::failure::{Outcome, invalid};
use crate::output::table;

pub(super) fn version(context: &Context) {
    let version = env!("CARGO_PKG_VERSION");
    let value = serde_json::json!({ "name": "tasker", "version": version });
    context.output.show(&value, |_| format!("tasker {version}"));
}

/// Writes the script that makes a shell ask this program for completions.
pub(super) fn completions(context: &Context, shell: Shell) -> Outcome {
    let name = shell.to_string();
    let shells = Shells::builtins();
    let registers = shells.completer(&name).ok_or_else(|| invalid(format!("there are no completions for {name}")))?;
    let mut script = Vec::new();
    registers
        .write_registration(complete::VARIABLE, "tasker", "tasker", "tasker", &mut script)
        .map_err(|error| invalid(format!("cannot write the script: {error}")))?;
    let script = String::from_utf8_lossy(&script);
    let value = serde_json::json!({ "shell": name, "script": script });
    context.output.show(&value, |_| script.to_string());
    Ok(())
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
