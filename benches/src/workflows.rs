//! The workflows that are measured. Every step is the same function, which does nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tasker::prelude::*;

/// The steps of [`dag7`].
pub(crate) const DAG7: u64 = 7;
/// The steps of [`wide1000`].
pub(crate) const WIDE: u64 = 1_002;
/// The steps of [`chain1000`].
pub(crate) const CHAIN: u64 = 1_000;

/// What a step answers: about as much as a service that answers with an id and a state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answer {
    ok: bool,
    value: String,
}

/// Counts what ran in this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runs(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    first: OnceLock<Instant>,
    count: AtomicU64,
}

impl Runs {
    fn count(&self) {
        self.0.first.get_or_init(Instant::now);
        self.0.count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many steps ran.
    pub(crate) fn number(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// When the first one ran.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.0.first.get().copied()
    }
}

#[tasker::step]
async fn noop(State(runs): State<Runs>) -> Answer {
    runs.count();
    Answer { ok: true, value: "0123456789abcdef0123456789abcdef".to_owned() }
}

/// The input of every task.
pub(crate) fn input() -> serde_json::Value {
    serde_json::json!({ "order": 1234, "customer": "c-42" })
}

/// One step.
pub(crate) fn single() -> Workflow {
    Workflow::new("single").step(noop.named("s0"))
}

/// 0 -> {1,2}, 1 -> 3, 2 -> 4, {3,4} -> 5 -> 6.
pub(crate) fn dag7() -> Workflow {
    Workflow::new("dag7")
        .step(noop.named("s0"))
        .step(noop.named("s1").after("s0"))
        .step(noop.named("s2").after("s0"))
        .step(noop.named("s3").after("s1"))
        .step(noop.named("s4").after("s2"))
        .step(noop.named("s5").after(["s3", "s4"]))
        .step(noop.named("s6").after("s5"))
}

/// Five steps, one after the other.
pub(crate) fn chain5() -> Workflow {
    chain("chain5", 5)
}

/// A thousand steps, one after the other.
pub(crate) fn chain1000() -> Workflow {
    chain("chain1000", 1_000)
}

fn chain(name: &str, steps: usize) -> Workflow {
    let first = Workflow::new(name).step(noop.named("s0"));
    (1..steps)
        .fold(first, |workflow, at| workflow.step(noop.named(&format!("s{at}")).after(format!("s{}", at - 1).as_str())))
}

/// One step, a thousand after it, and one after all of those.
pub(crate) fn wide1000() -> Workflow {
    let names: Vec<String> = (1..=1_000).map(|at| format!("s{at}")).collect();
    let first = Workflow::new("wide1000").step(noop.named("s0"));
    let wide = names.iter().fold(first, |workflow, name| workflow.step(noop.named(name).after("s0")));
    wide.step(names.iter().fold(noop.named("last"), |last, name| last.after(name.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workflows_have_the_shapes_that_their_names_say() {
        let steps = |workflow: Workflow| workflow.revision().unwrap().steps.len() as u64;
        assert_eq!([dag7(), wide1000(), chain1000()].map(steps), [DAG7, WIDE, CHAIN]);
        let dag = dag7().revision().unwrap();
        assert_eq!(dag.steps.iter().map(|step| step.parents.len()).collect::<Vec<_>>(), [0, 1, 1, 1, 1, 2, 1]);
        assert_eq!(wide1000().revision().unwrap().step_by_name("last").unwrap().parents.len(), 1_000);
    }
}
