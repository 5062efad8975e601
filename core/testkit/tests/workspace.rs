//! The shape of the workspace itself: which crate may depend on which, and how long a file may be.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// What each crate of ours may be built on, beside nothing. Tests may use the test kit.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("tasker-model", &[][..]),
        ("tasker-postgres", &[]),
        ("tasker-macros", &[]),
        ("tasker-testkit", &["tasker-postgres"]),
        ("tasker-engine", &["tasker-model"]),
        ("tasker-worker", &["tasker-engine", "tasker-model"]),
        ("tasker", &["tasker-engine", "tasker-macros", "tasker-model", "tasker-worker"]),
        ("tasker-bench", &["tasker", "tasker-engine", "tasker-postgres"]),
        ("tasker-cli", &["tasker-engine", "tasker-model", "tasker-postgres"]),
        ("tasker-faults", &["tasker"]),
        ("tasker-scenarios", &[]),
    ])
}

#[test]
fn dependencies_point_one_way() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut seen = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let needs = package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null());
        let ours: Vec<&str> =
            needs.filter_map(|d| d["name"].as_str()).filter(|n| *n == "tasker" || n.starts_with("tasker-")).collect();
        if name.starts_with("example-") {
            assert!(!ours.contains(&"tasker-cli"), "{name} depends on the command line");
            continue;
        }
        let allowed = allowed();
        let list = allowed.get(name).unwrap_or_else(|| panic!("say in this test what {name} may depend on"));
        for need in ours {
            assert!(list.contains(&need), "{name} may not depend on {need}");
        }
        seen += 1;
    }
    assert_eq!(seen, allowed().len());
}

#[test]
fn no_rust_file_is_longer_than_500_lines() {
    let mut open = ["benches", "core", "examples"].map(|part| root().join(part)).to_vec();
    let mut files = 0;
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "target" {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let lines = std::fs::read_to_string(&path).unwrap().lines().count();
                assert!(lines <= 500, "{} has {lines} lines: split it", path.display());
                files += 1;
            }
        }
    }
    assert!(files > 50, "only {files} files were found");
}
