//! `tasker workflow graph`: a workflow's steps and edges, for the terminal, Mermaid or Graphviz.

use std::fmt::Write as _;

use serde::Serialize;
use tasker_model::wait::Wait;
use tasker_model::{Definition, Error, ErrorKind, Graph, On, StepDefinition};

use crate::args::GraphFormat;
use crate::failure::Outcome;
use crate::output::count;

/// A workflow's graph.
#[derive(Debug, Serialize)]
pub(super) struct Drawing {
    workflow: String,
    /// In topological order.
    steps: Vec<Node>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<Published>,
}

/// An event that it publishes.
#[derive(Debug, Serialize)]
struct Published {
    event: String,
    on: On,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<String>,
}

#[derive(Debug, Serialize)]
struct Node {
    name: String,
    /// Empty where it calls none.
    handler: String,
    /// What it is beside a call of its handler, or in place of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// The number of edges on the longest way to it.
    level: usize,
    parents: Vec<Edge>,
}

#[derive(Debug, Serialize)]
struct Edge {
    step: String,
    /// What travels along it, as `parameter = step.path`; nothing on an edge that only orders.
    data: Vec<String>,
    /// Whether the parent decides if the step runs at all.
    #[serde(rename = "route", skip_serializing_if = "std::ops::Not::not")]
    is_route: bool,
}

/// Says in a few words what a step is beside a call of its handler, or in place of one.
fn note(step: &StepDefinition) -> Option<String> {
    let notes = [
        step.wait.as_ref().map(Wait::summary),
        step.child.as_ref().map(|child| format!("a task of {child}")),
        // A list of another step's stands on the edge from that one.
        step.map.as_ref().filter(|list| list.step_name().is_none()).map(|list| format!("for each of {list}")),
        step.max_in_flight.map(|most| format!("{most} at a time")),
        step.batch.as_ref().map(|batch| format!("in ranges of {}, {} at a time", batch.size, batch.parallel)),
        step.undo.as_ref().map(|undo| format!("undone by {undo}")),
    ];
    let notes: Vec<String> = notes.into_iter().flatten().collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

impl Drawing {
    pub(super) fn new(definition: &Definition) -> Outcome<Self> {
        let graph = Graph::build(definition).map_err(|problems| {
            let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Error::new(ErrorKind::Invalid, list.join("; "))
        })?;
        let node = |(name, level): (&String, &usize)| {
            let step = definition.step(name)?;
            let is_route = |parent: &str| definition.step(parent).is_some_and(|parent| parent.routes.contains(name));
            let parents = step.dependencies().into_iter().map(|parent| Edge {
                step: parent.to_owned(),
                is_route: is_route(parent),
                data: step
                    .with
                    .iter()
                    .filter(|(_, source)| source.step_name() == Some(parent))
                    .map(|(param, source)| format!("{param} = {source}"))
                    .chain(
                        step.map
                            .iter()
                            .filter(|list| list.step_name() == Some(parent))
                            .map(|list| format!("each of {list}")),
                    )
                    .collect(),
            });
            Some(Node {
                name: name.clone(),
                handler: step.call.clone(),
                note: note(step),
                level: *level,
                parents: parents.collect(),
            })
        };
        Ok(Self {
            workflow: definition.reference().to_string(),
            steps: graph.names.iter().zip(&graph.levels).filter_map(node).collect(),
            events: definition
                .events
                .iter()
                .map(|(name, event)| Published { event: name.clone(), on: event.on, step: event.step.clone() })
                .collect(),
        })
    }

    pub(super) fn draw(&self, format: GraphFormat) -> String {
        match format {
            GraphFormat::Terminal => self.terminal(),
            GraphFormat::Mermaid => self.mermaid(),
            GraphFormat::Dot => self.dot(),
        }
    }

    /// One line a step, grouped by level: what stands together may run at the same time.
    fn terminal(&self) -> String {
        let width = self.steps.iter().map(|step| step.name.chars().count()).max().unwrap_or_default();
        let levels = self.steps.iter().map(|step| step.level + 1).max().unwrap_or_default();
        let mut text =
            format!("{}   {} in {}\n", self.workflow, count(self.steps.len(), "step"), count(levels, "level"));
        let mut shown = None;
        for (at, step) in self.steps.iter().enumerate() {
            let is_first = shown != Some(step.level);
            shown = Some(step.level);
            let is_last = self.steps.get(at + 1).is_none_or(|next| next.level != step.level);
            let bracket = match (is_first, is_last) {
                (true, true) => '─',
                (true, false) => '┬',
                (false, true) => '╰',
                (false, false) => '├',
            };
            let number = if is_first { (step.level + 1).to_string() } else { String::new() };
            let _ = write!(text, "{number:>3} {bracket} {:width$}", step.name);
            let parents: Vec<String> = step
                .parents
                .iter()
                .map(|edge| match (edge.data.is_empty(), edge.is_route) {
                    (true, false) => format!("after {}", edge.step),
                    (true, true) => format!("if {} says so", edge.step),
                    (false, false) => edge.data.join(", "),
                    (false, true) => format!("{} if {} says so", edge.data.join(", "), edge.step),
                })
                .collect();
            if !parents.is_empty() {
                let _ = write!(text, "   ← {}", parents.join(", "));
            }
            if let Some(note) = &step.note {
                let _ = write!(text, "   ({note})");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        for Published { event, on, step } in &self.events {
            let of = step.as_deref().unwrap_or("the task");
            let _ = writeln!(text, "    publishes {event} on {} of {of}", on.as_str());
        }
        text
    }

    fn mermaid(&self) -> String {
        let mut text = String::from("flowchart TD\n");
        for step in &self.steps {
            let (open, close) = if step.handler.is_empty() { ("([", "])") } else { ("[", "]") };
            let _ = writeln!(text, "  {0}{open}\"{0}\"{close}", step.name);
        }
        for (step, edge) in self.edges() {
            let (label, arrow) = (edge.label(), if edge.data.is_empty() { "-.->" } else { "-->" });
            let label = if label.is_empty() { label } else { format!("|{label}|") };
            let _ = writeln!(text, "  {} {arrow}{label} {}", edge.step, step.name);
        }
        text
    }

    fn dot(&self) -> String {
        let mut text = format!("digraph \"{}\" {{\n  node [shape=box];\n", self.workflow);
        for step in &self.steps {
            let shape = if step.handler.is_empty() { " [style=rounded]" } else { "" };
            let _ = writeln!(text, "  \"{}\"{shape};", step.name);
        }
        for (step, edge) in self.edges() {
            let mut style: Vec<String> = Vec::new();
            style.extend(edge.data.is_empty().then(|| "style=dashed".to_owned()));
            let label = edge.label();
            style.extend((!label.is_empty()).then(|| format!("label=\"{label}\"")));
            let _ = writeln!(text, "  \"{}\" -> \"{}\" [{}];", edge.step, step.name, style.join(", "));
        }
        text + "}\n"
    }

    fn edges(&self) -> impl Iterator<Item = (&Node, &Edge)> {
        self.steps.iter().flat_map(|step| step.parents.iter().map(move |edge| (step, edge)))
    }
}

impl Edge {
    /// The parameters alone, since paths have characters that Mermaid and Graphviz read as their own; and whether it is a choice.
    fn label(&self) -> String {
        let params = self.data.iter().filter_map(|data| data.split(' ').next());
        params.chain(self.is_route.then_some("choice")).collect::<Vec<_>>().join(", ")
    }
}
