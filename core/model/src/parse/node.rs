//! YAML as a tree whose nodes know where they stand.
//!
//! Anchors, aliases, tags and further documents are refused: a definition needs none of them, and an alias would let
//! a small file stand for a huge one.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use crate::{
    diagnostic::{Code, Diagnostic},
    limits::NESTING,
};

/// A place in the text, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) length: usize,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Text, and whether it stood without quotes.
    Scalar(String, bool),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
    /// Something refused and reported already.
    Broken,
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) place: Place,
}

impl Place {
    fn of(span: Span) -> Self {
        let on_one_line = span.start.line() == span.end.line();
        let length = if on_one_line { span.end.col().saturating_sub(span.start.col()) } else { 1 };
        Self { line: span.start.line(), column: span.start.col() + 1, length: length.max(1) }
    }

    /// Ties a problem to this place.
    pub(super) fn mark(self, mut problem: Diagnostic) -> Diagnostic {
        (problem.line, problem.column, problem.length) = (self.line, self.column, self.length);
        problem
    }
}

/// Reads the text's only document; nothing if the text is no YAML, which is then reported.
pub(super) fn load(text: &str, problems: &mut Vec<Diagnostic>) -> Option<Node> {
    let mut loader = Loader { parser: Parser::new_from_str(text), problems };
    match loader.document() {
        Ok(node) => Some(node),
        Err(Stop::Reported) => None,
        Err(Stop::Syntax(error)) => {
            let marker = error.marker();
            let place = Place { line: marker.line().max(1), column: marker.col() + 1, length: 1 };
            let message = format!("this is not YAML: {}", error.info());
            let mut problem = place.mark(Diagnostic::error(Code::Syntax, "", message));
            let line = text.lines().nth(place.line - 1).unwrap_or_default();
            if line.trim_start_matches(' ').starts_with('\t') {
                problem = problem.help("indent with spaces; YAML does not allow tabs");
            }
            loader.problems.push(problem);
            None
        }
    }
}

enum Stop {
    Syntax(ScanError),
    Reported,
}

struct Loader<'t, 'p> {
    parser: Parser<'t, StrInput<'t>>,
    problems: &'p mut Vec<Diagnostic>,
}

impl<'t> Loader<'t, '_> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Stop> {
        match self.parser.next_event() {
            Some(event) => event.map_err(Stop::Syntax),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn document(&mut self) -> Result<Node, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event if root.is_none() => root = Some(self.node(event, span, 0)?),
                _ => {
                    let problem = Diagnostic::error(
                        Code::Unsupported,
                        "",
                        "a file holds one workflow, here a second document begins",
                    );
                    self.problems.push(Place::of(span).mark(problem.help("move it to a file of its own")));
                    return Err(Stop::Reported);
                }
            }
        }
        let empty = Place { line: 1, column: 1, length: 1 };
        Ok(root.unwrap_or(Node { place: empty, kind: Kind::Scalar(String::new(), true) }))
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Stop> {
        let place = Place::of(span);
        if depth > NESTING {
            let problem = Diagnostic::error(Code::TooLarge, "", format!("this is nested deeper than {NESTING} levels"));
            self.problems.push(place.mark(problem.help("flatten it")));
            return Err(Stop::Reported);
        }
        let kind = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse(place, anchor, tag.is_some());
                Kind::Scalar(text.into_owned(), style == ScalarStyle::Plain)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse(place, anchor, tag.is_some());
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break Kind::List(items),
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse(place, anchor, tag.is_some());
                self.mapping(depth)?
            }
            Event::Alias(_) => {
                let problem = Diagnostic::error(Code::Unsupported, "", "definitions do not use aliases");
                self.problems.push(place.mark(problem.help("write the value out")));
                Kind::Broken
            }
            // The parser yields these only where `document` takes them.
            _ => Kind::Broken,
        };
        Ok(Node { place, kind })
    }

    fn mapping(&mut self, depth: usize) -> Result<Kind, Stop> {
        let mut entries = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Kind::Map(entries));
            }
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            match key.kind {
                Kind::Scalar(text, _) => entries.push((Key { text, place: key.place }, value)),
                Kind::Broken => {}
                Kind::List(_) | Kind::Map(_) => {
                    let problem =
                        Diagnostic::error(Code::Unsupported, "", "a key must be text, here it is a list or a mapping");
                    self.problems.push(key.place.mark(problem));
                }
            }
        }
    }

    fn refuse(&mut self, place: Place, anchor: usize, has_tag: bool) {
        let what = match (anchor, has_tag) {
            (0, false) => return,
            (0, true) => "definitions do not use tags",
            _ => "definitions do not use anchors",
        };
        self.problems.push(place.mark(Diagnostic::error(Code::Unsupported, "", what).help("write the plain value")));
    }
}
