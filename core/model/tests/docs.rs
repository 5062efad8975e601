//! The YAML in the documentation is what it says it is.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use tasker_model::parse;

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)).unwrap()
}

/// The fenced YAML blocks of a page, each with the line before its fence.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut before = "";
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line == "```yaml" {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push((before.to_owned(), block.join("\n") + "\n"));
        }
        before = line;
    }
    found
}

#[test]
fn the_workflows_of_the_guide_are_right() {
    let found = blocks(&page("workflows.md"));
    assert!(found.len() >= 2);
    for (_, yaml) in found {
        let definition =
            parse::parse(&yaml, "workflows.md").unwrap_or_else(|report| panic!("{}", report.render(false)));
        tasker_model::Revision::compile(definition).unwrap();
    }
}

/// The pairs of docs/errors show only the lines that matter, so only whole definitions among them can be read.
#[test]
fn the_right_ways_of_the_error_page_are_yaml_and_whole_definitions_are_right() {
    let found = blocks(&page("errors/README.md"));
    let right: Vec<_> = found.iter().filter(|(before, _)| before == "Right:").collect();
    assert!(right.len() >= 20);
    for (_, yaml) in right {
        let report = parse::lint(yaml, "errors/README.md", None);
        let is_whole = yaml.starts_with("name:") && yaml.contains("\nsteps:");
        let mistakes: Vec<String> = report.diagnostics.iter().map(|d| d.code.to_string()).collect();
        assert!(!mistakes.iter().any(|code| code == "TSK0101"), "not YAML:\n{yaml}");
        assert!(!is_whole || mistakes.is_empty(), "{}", report.render(false));
    }
}
