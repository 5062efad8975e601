//! The figures of a run: a table for people, a file for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::budgets;
use crate::clock;
use crate::machine::Machine;
use crate::samples::Samples;

/// A table beside the figures, such as one line for each number of processes.
#[derive(Debug, Serialize)]
struct Extra {
    title: &'static str,
    head: Vec<String>,
    lines: Vec<Vec<String>>,
}

/// Everything that one run found out. Serialised as `latest.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    date: String,
    is_quick: bool,
    machine: Machine,
    settings: BTreeMap<String, String>,
    /// By the keys that RESULTS.md explains.
    figures: BTreeMap<&'static str, f64>,
    tables: Vec<Extra>,
    /// What was measured, in the order of measuring.
    samples: BTreeMap<String, Vec<f64>>,
}

impl Report {
    pub(crate) fn new(machine: Machine, settings: Vec<(String, String)>, is_quick: bool) -> Self {
        Self {
            date: clock::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            is_quick,
            machine,
            settings: settings.into_iter().collect(),
            figures: BTreeMap::new(),
            tables: Vec::new(),
            samples: BTreeMap::new(),
        }
    }

    /// Keeps a figure, and prints it at once: a run takes long, and may be ended early.
    pub(crate) fn figure(&mut self, key: &'static str, value: f64) {
        println!("  {key} = {}", show(value));
        self.figures.insert(key, value);
    }

    pub(crate) fn samples(&mut self, name: impl Into<String>, samples: &Samples) {
        self.samples.insert(name.into(), samples.values().to_vec());
    }

    pub(crate) fn table(&mut self, title: &'static str, head: &[&str], lines: Vec<Vec<String>>) {
        self.tables.push(Extra { title, head: head.iter().map(|&name| name.to_owned()).collect(), lines });
    }

    /// Writes the file, with its directory where that is missing.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        let text = serde_json::to_string_pretty(self)?;
        fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for extra in &self.tables {
            writeln!(f, "{}\n{}\n", extra.title, table(&extra.head, &extra.lines))?;
        }
        let head = ["figure", "value", "budget", "verdict"].map(str::to_owned);
        let lines: Vec<Vec<String>> = self
            .figures
            .iter()
            .map(|(key, value)| {
                let (budget, verdict) = match budgets::of(key) {
                    Some(budget) if self.is_quick => (budget.to_string(), "quick: none"),
                    Some(budget) => (budget.to_string(), if budget.is_met(*value) { "met" } else { "MISSED" }),
                    None => (String::new(), ""),
                };
                vec![(*key).to_owned(), show(*value), budget, verdict.to_owned()]
            })
            .collect();
        write!(f, "{}", table(&head, &lines))
    }
}

fn table(head: &[String], rows: &[Vec<String>]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(head).add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Three significant digits where there are decimals, whole numbers from a hundred on.
pub(crate) fn show(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
