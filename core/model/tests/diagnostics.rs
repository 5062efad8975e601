//! Every definition in `tests/diagnostics` is reported exactly as its `.expected` file says.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashSet, fs, path::PathBuf};

use tasker_model::{
    Signatures,
    diagnostic::Code,
    limits::DEFINITION_BYTES,
    parse::{lint, parse},
};

fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/diagnostics"))
}

fn signatures() -> Signatures {
    let text = fs::read_to_string(directory().join("handlers.json")).unwrap();
    Signatures::from_json(&text).unwrap()
}

fn definitions() -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
        .collect()
}

#[test]
fn every_definition_is_reported_as_expected() {
    let signatures = signatures();
    let mut wrong = Vec::new();
    let mut seen = HashSet::new();
    let definitions = definitions();
    for (name, text) in &definitions {
        let report = lint(text, &format!("{name}.yaml"), Some(&signatures));
        let found: Vec<String> =
            report.diagnostics.iter().map(|d| format!("{}:{}:{}", d.line, d.column, d.code)).collect();
        let expected = fs::read_to_string(directory().join(format!("{name}.expected"))).unwrap();
        let expected: Vec<&str> = expected.lines().collect();
        if found != expected {
            wrong.push(format!("{name}: expected {expected:?}\n{report}"));
        }
        seen.extend(report.diagnostics.iter().map(|d| d.code));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(definitions.len() >= 45);
    for code in Code::ALL {
        assert!(seen.contains(code), "{code} is in no example");
    }
}

#[test]
fn every_report_can_be_drawn() {
    let signatures = signatures();
    for (name, text) in definitions() {
        let report = lint(&text, &format!("{name}.yaml"), Some(&signatures));
        let drawn = report.render(false);
        for diagnostic in &report.diagnostics {
            assert!(drawn.contains(diagnostic.code.as_str()), "{name}:\n{drawn}");
        }
        assert!(!drawn.contains('\u{1b}'), "{name} is coloured");
        assert_eq!(report.short().lines().count(), report.diagnostics.len(), "{name}");
    }
}

#[test]
fn the_right_spelling_is_suggested() {
    let signatures = signatures();
    let helps = |name: &str| {
        let text = fs::read_to_string(directory().join(format!("{name}.yaml"))).unwrap();
        let report = lint(&text, "orders.yaml", Some(&signatures));
        report.diagnostics.into_iter().filter_map(|d| d.help).collect::<Vec<_>>().join("; ")
    };
    for (name, spelling) in [
        ("unknown_workflow_key", "did you mean `namespace`?"),
        ("unknown_step_key", "did you mean `timeout`?"),
        ("foreign_step_keys", "did you mean `after`?"),
        ("unknown_step_in_after", "did you mean `validate`?"),
        ("unknown_handler", "did you mean `orders.confirm`?"),
        ("unknown_parameter", "did you mean `items`?"),
        ("unbound_parameter", "with: { total: validate.total }"),
        ("unbound_same_name_as_step", "with: { items: items }"),
        ("result_field_unknown", "did you mean `items`?"),
        ("input_field_unknown", "did you mean `email`?"),
        ("duration_without_unit", "`30s` or `30ms`"),
        ("bad_step_name", "write `charge_payment`"),
        ("version_is_a_number", "\"2.0\""),
        ("step_as_text", "a: { call: orders.confirm }"),
        ("syntax_tab", "spaces"),
    ] {
        assert!(helps(name).contains(spelling), "{name}: {}", helps(name));
    }
}

#[test]
fn a_file_beyond_the_limit_is_refused_without_being_read() {
    let text = format!("name: orders\n# {}\n", "x".repeat(DEFINITION_BYTES));
    let report = parse(&text, "big.yaml").unwrap_err();
    assert!(report.short().starts_with("big.yaml:1:1: error[TSK0111]: the file has "), "{report}");
    assert!(report.source.is_empty());
    assert_eq!(report.diagnostics[0].code, Code::TooLarge);
    assert!(report.render(false).contains("TSK0111"));
}

#[test]
fn hostile_text_is_refused_in_good_time() {
    let deep = format!("name: orders\nsteps: {}", "{a: ".repeat(200_000));
    let steps = |count: usize, parent: fn(usize) -> String| {
        let lines = (0..count).map(|at| format!("  s{at}: {{ call: a, after: [{}] }}", parent(at)));
        format!("name: a\nsteps:\n{}\n", lines.collect::<Vec<_>>().join("\n"))
    };
    let unknown = steps(2_000, |at| format!("x{at}"));
    let too_many = steps(20_000, |at| format!("x{at}"));
    let ring = steps(2_000, |at| format!("s{}", (at + 1) % 2_000));
    for text in [deep, unknown, too_many, ring] {
        let started = std::time::Instant::now();
        assert!(parse(&text, "hostile.yaml").is_err());
        assert!(started.elapsed().as_secs() < 10, "{:?} for {}", started.elapsed(), &text[..60]);
    }
}

#[test]
fn each_code_is_explained() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors/README.md");
    let page = fs::read_to_string(path).unwrap();
    for code in Code::ALL {
        assert!(
            page.contains(&format!("| [{code}](#{}) | {} |", code.as_str().to_lowercase(), code.title())),
            "{code} has no row"
        );
        let (_, section) = page.split_once(&format!("## {code}\n")).unwrap_or_else(|| panic!("{code} has no section"));
        let section = section.split("\n## ").next().unwrap();
        assert!(section.contains("Wrong:") && section.contains("Right:"), "{code} has no example");
    }
    let explained = page.lines().filter(|line| line.starts_with("## TSK")).count();
    assert_eq!(explained, Code::ALL.len(), "a section explains a code that is gone");
}
