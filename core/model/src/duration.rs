//! Durations as people write them: `30s`, `5m`, `1h30m`, `250ms`.
//!
//! A bare number is refused: whether it means seconds or milliseconds differs from tool to tool.

use std::fmt::Write as _;

/// The units, largest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration in milliseconds: whole numbers with units, largest first, each unit at most once; `0s` is none.
pub fn parse_duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    let mut allowed = &UNITS[..];
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let at = allowed.iter().position(|(unit, _)| *unit == &rest[..letters])?;
        total = total.checked_add(number.checked_mul(allowed[at].1)?)?;
        allowed = &allowed[at + 1..];
        rest = &rest[letters..];
    }
    (!text.is_empty()).then_some(total)
}

/// Writes a number of milliseconds as [`parse_duration`] reads it.
pub fn format_duration(mut ms: u64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in UNITS {
        if ms >= size {
            let _ = write!(text, "{}{unit}", ms / size);
            ms %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, ms) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("1d", 86_400_000),
            ("0s", 0),
            ("90m", 5_400_000),
        ] {
            assert_eq!(parse_duration(text), Some(ms), "{text}");
        }
        for bad in [
            "",
            "5",
            "s",
            "5 s",
            "5S",
            "-5s",
            "1.5h",
            "30m1h",
            "1s1s",
            "5sec",
            "99999999999999999999s",
            "9999999999999999d",
            "5é",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_survive_their_text() {
        for ms in [0, 1, 999, 1_000, 61_001, 5_400_000, 90_061_001] {
            assert_eq!(parse_duration(&format_duration(ms)), Some(ms));
        }
    }
}
