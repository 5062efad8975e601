//! `tasker workflow lint`, and the reading of workflow files.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;
use tasker_model::diagnostic::Report;
use tasker_model::parse::{lint, parse};
use tasker_model::{Definition, Signatures};

use super::Context;
use crate::args::Format;
use crate::failure::{Failure, Outcome, file_error};
use crate::output::{line, talk};

/// Reports everything that is wrong with these files.
pub(super) fn run(context: &Context, files: &[PathBuf], handlers: Option<&Path>) -> Outcome {
    let signatures = handlers.map(|path| Ok::<_, Failure>(Signatures::from_json(&read(path)?)?)).transpose()?;
    let mut reports = Vec::with_capacity(files.len());
    for file in files {
        let text = read(file)?;
        reports.push(lint(&text, &file.display().to_string(), signatures.as_ref()));
    }
    if context.output.format == Format::Json {
        context.output.show(&diagnostics(&reports), |_| String::new());
    } else {
        reports.iter().filter(|report| !report.is_empty()).for_each(|report| tell(context, report));
    }
    let mistakes: usize = reports.iter().map(|report| report.diagnostics.len()).sum();
    if reports.iter().any(Report::has_errors) {
        talk(format!("{mistakes} {}", if mistakes == 1 { "mistake" } else { "mistakes" }));
        return Err(Failure::Told(1));
    }
    if context.output.format == Format::Table && mistakes == 0 {
        talk(match files {
            [file] => format!("{}: nothing is wrong", file.display()),
            _ => format!("{} files: nothing is wrong", files.len()),
        });
    }
    Ok(())
}

/// Reads a workflow from a file; what is wrong with it is told.
pub(super) fn definition(context: &Context, file: &Path) -> Outcome<Definition> {
    parse(&read(file)?, &file.display().to_string()).map_err(|report| {
        if context.output.format == Format::Json {
            let error = json!({ "kind": "invalid", "message": "the workflow is wrong", "exit_code": 1, "diagnostics": diagnostics(&[report]) });
            talk(json!({ "error": error }));
        } else if context.output.is_terminal {
            // In colours, which `talk` would show as text.
            let _ = write!(std::io::stderr(), "{}", report.render(context.output.is_colored));
        } else {
            talk(report.short().trim_end());
        }
        Failure::Told(1)
    })
}

fn tell(context: &Context, report: &Report) {
    if context.output.is_terminal {
        line(&report.render(context.output.is_colored));
    } else {
        line(&report.short());
    }
}

/// The mistakes as one list, each with its file.
fn diagnostics(reports: &[Report]) -> Vec<serde_json::Value> {
    let of = |report: &Report| {
        let file = report.file.clone();
        report
            .diagnostics
            .iter()
            .filter_map(|diagnostic| serde_json::to_value(diagnostic).ok())
            .map(move |mut value| {
                if let Some(object) = value.as_object_mut() {
                    object.insert("file".to_owned(), file.clone().into());
                }
                value
            })
            .collect::<Vec<_>>()
    };
    reports.iter().flat_map(of).collect()
}

fn read(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path).map_err(|error| file_error("cannot read", path, error))
}
