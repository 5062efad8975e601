//! What an unquoted word means. Numbers are JSON's; YAML's other spellings of them are refused, not guessed.

use serde_json::{Number, Value};

/// The meaning of a scalar.
#[derive(Debug, PartialEq)]
pub(super) enum Scalar<'t> {
    Text(&'t str),
    Null,
    Bool(bool),
    Number(Number),
    /// A number to YAML, but not to JSON: `0x1f`, `.5`, `+1`, `.inf`.
    Odd(&'t str),
}

impl<'t> Scalar<'t> {
    pub(super) fn of(text: &'t str, is_plain: bool) -> Self {
        if !is_plain {
            return Self::Text(text);
        }
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Self::Null,
            "true" | "True" | "TRUE" => return Self::Bool(true),
            "false" | "False" | "FALSE" => return Self::Bool(false),
            _ => {}
        }
        if let Ok(Value::Number(number)) = serde_json::from_str(text) {
            return Self::Number(number);
        }
        if is_odd_number(text) { Self::Odd(text) } else { Self::Text(text) }
    }

    /// Names what it is, for a message.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) | Self::Odd(_) => "a number",
        }
    }
}

fn is_odd_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = unsigned.to_ascii_lowercase();
    if lower == ".inf" || lower == ".nan" {
        return true;
    }
    if let Some(digits) = lower.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    if let Some(digits) = lower.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    }
    // What remains are decimals with a sign, a bare point or leading zeros; Rust reads them all.
    lower.bytes().all(|byte| byte.is_ascii_digit() || b".e+-".contains(&byte))
        && lower.contains(|c: char| c.is_ascii_digit())
        && lower.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_what_yaml_says() {
        assert_eq!(Scalar::of("~", true), Scalar::Null);
        assert_eq!(Scalar::of("~", false), Scalar::Text("~"));
        assert_eq!(Scalar::of("yes", true), Scalar::Text("yes"));
        assert_eq!(Scalar::of("True", true), Scalar::Bool(true));
        assert_eq!(Scalar::of("2.0", true).describe(), "a number");
        for odd in ["0x1F", "0o17", ".5", "1.", "+1", "-.INF", ".nan", "007", "1e400"] {
            assert_eq!(Scalar::of(odd, true), Scalar::Odd(odd));
        }
        for text in ["30s", "1.2.3", "0x", "e", "-", "v1", "2026-01-01", "orders.charge"] {
            assert_eq!(Scalar::of(text, true), Scalar::Text(text));
        }
    }
}
