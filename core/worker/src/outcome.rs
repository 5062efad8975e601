//! From what a handler reported to what the engine is told: the rules of retry, the checks of results, and the worker's own outcomes.

use rand::Rng;
use tasker_engine::{Change, Claimed, Refusal};
use tasker_model::limits::{DELIVERIES, MAP_ITEMS};
use tasker_model::{
    Checkpoint, DynamicName, ErrorKind, Failures, OnFailure, Outcome, Payload, Revision, RevisionStep, StepFailure,
    nearest,
};

use crate::awaited;

/// What a person reads of a failure's message; data belongs into its details.
const ERROR_MESSAGE_BYTES: usize = 16 * 1024;
/// How much of a backtrace is kept.
const BACKTRACE_LINES: usize = 200;
/// The code of a decision that names a step which its definition does not let it choose.
pub const UNKNOWN_ROUTE: &str = "TSK_UNKNOWN_ROUTE";
/// The code of a result that is none: of a step that must decide and did not, or decided and has nothing to.
pub const NOT_A_DECISION: &str = "TSK_NOT_A_DECISION";
/// The code of a step with a `batch` that did not divide its work, or of another that did.
pub const NOT_A_BATCH: &str = "TSK_NOT_A_BATCH";
/// The code of a step that gave items to what is no map over it.
pub const NOT_A_MAP: &str = "TSK_NOT_A_MAP";

/// Turns an outcome into the change to settle; nothing where the handler settled the step itself.
///
/// `revision` gives the numbers of the routes. `is_cancel_requested` tells a cancellation that somebody asked for from a handler that stopped for another reason: the first ends
/// the step, the second gives it back.
pub fn to_change(
    outcome: Outcome,
    revision: &Revision,
    step: &RevisionStep,
    claimed: &Claimed,
    is_cancel_requested: bool,
) -> Option<Change> {
    change(outcome, revision, step, claimed, is_cancel_requested).map(|change| of_item(change, revision, step, claimed))
}

/// The failure of an item or range is its step's own affair, unless it ends the task at once.
fn of_item(change: Change, revision: &Revision, step: &RevisionStep, claimed: &Claimed) -> Change {
    let Some(fan) = step.fan.as_ref().filter(|_| is_item(claimed)) else {
        return change;
    };
    let ends_task = fan.failures == Failures::FailFast && revision.definition.on_failure == OnFailure::FailFast;
    match change {
        Change::Failure { error } if !ends_task => Change::ItemFailure { error },
        change => change,
    }
}

/// Says whether the run is for an item of a map or a range of a batch.
fn is_item(claimed: &Claimed) -> bool {
    claimed.step_name.as_deref().is_some_and(|name| DynamicName::of(name).is_item())
}

fn change(
    outcome: Outcome,
    revision: &Revision,
    step: &RevisionStep,
    claimed: &Claimed,
    is_cancel_requested: bool,
) -> Option<Change> {
    if let Err(error) = outcome.check() {
        return Some(rejected(&error.message));
    }
    // What undoes a step neither divides its work nor chooses.
    let is_undo = claimed.step_name.is_some() && !is_item(claimed);
    let is_range = step.fan.as_ref().is_some_and(|fan| fan.batch.is_some());
    Some(match outcome {
        Outcome::Success { .. } if is_range && claimed.step_name.is_none() => {
            let message = format!(
                "step `{}` is a batch and is first called without a range: it must then return how many items there are, or its ranges",
                step.name
            );
            Change::Failure { error: StepFailure::permanent(message).code(NOT_A_BATCH) }
        }
        Outcome::Success { .. } if !step.routes.is_empty() && !is_undo => {
            let message = format!(
                "step `{}` decides between {} and must return a decision; choose none to skip them all",
                step.name,
                list(&step.routes)
            );
            Change::Failure { error: StepFailure::permanent(message).code(NOT_A_DECISION) }
        }
        Outcome::Success { value, metadata } => {
            let metadata = (!metadata.is_empty()).then(|| Payload::from_value(&metadata));
            match metadata.transpose() {
                Ok(metadata) => Change::Success { value, metadata },
                Err(error) => rejected(&error.message),
            }
        }
        Outcome::Failure { error } => failed(error, step, claimed),
        Outcome::Settled => return None,
        Outcome::Cancelled if is_cancel_requested => {
            Change::Cancelled { error: StepFailure::new(ErrorKind::Cancelled, "stopped on request") }
        }
        Outcome::Cancelled => Change::Release { reason: "the handler stopped without a result" },
        Outcome::Checkpoint { cursor, items, accumulated } => {
            match Payload::from_value(&Checkpoint { cursor, items, accumulated }) {
                Ok(saved) => Change::Checkpoint { saved },
                Err(error) => rejected(&error.message),
            }
        }
        Outcome::Decision { .. } if is_undo || is_item(claimed) => {
            let name = claimed.step_name.as_deref().unwrap_or_default();
            let message = format!("`{name}` returned a decision, but only a step of a definition has routes");
            Change::Failure { error: StepFailure::permanent(message).code(NOT_A_DECISION) }
        }
        Outcome::Decision { steps, value } => decided(steps, value, revision, step),
        Outcome::Batches { items, cursors } => batches(items, &cursors, step, claimed),
        Outcome::Map { step: map, items } => map_items(&map, &items, revision, step, claimed),
        Outcome::Child { workflow, input } => awaited::child(&workflow, &input, step, claimed),
        Outcome::Wait { signal, until, timeout_ms, default } => {
            awaited::wait(signal.as_deref(), until, timeout_ms, default.as_ref(), step, claimed)
        }
    })
}

/// The ranges of a batch: its own, or those that its size makes.
fn batches(items: u64, cursors: &[Payload], step: &RevisionStep, claimed: &Claimed) -> Change {
    let refuse = |message: String| Change::Failure { error: StepFailure::permanent(message).code(NOT_A_BATCH) };
    let Some(batch) = step.fan.as_ref().and_then(|fan| fan.batch.as_ref()).filter(|_| claimed.step_name.is_none())
    else {
        return refuse(format!(
            "step `{}` divides its work, but its definition names no `batch` or this is a range of it already; write for example \
             `batch: {{ size: 1000, parallel: 4 }}`",
            step.name
        ));
    };
    let count = if cursors.is_empty() { items.div_ceil(batch.size.max(1)) } else { cursors.len() as u64 };
    if count > MAP_ITEMS as u64 {
        return refuse(format!(
            "step `{}` has {count} ranges of {} items; at most {MAP_ITEMS} are accepted: raise its `size`",
            step.name, batch.size
        ));
    }
    let ranges = if cursors.is_empty() {
        Payload::from_value(&batch.ranges(items).collect::<Vec<_>>())
    } else {
        Payload::from_value(&cursors)
    };
    match ranges {
        Ok(ranges) => Change::Ranges { items, ranges },
        Err(error) => rejected(&error.message),
    }
}

/// The items of a map that follows this step.
fn map_items(map: &str, items: &[Payload], revision: &Revision, step: &RevisionStep, claimed: &Claimed) -> Change {
    let is_fed = |map: &&RevisionStep| {
        let list = map.fan.as_ref().and_then(|fan| fan.list.as_ref());
        list.is_some_and(|list| list.step_name() == Some(&step.name) && list.path().is_empty())
    };
    let found = revision.step_by_name(map).filter(is_fed);
    let Some(found) = found.filter(|_| claimed.step_name.is_none() && step.fan.is_none()) else {
        let maps: Vec<&str> = revision.steps.iter().filter(is_fed).map(|map| map.name.as_str()).collect();
        let meant = nearest(map, maps.iter().copied());
        let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        let message = format!(
            "step `{}` gives items to `{map}`, which is no map over it{meant}; write `{map}: {{ call: .., map: {} }}`",
            step.name, step.name
        );
        return Change::Failure { error: StepFailure::permanent(message).code(NOT_A_MAP) };
    };
    match Payload::from_value(&items) {
        Ok(items) => Change::MapItems { map: found.idx, items },
        Err(error) => rejected(&error.message),
    }
}

/// What a decision means for the children of its step.
fn decided(mut chosen: Vec<String>, value: Payload, revision: &Revision, step: &RevisionStep) -> Change {
    if step.routes.is_empty() {
        let message = format!(
            "step `{}` returned a decision, but its definition names no `routes`; write for example `routes: [review, approve]`",
            step.name
        );
        return Change::Failure { error: StepFailure::permanent(message).code(NOT_A_DECISION) };
    }
    if let Some(unknown) = chosen.iter().find(|name| !step.routes.contains(name)) {
        let meant = nearest(unknown, step.routes.iter().map(String::as_str));
        let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        let message =
            format!("step `{}` routes to `{unknown}`, which is none of {}{meant}", step.name, list(&step.routes));
        return Change::Failure { error: StepFailure::permanent(message).code(UNKNOWN_ROUTE) };
    }
    chosen.sort();
    chosen.dedup();
    let unchosen = step.routes.iter().filter(|route| !chosen.contains(route));
    let unchosen = unchosen.filter_map(|route| Some(revision.step_by_name(route)?.idx)).collect();
    Change::Decision { value, routes: chosen, unchosen }
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Another attempt, or the end: as the step's policy says after so many failures.
fn failed(error: StepFailure, step: &RevisionStep, claimed: &Claimed) -> Change {
    let error = tidy(error);
    let failures = u32::try_from(claimed.attempt).unwrap_or(1).max(1);
    if !error.retryable || !step.retry.allows_another(failures) {
        return Change::Failure { error };
    }
    let after = error.retry_after_ms.map(std::time::Duration::from_millis);
    let delay = step.retry.delay(failures, after, rand::rng().random_range(0.0..1.0));
    Change::Retry { error, delay }
}

/// The permanent failure of a result that cannot be stored.
pub(crate) fn rejected(message: &str) -> Change {
    Change::Failure { error: tidy(StepFailure::result_rejected(message)) }
}

/// Cuts what only people read, and says that it did.
fn tidy(mut error: StepFailure) -> StepFailure {
    if error.message.len() > ERROR_MESSAGE_BYTES {
        let mut end = ERROR_MESSAGE_BYTES;
        while !error.message.is_char_boundary(end) {
            end -= 1;
        }
        let cut = error.message.len() - end;
        error.message.truncate(end);
        error.message = format!("{} [{cut} more bytes were cut]", error.message);
    }
    if error.backtrace.len() > BACKTRACE_LINES {
        let cut = error.backtrace.len() - BACKTRACE_LINES;
        error.backtrace.truncate(BACKTRACE_LINES);
        error.backtrace.push(format!("[{cut} more lines were cut]"));
    }
    error
}

/// The outcome of a message that must not run. `revision` is needed to check an input; without it such a step goes back.
pub fn refused(reason: Refusal, claimed: &Claimed, revision: Option<&Revision>) -> Change {
    match reason {
        Refusal::Cancelled => Change::Cancelled {
            error: StepFailure::new(ErrorKind::Cancelled, "the task was ending before this step ran"),
        },
        Refusal::Deadline => Change::Deadline {
            error: StepFailure::new(
                ErrorKind::DeadlineExceeded,
                match claimed.deadline {
                    Some(deadline) => format!("the task was not finished by its deadline {}", deadline.to_rfc3339()),
                    None => "the task was not finished by its deadline".to_owned(),
                },
            ),
        },
        Refusal::Paused => Change::Paused,
        Refusal::Poison => Change::Failure {
            error: StepFailure::new(
                ErrorKind::Poison,
                format!(
                    "the step was delivered {} times without any outcome, the limit is {DELIVERIES}; does it end its process?",
                    claimed.lease.read_ct - 1
                ),
            ),
        },
        Refusal::NoHandler => Change::Release { reason: "this worker has no such handler" },
        Refusal::Overflow => Change::Release { reason: "the claim was full" },
        Refusal::ContextTooLarge => Change::Failure {
            error: StepFailure::new(
                ErrorKind::ContextTooLarge,
                "input and results of the step are over 4 MiB together; pass references instead of data",
            ),
        },
        Refusal::Unvalidated => match revision.map(|r| r.validate_input(claimed.input.get())) {
            Some(Ok(())) => Change::Validated,
            Some(Err(error)) => {
                Change::InputInvalid { error: tidy(StepFailure::new(ErrorKind::InputInvalid, error.message)) }
            }
            None => Change::Release { reason: "the workflow's revision could not be read" },
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::step::tests::{claimed, revision};

    fn change(outcome: Outcome, attempt: i32, is_cancel_requested: bool) -> Option<Change> {
        let revision = revision();
        let claimed = Claimed { attempt, ..claimed(0) };
        to_change(outcome, &revision, &revision.steps[0], &claimed, is_cancel_requested)
    }

    #[test]
    fn a_failure_is_tried_again_while_attempts_are_left() {
        let failure = || Outcome::failure(StepFailure::unexpected("no"));
        let delays: Vec<_> = (1..=3).map(|n| change(failure(), n, false)).collect();
        assert!(matches!(&delays[0], Some(Change::Retry { delay, .. }) if *delay >= Duration::from_millis(800)));
        assert!(matches!(&delays[1], Some(Change::Retry { .. })));
        assert!(matches!(&delays[2], Some(Change::Failure { .. })));
        let permanent = Outcome::failure(StepFailure::permanent("never"));
        assert!(matches!(change(permanent, 1, false), Some(Change::Failure { .. })));
        let after = StepFailure::unexpected("later").retry_after(Duration::from_secs(40));
        assert!(
            matches!(change(Outcome::failure(after), 1, false), Some(Change::Retry { delay, .. }) if delay == Duration::from_secs(40))
        );
    }

    #[test]
    fn a_cancellation_ends_the_step_only_if_somebody_asked_for_it() {
        let asked = change(Outcome::Cancelled, 1, true);
        assert!(matches!(asked, Some(Change::Cancelled { .. })));
        let own = change(Outcome::Cancelled, 1, false);
        assert!(matches!(own, Some(Change::Release { .. })));
        assert!(change(Outcome::Settled, 1, false).is_none());
    }

    #[test]
    fn what_cannot_be_stored_fails_for_good_and_keeps_no_overlong_text() {
        let nul = Outcome::success(Payload::parse(r#""\u0000""#).unwrap_or_default());
        for outcome in [
            nul,
            Outcome::failure(StepFailure::unexpected("a\0b")),
            Outcome::success(Payload::from_value(&"x".repeat(300_000)).unwrap_or_default()),
        ] {
            let Some(Change::Failure { error }) = change(outcome, 1, false) else {
                panic!("it was accepted");
            };
            assert_eq!(error.kind, ErrorKind::ResultRejected);
        }
        let mut long = StepFailure::permanent("ä".repeat(ERROR_MESSAGE_BYTES));
        long.backtrace = vec!["line".to_owned(); BACKTRACE_LINES + 5];
        let Some(Change::Failure { error }) = change(Outcome::failure(long), 1, false) else {
            panic!("it was accepted");
        };
        assert!(error.message.ends_with("[16384 more bytes were cut]"));
        assert_eq!(error.backtrace.len(), BACKTRACE_LINES + 1);
    }

    #[test]
    fn every_refusal_has_its_outcome() {
        let revision = revision();
        let claimed = claimed(0);
        let of = |reason| refused(reason, &claimed, Some(&revision));
        assert!(matches!(of(Refusal::Cancelled), Change::Cancelled { .. }));
        assert!(matches!(of(Refusal::Deadline), Change::Deadline { .. }));
        assert!(matches!(of(Refusal::Paused), Change::Paused));
        assert!(matches!(of(Refusal::Poison), Change::Failure { error } if error.kind == ErrorKind::Poison));
        assert!(matches!(of(Refusal::NoHandler), Change::Release { .. }));
        assert!(matches!(of(Refusal::Overflow), Change::Release { .. }));
        assert!(matches!(of(Refusal::Unvalidated), Change::Validated));
        assert!(
            matches!(of(Refusal::ContextTooLarge), Change::Failure { error } if error.kind == ErrorKind::ContextTooLarge)
        );
        let wrong = Claimed { input: Payload::parse("{\"n\": \"text\"}").unwrap_or_default(), ..claimed.clone() };
        assert!(matches!(refused(Refusal::Unvalidated, &wrong, Some(&revision)), Change::InputInvalid { .. }));
    }
}
