//! The Rust in the repository's README is this example's own.

use std::path::Path;

#[test]
fn the_readmes_snippets_are_lines_of_this_example() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(here.join("../../README.md")).unwrap();
    let source =
        ["src/workflow.rs", "src/placing.rs"].map(|file| std::fs::read_to_string(here.join(file)).unwrap()).concat();
    let known: Vec<&str> = source.lines().map(str::trim).collect();
    let mut checked = 0;
    for block in readme.split("```rust\n").skip(1) {
        for line in block.split("```").next().unwrap().lines().map(str::trim).filter(|line| !line.is_empty()) {
            assert!(known.contains(&line), "README.md shows a line that this example has not: {line}");
            checked += 1;
        }
    }
    assert!(checked > 15, "only {checked} lines were found");
}
