//! The gate for users' JSON: one pass over the text, no tree.
//!
//! What passes is accepted by PostgreSQL's `jsonb` and read by all four languages without loss.

use crate::{
    error::{Error, ErrorKind, Result},
    limits::{EXPONENT, NESTING},
};

/// Refuses text that is not one JSON value, or that could not be stored and read everywhere.
///
/// Checked: size in bytes, syntax, nesting, NUL, lone surrogates, the range of numbers. `kind` is the kind of the
/// error, `what` its subject ("the input"); the message names the place as a JSON pointer and the remedy.
pub fn check_payload(kind: ErrorKind, text: &str, limit: usize, what: &str) -> Result<()> {
    if text.len() > limit {
        return Err(Error::new(
            kind,
            format!(
                "{what} has {} bytes, the limit is {limit}; store large data elsewhere and pass a reference",
                text.len()
            ),
        )
        .with("bytes", text.len()));
    }
    let mut scan = Scan { text: text.as_bytes(), at: 0, path: Vec::new() };
    scan.document().map_err(|complaint| {
        let place = scan.pointer();
        let place = if place.is_empty() { "the top".to_owned() } else { format!("`{place}`") };
        Error::new(kind, format!("{what} is refused at {place} (byte {}): {complaint}", scan.at))
            .with("pointer", scan.pointer())
            .with("byte", scan.at)
    })
}

type Step = std::result::Result<(), &'static str>;

enum Segment {
    /// Where the key's text lies, between its quotes.
    Key(usize, usize),
    Position(usize),
}

struct Scan<'t> {
    text: &'t [u8],
    at: usize,
    path: Vec<Segment>,
}

impl Scan<'_> {
    fn document(&mut self) -> Step {
        self.space();
        self.value()?;
        self.space();
        if self.at < self.text.len() { Err("something follows the JSON value; send exactly one value") } else { Ok(()) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Step {
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(0) => Err("a NUL character is no JSON; remove it"),
            Some(0xef) if self.text[self.at..].starts_with(b"\xef\xbb\xbf") => {
                Err("a byte order mark is no JSON; save the text as UTF-8 without it")
            }
            Some(_) => Err("a JSON value is expected here (NaN, Infinity and comments are not JSON)"),
            None => Err("the text ends before the value does; send it whole"),
        }
    }

    fn word(&mut self, word: &str) -> Step {
        if !self.text[self.at..].starts_with(word.as_bytes()) {
            return Err("only true, false and null may stand without quotes");
        }
        self.at += word.len();
        Ok(())
    }

    fn enter(&mut self, segment: Segment) -> Step {
        if self.path.len() == NESTING {
            return Err("it is nested deeper than 64 levels; flatten it");
        }
        self.path.push(segment);
        Ok(())
    }

    fn object(&mut self) -> Step {
        self.at += 1;
        // The level counts though it may be empty, hence a segment before the first key is known.
        self.enter(Segment::Key(0, 0))?;
        self.space();
        if !self.take(b'}') {
            loop {
                self.space();
                if self.peek() != Some(b'"') {
                    return Err("a key in double quotes is expected here");
                }
                let start = self.at + 1;
                self.string()?;
                if let Some(last) = self.path.last_mut() {
                    *last = Segment::Key(start, self.at - 1);
                }
                self.space();
                if !self.take(b':') {
                    return Err("a colon is expected after the key");
                }
                self.space();
                self.value()?;
                self.space();
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return Err("a comma or the closing brace is expected here");
                }
            }
        }
        self.path.pop();
        Ok(())
    }

    fn array(&mut self) -> Step {
        self.at += 1;
        self.enter(Segment::Position(0))?;
        self.space();
        if !self.take(b']') {
            loop {
                self.space();
                self.value()?;
                self.space();
                if self.take(b']') {
                    break;
                }
                if !self.take(b',') {
                    return Err("a comma or the closing bracket is expected here");
                }
                if let Some(Segment::Position(position)) = self.path.last_mut() {
                    *position += 1;
                }
            }
        }
        self.path.pop();
        Ok(())
    }

    fn string(&mut self) -> Step {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(0) => return Err("a NUL character cannot be stored by PostgreSQL; remove it"),
                Some(0..=0x1f) => {
                    return Err("a control character must be escaped within a string");
                }
                Some(_) => self.at += 1,
                None => return Err("the text ends within a string; send it whole"),
            }
        }
    }

    fn escape(&mut self) -> Step {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => match self.unit(self.at)? {
                0 => Err("\\u0000 cannot be stored by PostgreSQL; remove it"),
                0xd800..=0xdbff => {
                    let is_pair = self.text[self.at + 6..].starts_with(b"\\u")
                        && (0xdc00..=0xdfff).contains(&self.unit(self.at + 6)?);
                    if !is_pair {
                        return Err("a lone surrogate is no character; send the pair, or the character itself");
                    }
                    self.at += 12;
                    Ok(())
                }
                0xdc00..=0xdfff => Err("a lone surrogate is no character; send the pair, or the character itself"),
                _ => {
                    self.at += 6;
                    Ok(())
                }
            },
            _ => Err("this escape is not JSON's"),
        }
    }

    /// Reads the four digits of the `\u` escape that begins at `start`.
    fn unit(&self, start: usize) -> std::result::Result<u16, &'static str> {
        let digits = self.text.get(start + 2..start + 6).unwrap_or_default();
        if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err("\\u needs four hexadecimal digits");
        }
        std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| u16::from_str_radix(digits, 16).ok())
            .ok_or("\\u needs four hexadecimal digits")
    }

    fn digits(&mut self) -> Step {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err("a digit is expected here") } else { Ok(()) }
    }

    fn number(&mut self) -> Step {
        const RANGE: &str =
            "the number lies outside the range of a double (about 1e-308 to 1e308); send it as a string";
        let start = self.at;
        self.take(b'-');
        if self.take(b'0') {
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err("a number must not begin with 0; remove it, or send a string");
            }
        } else {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        let mantissa = start..self.at;
        let mut exponent = 0_i64;
        if self.take(b'e') || self.take(b'E') {
            let from = self.at;
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
            exponent = self.ascii(from..self.at).parse().unwrap_or(i64::MAX);
        }
        let end = self.at;
        self.at = start;
        if exponent.abs() > EXPONENT {
            return Err(RANGE);
        }
        // Short numbers with a small exponent cannot leave the range: most numbers are not parsed at all.
        if end - start > 200 || exponent.abs() > 100 {
            let is_zero = self.text[mantissa].iter().all(|byte| !matches!(byte, b'1'..=b'9'));
            let value: f64 = self.ascii(start..end).parse().unwrap_or(f64::INFINITY);
            if value.is_infinite() || (value == 0.0 && !is_zero) {
                return Err(RANGE);
            }
        }
        self.at = end;
        Ok(())
    }

    fn ascii(&self, range: std::ops::Range<usize>) -> &str {
        std::str::from_utf8(&self.text[range]).unwrap_or_default()
    }

    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for segment in &self.path {
            pointer.push('/');
            match segment {
                Segment::Key(start, end) => {
                    let key = String::from_utf8_lossy(&self.text[*start..*end]);
                    pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
                }
                Segment::Position(position) => pointer.push_str(&position.to_string()),
            }
        }
        pointer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<()> {
        check_payload(ErrorKind::InputInvalid, text, 256 * 1024, "the input")
    }

    fn refusal(text: &str) -> String {
        check(text).unwrap_err().message
    }

    #[test]
    fn what_every_language_reads_passes() {
        for text in [
            "null",
            " [ ] ",
            "{}",
            r#"{"a":[1,-0,0.5,1.10,1e308,1E-308,0e0]}"#,
            r#""\ud83d\ude00 \n \/ \u0001 é""#,
            "1234567890123456789012345678901234567890",
            "9007199254740993",
            "0.0",
            "-1.5e+3",
        ] {
            assert!(check(text).is_ok(), "{text}: {}", refusal(text));
        }
        assert!(check(&format!("{}{}", "[".repeat(64), "]".repeat(64))).is_ok());
        assert!(check(&format!("0.{}", "0".repeat(500))).is_ok());
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            " ",
            "nul",
            "NaN",
            "Infinity",
            "+1",
            "01",
            "1.",
            ".5",
            "1e",
            "'a'",
            "[1,]",
            "{,}",
            "{\"a\":1,}",
            "{a:1}",
            "[1 2]",
            "\"\n\"",
            r#""\x""#,
            r#""\u12""#,
            "1 1",
            "{\"a\" 1}",
            "[",
            "{",
            "\"a",
            "// a\n1",
            "\u{feff}1",
        ] {
            assert!(check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_the_database_cannot_hold_is_refused_with_its_place() {
        assert!(refusal(r#"{"a":[0,{"b/c":"x\u0000"}]}"#).contains("`/a/1/b~1c`"));
        assert!(refusal(r#"{"a":"\ud800"}"#).contains("surrogate"));
        assert!(refusal(r#""\ud800\u0041""#).contains("surrogate"));
        assert!(refusal(r#""\udc00""#).contains("surrogate"));
        assert!(refusal("\"a\0b\"").contains("NUL"));
        for number in ["1e309", "1e400", "-1e400", "1e-309", "9.9e308", "1e99999999999999999999"] {
            assert!(refusal(number).contains("range"), "{number}");
        }
        assert!(refusal(&"9".repeat(400)).contains("range"));
        assert!(refusal(&format!("0.{}1", "0".repeat(400))).contains("range"));
        assert!(refusal(&format!("{}{}", "[".repeat(65), "]".repeat(65))).contains("64"));
        assert!(refusal(&"[".repeat(100_000)).contains("64"));
    }

    #[test]
    fn an_invisible_byte_order_mark_is_named() {
        assert!(refusal("\u{feff}{}").contains("byte order mark"));
    }

    #[test]
    fn the_size_is_counted_in_bytes() {
        assert!(check_payload(ErrorKind::ResultRejected, "\"éé\"", 6, "the result").is_ok());
        let error = check_payload(ErrorKind::ResultRejected, "\"ééé\"", 6, "the result").unwrap_err();
        assert_eq!(error.kind, ErrorKind::ResultRejected);
        assert!(error.message.starts_with("the result has 8 bytes, the limit is 6"), "{error}");
    }
}
