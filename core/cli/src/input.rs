//! The input of a task, from a file, stdin, JSON or single fields. It stays text: no number is read.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::value::RawValue;
use tasker_model::limits::INPUT_BYTES;
use tasker_model::payload::check_payload;
use tasker_model::{Error, ErrorKind, Payload};

use crate::failure::{Outcome, file_error, invalid};

/// Reads `--input` and applies each `--set`. An object; `{}` where nothing is given.
pub(crate) fn read_input(input: Option<&str>, set: &[String]) -> Outcome<Payload> {
    let text = match input {
        None => "{}".to_owned(),
        Some("-") => read_limited(std::io::stdin().lock(), "stdin")?,
        Some(json) if json.trim_start().starts_with('{') => json.to_owned(),
        Some(path) => read_file(Path::new(path.strip_prefix('@').unwrap_or(path)))?,
    };
    check_payload(ErrorKind::InputInvalid, &text, INPUT_BYTES, "the input")?;
    let mut input = Payload::parse(&text)?;
    for assignment in set {
        let (field, value) = split(assignment, "--set")?;
        let path: Vec<&str> = field.split('.').collect();
        if path.contains(&"") {
            return Err(invalid(format!("--set {field}: a name is missing at a dot; write a.b=value")));
        }
        let root = RawValue::from_string(input.get().to_owned())
            .map_err(|error| invalid(format!("the input is not JSON: {error}")))?;
        input = assign(&root, &path, &value_of(value), field)?.into();
    }
    Ok(input)
}

/// Reads `--payload`: any JSON, `@file` or `-` for stdin; null where nothing is given.
pub(crate) fn read_payload(payload: Option<&str>) -> Outcome<Payload> {
    let text = match payload {
        None => "null".to_owned(),
        Some("-") => read_limited(std::io::stdin().lock(), "stdin")?,
        Some(text) => match text.strip_prefix('@') {
            Some(path) => read_file(Path::new(path))?,
            None => text.to_owned(),
        },
    };
    Payload::parse(&text).map_err(|error| {
        invalid(format!("--payload: {}; write JSON, for example '{{\"approved\": true}}', or @file", error.message))
    })
}

/// Reads `name=value` pairs as an object; none where there are none.
pub(crate) fn read_tags(pairs: &[String]) -> Outcome<Option<Payload>> {
    let mut tags: BTreeMap<&str, Box<RawValue>> = BTreeMap::new();
    for pair in pairs {
        let (name, value) = split(pair, "--tag")?;
        tags.insert(name, value_of(value));
    }
    if tags.is_empty() {
        return Ok(None);
    }
    Ok(Some(Payload::from_value(&tags)?))
}

fn read_file(path: &Path) -> Outcome<String> {
    let file = std::fs::File::open(path).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            let message = format!(
                "there is no input file {}; give a file, `-` for stdin, or JSON that begins with {{",
                path.display()
            );
            return Error::new(ErrorKind::NotFound, message).caused_by(error).into();
        }
        file_error("cannot read", path, error)
    })?;
    read_limited(file, &path.display().to_string())
}

/// Reads no more than an input may have, so that a wrong file cannot fill the memory.
fn read_limited(from: impl Read, name: &str) -> Outcome<String> {
    let mut bytes = Vec::new();
    let limit = INPUT_BYTES as u64 + 1;
    from.take(limit).read_to_end(&mut bytes).map_err(|error| invalid(format!("cannot read {name}: {error}")))?;
    if bytes.len() > INPUT_BYTES {
        let message = format!(
            "the input in {name} has more than {INPUT_BYTES} bytes; store the data elsewhere and pass a reference to it"
        );
        return Err(Error::new(ErrorKind::InputInvalid, message).into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let message = format!("the input in {name} is not UTF-8: {error}");
        Error::new(ErrorKind::InputInvalid, message).into()
    })
}

fn split<'a>(pair: &'a str, option: &str) -> Outcome<(&'a str, &'a str)> {
    match pair.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name, value)),
        _ => Err(invalid(format!("{option} needs name=value, not `{pair}`"))),
    }
}

/// What is JSON is taken as such, all else is text.
fn value_of(text: &str) -> Box<RawValue> {
    let json = RawValue::from_string(text.to_owned());
    let json = json.or_else(|_| serde_json::value::to_raw_value(text));
    // A text always serialises.
    json.unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn assign(root: &RawValue, path: &[&str], value: &RawValue, field: &str) -> Outcome<Box<RawValue>> {
    let [first, rest @ ..] = path else {
        return Ok(value.to_owned());
    };
    let mut object: BTreeMap<String, Box<RawValue>> = serde_json::from_str(root.get())
        .map_err(|_| invalid(format!("--set {field}: `{first}` would be set in something that is no object")))?;
    let empty = RawValue::from_string("{}".to_owned()).map_err(|error| invalid(error.to_string()))?;
    let child = object.get(*first).unwrap_or(&empty);
    let changed = assign(child, rest, value, field)?;
    object.insert((*first).to_owned(), changed);
    serde_json::value::to_raw_value(&object).map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(input: &str, set: &[&str]) -> String {
        let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        read_input(Some(input), &set).expect("a good input").get().to_owned()
    }

    #[test]
    fn fields_are_set_without_touching_numbers() {
        assert_eq!(
            built(r#"{"total": 9007199254740993, "price":1.10}"#, &["name=Ada", "n=3", "deep.er=[1.50]"]),
            r#"{"deep":{"er":[1.50]},"n":3,"name":"Ada","price":1.10,"total":9007199254740993}"#
        );
        assert_eq!(built("{}", &["a={\"b\":1}", "a.c=x=y"]), r#"{"a":{"b":1,"c":"x=y"}}"#);
    }

    #[test]
    fn wrong_inputs_are_refused_with_the_reason() {
        for (input, set, says) in [
            ("{", &[][..], "a key in double quotes"),
            (r#"{"a":"\u0000"}"#, &[], "u0000"),
            (r#"{"a":1}"#, &["a.b=1"], "no object"),
            ("{}", &["novalue"], "name=value"),
            ("{}", &["a..b=1"], "a name is missing"),
            ("no/such/file.json", &[], "no input file"),
        ] {
            let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
            let failure = read_input(Some(input), &set).expect_err("refused");
            assert!(format!("{failure:?}").contains(says), "{input}: {failure:?}");
        }
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(INPUT_BYTES));
        assert!(read_input(Some(&large), &[]).is_err());
    }
}
