//! All mistakes of one text, and how they are shown.

use std::fmt;
use std::fmt::Write as _;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use serde::Serialize;

use super::{Diagnostic, Severity};

/// The mistakes of one text, in the order in which they stand there.
#[derive(Clone, Serialize)]
pub struct Report {
    /// The file's name, as the reader knows it.
    pub file: String,
    /// The text.
    #[serde(skip)]
    pub source: String,
    /// The mistakes.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// Sorts the mistakes by their place.
    pub fn new(file: impl Into<String>, source: impl Into<String>, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by(|a, b| (a.line, a.column, a.code, &a.message).cmp(&(b.line, b.column, b.code, &b.message)));
        diagnostics.dedup();
        Self { file: file.into(), source: source.into(), diagnostics }
    }

    /// Says whether the definition is refused.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Says whether there is nothing to report.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// Draws each mistake with its line of the text, for a terminal.
    pub fn render(&self, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(110);
        let mut text = String::new();
        for diagnostic in &self.diagnostics {
            let shown = Shown {
                diagnostic,
                source: NamedSource::new(&self.file, self.source.clone()),
                offset: self.offset(diagnostic.line, diagnostic.column),
                bytes: self.bytes(diagnostic),
            };
            // Writing to a `String` cannot fail; should drawing fail, the plain line still says everything.
            if handler.render_report(&mut text, &shown).is_err() {
                let _ = writeln!(text, "{diagnostic}");
            }
        }
        text
    }

    /// One line a mistake: `file:line:column: error[TSK0102]: message (help)`.
    pub fn short(&self) -> String {
        self.to_string()
    }

    fn offset(&self, line: usize, column: usize) -> usize {
        let start: usize = self.source.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let rest = &self.source[start..];
        let within = rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at);
        start + within
    }

    fn bytes(&self, diagnostic: &Diagnostic) -> usize {
        let rest = &self.source[self.offset(diagnostic.line, diagnostic.column)..];
        rest.char_indices().nth(diagnostic.length).map_or(rest.len(), |(at, _)| at)
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            writeln!(f, "{}:{}:{}: {diagnostic}", self.file, diagnostic.line, diagnostic.column)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// One mistake as miette wants to see it.
struct Shown<'r> {
    diagnostic: &'r Diagnostic,
    source: NamedSource<String>,
    offset: usize,
    bytes: usize,
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnostic.fmt(f)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diagnostic { code, severity, message, .. } = self.diagnostic;
        write!(f, "{severity}[{code}]: {message}")
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.diagnostic.help.as_ref().map(|help| Box::new(help) as _)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        (self.diagnostic.line > 0).then_some(&self.source as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new(Some(self.diagnostic.code.title().to_owned()), self.offset, self.bytes);
        (self.diagnostic.line > 0).then(|| Box::new(std::iter::once(label)) as _)
    }
}
