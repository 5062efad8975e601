//! The graph of a definition: what waits for what, and in which order the steps are numbered.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use petgraph::{
    algo::{tarjan_scc, toposort},
    graph::{DiGraph, NodeIndex},
};

use crate::{
    definition::Definition,
    diagnostic::{
        Code, Diagnostic,
        suggest::{SUGGESTIONS, did_you_mean},
    },
};

/// The steps in their numbering. A step's number, its `idx`, is its position here: first by level, then by name, so
/// that it is topological and does not depend on the order in which the steps were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// The names by `idx`.
    pub names: Vec<String>,
    /// The parents of each step, ascending.
    pub parents: Vec<Vec<i32>>,
    /// The children of each step, ascending.
    pub children: Vec<Vec<i32>>,
    /// The level of each step: the number of edges on the longest way to it.
    pub levels: Vec<usize>,
}

impl Graph {
    /// Builds the graph, or reports every unknown step, every step that depends on itself and every cycle.
    pub fn build(definition: &Definition) -> Result<Self, Vec<Diagnostic>> {
        let by_name: HashMap<&str, usize> =
            definition.steps.iter().enumerate().map(|(at, step)| (step.name.as_str(), at)).collect();
        let mut problems = Vec::new();
        let mut edges = DiGraph::<usize, ()>::new();
        for at in 0..definition.steps.len() {
            edges.add_node(at);
        }
        for (at, step) in definition.steps.iter().enumerate() {
            for (place, parent) in mentions(definition, at) {
                match by_name.get(parent) {
                    Some(found) if *found == at => problems.push(
                        Diagnostic::error(Code::SelfDependency, place, format!("step `{parent}` depends on itself"))
                            .help("name another step, or remove this"),
                    ),
                    Some(found) => {
                        edges.update_edge(NodeIndex::new(*found), NodeIndex::new(at), ());
                    }
                    None => {
                        let others =
                            definition.steps.iter().map(|other| other.name.as_str()).filter(|name| *name != step.name);
                        let help = (problems.len() < SUGGESTIONS).then(|| did_you_mean(parent, others)).flatten();
                        problems.push(
                            Diagnostic::error(
                                Code::UnknownStep,
                                place,
                                format!("step `{}` depends on `{parent}`, which does not exist", step.name),
                            )
                            .maybe_help(help),
                        );
                    }
                }
            }
        }
        problems.extend(cycles(definition, &edges));
        // Without cycles there is an order; with them the problems say so.
        match toposort(&edges, None) {
            Ok(order) if problems.is_empty() => Ok(number(definition, &edges, &order)),
            _ => Err(problems),
        }
    }

    /// Returns the `idx` of the named step.
    pub fn idx(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|candidate| candidate == name)
    }

    /// Returns the steps that nothing waits for.
    pub fn sinks(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.names.len()).filter(|idx| self.children[*idx].is_empty())
    }
}

/// Returns each mention of another step in a step, with its place in the definition.
fn mentions(definition: &Definition, at: usize) -> impl Iterator<Item = (String, &str)> {
    let step = &definition.steps[at];
    let with = step
        .with
        .iter()
        .filter_map(|(param, source)| Some((format!("steps.{}.with.{param}", step.name), source.step_name()?)));
    let after =
        step.after.iter().enumerate().map(|(at, name)| (format!("steps.{}.after.{at}", step.name), name.as_str()));
    let until = step.until_step().map(|name| (format!("steps.{}.wait.until", step.name), name));
    let list = step.list_step().map(|name| (format!("steps.{}.map", step.name), name));
    with.chain(after).chain(until).chain(list)
}

/// Reports each set of steps that wait for each other, at the first mention that closes it.
fn cycles(definition: &Definition, edges: &DiGraph<usize, ()>) -> Vec<Diagnostic> {
    let knots = tarjan_scc(edges).into_iter().filter(|members| members.len() > 1);
    knots
        .map(|members| {
            let mut members: Vec<usize> = members.into_iter().map(NodeIndex::index).collect();
            members.sort_unstable();
            let name = |at: usize| definition.steps[at].name.as_str();
            let by_name: HashMap<&str, usize> = members.iter().map(|at| (name(*at), *at)).collect();
            let parent_in_knot = |at: usize| {
                mentions(definition, at)
                    .filter_map(|(place, parent)| Some((place, *by_name.get(parent)?)))
                    .find(|(_, parent)| *parent != at)
            };
            // Walk from the first member to parents until one comes again; that loop is the cycle to show.
            let mut walk = vec![members[0]];
            let mut first = 0;
            while let Some((_, next)) = walk.last().and_then(|at| parent_in_knot(*at)) {
                if let Some(seen) = walk.iter().position(|at| *at == next) {
                    first = seen;
                    break;
                }
                walk.push(next);
            }
            let mut shown: Vec<&str> = walk[first..].iter().rev().map(|at| name(*at)).collect();
            let start = shown.iter().enumerate().min_by_key(|(_, name)| **name).map_or(0, |(at, _)| at);
            shown.rotate_left(start);
            shown.push(shown[0]);
            let mut message = format!("these steps wait for each other: {}", shown.join(" -> "));
            let in_cycle: HashSet<&str> = shown.iter().copied().collect();
            let rest: Vec<&str> = members.iter().map(|at| name(*at)).filter(|name| !in_cycle.contains(name)).collect();
            if !rest.is_empty() {
                let _ = write!(message, ", together with {}", rest.join(", "));
            }
            let place = parent_in_knot(members[0]).map_or_else(String::new, |(place, _)| place);
            Diagnostic::error(Code::Cycle, place, message).help("remove one of these edges")
        })
        .collect()
}

fn number(definition: &Definition, edges: &DiGraph<usize, ()>, order: &[NodeIndex]) -> Graph {
    let count = definition.steps.len();
    let mut level = vec![0_usize; count];
    for node in order {
        for child in edges.neighbors(*node) {
            level[child.index()] = level[child.index()].max(level[node.index()] + 1);
        }
    }
    let mut numbered: Vec<usize> = (0..count).collect();
    numbered.sort_by(|a, b| (level[*a], &definition.steps[*a].name).cmp(&(level[*b], &definition.steps[*b].name)));
    let mut idx = vec![0_i32; count];
    for (position, at) in (0_i32..).zip(&numbered) {
        idx[*at] = position;
    }
    let neighbours = |at: &usize, direction| {
        let mut found: Vec<i32> =
            edges.neighbors_directed(NodeIndex::new(*at), direction).map(|node| idx[node.index()]).collect();
        found.sort_unstable();
        found
    };
    Graph {
        names: numbered.iter().map(|at| definition.steps[*at].name.clone()).collect(),
        parents: numbered.iter().map(|at| neighbours(at, petgraph::Incoming)).collect(),
        children: numbered.iter().map(|at| neighbours(at, petgraph::Outgoing)).collect(),
        levels: numbered.iter().map(|at| level[*at]).collect(),
    }
}
