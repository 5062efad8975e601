//! Writing: data to stdout, as a table or JSON; talk to stderr.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use tasker_model::Payload;

use crate::args::Format;

/// Where and how a command writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) format: Format,
    /// Whether stdout is a terminal.
    pub(crate) is_terminal: bool,
    /// Whether colours are welcome there.
    pub(crate) is_colored: bool,
}

impl Output {
    pub(crate) fn new(format: Format, no_color: bool) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        Self { format, is_terminal, is_colored: is_terminal && !no_color }
    }

    /// Says whether what was written can be written over.
    pub(crate) fn can_redraw(self) -> bool {
        self.is_terminal && !crate::config::is_dumb()
    }

    /// Writes data: as JSON, or as the text that `for_people` makes of it.
    pub(crate) fn show<T: Serialize + ?Sized>(self, value: &T, for_people: impl FnOnce(&T) -> String) {
        match self.format {
            // Our own rows and payloads, which always serialise.
            Format::Json => line(&serde_json::to_string_pretty(value).unwrap_or_default()),
            Format::Table => line(&for_people(value)),
        }
    }

    /// Paints a text where colours are welcome.
    pub(crate) fn paint(self, color: Color, text: &str) -> String {
        if self.is_colored { format!("\x1b[{}m{text}\x1b[0m", color as u8) } else { text.to_owned() }
    }
}

/// The colours in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Color {
    Dim = 2,
    Red = 31,
    Green = 32,
    Yellow = 33,
    Blue = 34,
}

/// Writes one piece of data. A reader that went away (`| head`) ends the program quietly; data that is lost otherwise is a failure.
pub(crate) fn line(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(text.trim_end_matches('\n').as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush());
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            talk(format!("error[internal]: cannot write to stdout: {error}; what is there is not whole"));
            std::process::exit(1);
        }
    }
}

/// Tells people something. Where nobody can hear it, the exit code still speaks.
pub(crate) fn talk(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{}", escape(&text.to_string(), |c| c == '\n'));
}

/// Makes a text that somebody else wrote safe to show: what would move the cursor, change colours or turn the direction of reading is
/// written as an escape.
pub(crate) fn plain(text: &str) -> String {
    escape(text, |_| false)
}

fn escape(text: &str, is_welcome: impl Fn(char) -> bool) -> String {
    const TURNS: [std::ops::RangeInclusive<char>; 2] = ['\u{202a}'..='\u{202e}', '\u{2066}'..='\u{2069}'];
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if !is_welcome(c) && (c.is_control() || TURNS.iter().any(|turns| turns.contains(&c))) {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Lays out a table; `nothing` is said where there are no rows.
pub(crate) fn table(head: &[&str], rows: Vec<Vec<String>>, nothing: &str) -> String {
    if rows.is_empty() {
        return nothing.to_owned();
    }
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(head.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    trim_lines(&table.to_string())
}

fn trim_lines(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Writes a time of the database, to the second.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Writes a time of the database, to the millisecond.
pub(crate) fn precise_time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Writes a duration in milliseconds: `120 ms`, `2.1 s`, `3 m 05 s`, `2 h 10 m`.
pub(crate) fn elapsed(ms: i64) -> String {
    let ms = ms.max(0);
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} m {:02} s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{} h {:02} m", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// Writes a duration.
pub(crate) fn duration(duration: Duration) -> String {
    elapsed(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

/// Writes a number of things: `1 step`, `4 steps`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Writes what may be absent.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Takes the message out of a stored error, on one line.
pub(crate) fn error_message(error: &Payload) -> String {
    let part = |name: &str| error.at(&[name]).and_then(|text| text.to::<String>().ok()).filter(|text| !text.is_empty());
    let message = part("message").unwrap_or_else(|| error.get().to_owned());
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    plain(&match part("code") {
        Some(code) => format!("{code}: {message}"),
        None => message,
    })
}

/// Cuts a text to so many characters.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_at_a_glance() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (2_150, "2.1 s"),
            (65_000, "1 m 05 s"),
            (7_800_000, "2 h 10 m"),
            (-5, "0 ms"),
        ] {
            assert_eq!(elapsed(ms), text);
        }
    }

    #[test]
    fn a_stored_error_becomes_one_line() {
        let error =
            Payload::parse(r#"{"kind":"permanent","code":"CARD_DECLINED","message":"no\n money"}"#).expect("JSON");
        assert_eq!(error_message(&error), "CARD_DECLINED: no money");
        assert_eq!(error_message(&Payload::parse("17").expect("JSON")), "17");
    }

    #[test]
    fn what_others_wrote_does_not_rule_the_terminal() {
        assert_eq!(plain("a\x1b[31mb\nc\u{202e}d\u{7f}"), "a\\u{1b}[31mb\\nc\\u{202e}d\\u{7f}");
        assert_eq!(plain("größer 😀 \u{20000} \u{10ffff} שלום"), "größer 😀 \u{20000} \u{10ffff} שלום");
        let rows = table(&["key"], vec![vec!["two\nlines".to_owned()]], "");
        assert_eq!(rows, "KEY\ntwo\\nlines");
    }

    #[test]
    fn a_text_is_cut_at_characters() {
        assert_eq!(shorten("größer", 6), "größer");
        assert_eq!(shorten("größeres", 6), "größe…");
    }
}
