//! Reads a workflow from YAML and reports every mistake at once, each with its place in the text.
//!
//! Three passes: `node` makes a tree that knows where everything stands, `read` turns it into a definition and notes
//! what has the wrong shape, then the rules of `check` and [`crate::binding`] look at the definition.
//! What they find is tied to the text by the place's path. A rule's finding at or below a place that was already
//! reported is dropped: it would be a consequence, not a mistake of its own.

use crate::{
    binding::check_bindings,
    check::check,
    definition::Definition,
    diagnostic::{Code, Diagnostic, Report},
    limits::DEFINITION_BYTES,
    signature::Signatures,
};

mod events;
mod node;
mod read;
mod scalar;
mod steps;

use read::Reader;

/// Reads a definition; `file` is the name that reports show.
pub fn parse(text: &str, file: &str) -> Result<Definition, Report> {
    parse_with(text, file, None)
}

/// Reads a definition and holds it against the handlers' signatures, where they are known.
pub fn parse_with(text: &str, file: &str, signatures: Option<&Signatures>) -> Result<Definition, Report> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > DEFINITION_BYTES {
        let message = format!("the file has {} bytes, a definition has at most {DEFINITION_BYTES}", text.len());
        let mut problem = Diagnostic::error(Code::TooLarge, "", message).help("move data into the task's input");
        (problem.line, problem.column) = (1, 1);
        // The text itself is left out of the report: it is too long to be shown, and to be kept.
        return Err(Report::new(file, "", vec![problem]));
    }
    let mut reader = Reader::default();
    let definition = node::load(text, &mut reader.problems).map(|root| reader.definition(&root));
    let Some(definition) = definition else {
        return Err(Report::new(file, text, reader.problems));
    };
    let mut findings = check(&definition).err().unwrap_or_default();
    if let Some(signatures) = signatures {
        findings.extend(check_bindings(&definition, signatures));
    }
    reader.adopt(findings);
    if reader.problems.is_empty() { Ok(definition) } else { Err(Report::new(file, text, reader.problems)) }
}

/// Reports everything that is wrong with a text; empty if nothing is.
pub fn lint(text: &str, file: &str, signatures: Option<&Signatures>) -> Report {
    parse_with(text, file, signatures).err().unwrap_or_else(|| Report::new(file, text, Vec::new()))
}
