//! One attempt at one step: from the claimed row to the handler's input, and the run of the handler.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tasker_engine::{Change, Claimed, Engine};
use tasker_model::input::{StepPart, TaskPart};
use tasker_model::{
    DynamicName, Error, ErrorKind, Outcome, Payload, Result, Revision, RevisionStep, StepFailure, StepInput,
    id::StepRef,
};
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::context::SharedConnection;
use crate::outbox::Fresh;
use crate::outcome::to_change;
use crate::{Handler, StepContext};

/// Finds a claimed step in its revision.
pub fn revision_step<'r>(revision: &'r Revision, claimed: &Claimed) -> Result<&'r RevisionStep> {
    let found = match &claimed.step_name {
        Some(name) => revision.step_by_name(DynamicName::of(name).step),
        None => usize::try_from(claimed.lease.idx).ok().and_then(|at| revision.steps.get(at)),
    };
    found.ok_or_else(|| {
        Error::new(
            ErrorKind::Internal,
            format!(
                "task {} has a step {} that revision {} of {} has not",
                claimed.lease.task_id,
                claimed.lease.idx,
                revision.hash,
                revision.definition.reference()
            ),
        )
    })
}

/// The key under which the engine says how many items have the results that are too large to be delivered.
const PAGED: &str = "paged";

/// Builds what the handler is given. Results are keyed by the names of the steps they came from; a skipped one gives null.
pub fn step_input(revision: &Revision, claimed: &Claimed) -> Result<StepInput> {
    let step = revision_step(revision, claimed)?;
    // By their number, those of dynamic steps by their name.
    let mut delivered: BTreeMap<String, Payload> = match &claimed.results {
        Some(results) => results.to()?,
        None => BTreeMap::new(),
    };
    let name_of = |idx: i32| Some(revision.steps.get(usize::try_from(idx).ok()?)?.name.clone());
    let paged: BTreeMap<i32, u32> = match delivered.remove(PAGED) {
        Some(paged) => paged.to()?,
        None => BTreeMap::new(),
    };
    let paged: BTreeMap<String, u32> =
        paged.into_iter().filter_map(|(idx, count)| Some((name_of(idx)?, count))).collect();
    let name = claimed.step_name.clone().unwrap_or_else(|| step.name.clone());
    let mut results: BTreeMap<String, Payload> = step
        .parents
        .iter()
        .filter_map(|parent| Some((name_of(*parent)?, delivered.remove(&parent.to_string()).unwrap_or_default())))
        .filter(|(parent, _)| !paged.contains_key(parent))
        .collect();
    if let Some(undone) = DynamicName::of(&name).undoes {
        let result = delivered.remove(undone).or_else(|| delivered.remove(&step.idx.to_string()));
        results.insert(undone.to_owned(), result.unwrap_or_default());
    }
    let id = StepRef { task: claimed.lease.task_id, step: name.clone() };
    let idempotency_key = match claimed.run {
        0 => id.to_string(),
        run => format!("{id}#{run}"),
    };
    Ok(StepInput {
        task: TaskPart {
            id: claimed.lease.task_id,
            namespace: revision.definition.namespace.clone(),
            workflow: revision.definition.name.clone(),
            revision: revision.hash.clone(),
            input: claimed.input.clone(),
            tags: claimed.tags.clone(),
            created_at: claimed.created_at,
        },
        step: StepPart {
            id,
            name,
            attempt: u32::try_from(claimed.attempt).unwrap_or(1).max(1),
            max_attempts: step.retry.max_attempts,
            timeout_ms: step.timeout_ms,
            deadline_at: claimed.deadline,
            config: step.config.as_ref().map(Payload::from_value).transpose()?,
            item: claimed.step_name.as_ref().and(claimed.item.clone()),
        },
        results,
        paged,
        checkpoint: claimed.checkpoint.clone(),
        idempotency_key,
        correlation_id: claimed.correlation_id.clone(),
        trace: claimed.trace.clone(),
    })
}

/// Runs one claimed step with the worker's own functions and answers what to settle: nothing where the handler settled it itself.
///
/// For test kits. With a connection the handler's `ctx.transaction` runs in a savepoint on it instead of on the engine's pool.
pub async fn run_claimed(
    engine: &Engine,
    revision: &Arc<Revision>,
    claimed: &Claimed,
    handler: &Arc<dyn Handler>,
    connection: Option<SharedConnection>,
) -> Result<Option<Change>> {
    let mut ctx = StepContext::new(engine.clone(), Arc::clone(revision), claimed)?;
    if let Some(connection) = connection {
        ctx = ctx.on_connection(connection);
    }
    let step = revision_step(revision, claimed)?;
    let attempt = attempt(handler, &ctx, None).await;
    drop(attempt.late);
    if ctx.is_settled() {
        return Ok(None);
    }
    Ok(to_change(attempt.outcome, revision, step, claimed, false))
}

/// How an attempt ended.
pub(crate) struct Attempt {
    /// What came of it.
    pub(crate) outcome: Outcome,
    /// The handler, where it outlived its timeout.
    pub(crate) late: Option<AbortOnDropHandle<Ended>>,
    /// Given back by a handler that ended when it was first polled: its outcome is to be reported before this is dropped.
    pub(crate) fresh: Option<Fresh>,
}

/// What a handler's task gives.
pub(crate) type Ended = (Outcome, Option<Fresh>);

/// Runs the handler in a task of its own, so that a panic ends only that and a handler that blocks its thread cannot hide its timeout.
pub(crate) async fn attempt(handler: &Arc<dyn Handler>, ctx: &StepContext, fresh: Option<Fresh>) -> Attempt {
    let timeout = Duration::from_millis(ctx.input().step.timeout_ms);
    let mut running = spawn(Arc::clone(handler), ctx.clone(), fresh);
    if let Ok(ended) = tokio::time::timeout(timeout, &mut running).await {
        let (outcome, fresh) = ended.unwrap_or_else(|error| (broken(error), None));
        return Attempt { outcome, late: None, fresh };
    }
    ctx.token().cancel();
    Attempt { outcome: Outcome::failure(StepFailure::timeout(timeout)), late: Some(running), fresh: None }
}

fn spawn(handler: Arc<dyn Handler>, ctx: StepContext, mut fresh: Option<Fresh>) -> AbortOnDropHandle<Ended> {
    let step = &ctx.input().step;
    let span = tracing::info_span!(
        "tasker.step",
        task.id = %ctx.input().task.id,
        step.id = %step.id,
        step.name = %step.name,
        attempt = step.attempt,
    );
    let call = async move {
        let mut call = pin!(handler.call(ctx));
        poll_fn(move |context| {
            let polled = call.as_mut().poll(context);
            if polled.is_pending() {
                fresh = None;
            }
            polled.map(|outcome| (outcome, fresh.take()))
        })
        .await
    };
    AbortOnDropHandle::new(tokio::spawn(call.instrument(span)))
}

/// A panic is a failed attempt; an aborted task is one that goes back.
fn broken(error: JoinError) -> Outcome {
    match error.try_into_panic() {
        Ok(panic) => Outcome::failure(
            StepFailure::unexpected(panic_text(panic.as_ref()).replace('\0', "\u{fffd}")).class("panic"),
        ),
        Err(_) => Outcome::Cancelled,
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("the handler panicked without a message")
}

#[cfg(test)]
pub(crate) mod tests {
    use tasker_engine::Lease;
    use tasker_model::TaskId;

    use super::*;

    pub(crate) fn revision() -> Revision {
        let yaml = "
name: w
namespace: shop
input: { type: object, properties: { n: { type: integer } } }
steps:
  a: { call: h }
  b: { call: h }
  c: { call: h, after: [b], with: { total: a.total }, config: { rate: 2 } }
";
        let definition =
            tasker_model::parse::parse(yaml, "w.yaml").unwrap_or_else(|report| panic!("{}", report.render(false)));
        Revision::compile(definition).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    pub(crate) fn claimed(idx: i32) -> Claimed {
        Claimed {
            lease: Lease {
                queue_id: 1,
                band: 1,
                msg_id: 1,
                read_ct: 1,
                task_id: TaskId::generate(),
                idx,
                generation: 0,
            },
            run: 0,
            attempt: 1,
            revision_id: 1,
            handler_id: 1,
            step_name: None,
            created_at: chrono::DateTime::UNIX_EPOCH,
            deadline: None,
            input: Payload::parse(r#"{"n": 9007199254740993}"#).unwrap_or_default(),
            tags: Payload::empty_object(),
            correlation_id: None,
            trace: None,
            results: None,
            item: None,
            checkpoint: None,
            age: Duration::ZERO,
        }
    }

    #[test]
    fn results_have_the_names_of_their_steps_and_keep_their_text() {
        let revision = revision();
        let step =
            Claimed { results: Payload::parse(r#"{"0": {"total": 1.10}}"#).ok(), run: 2, attempt: 3, ..claimed(2) };
        let input = step_input(&revision, &step).unwrap();
        assert_eq!(input.results["a"].get(), r#"{"total": 1.10}"#);
        assert!(input.results["b"].is_null());
        assert_eq!(input.step.name, "c");
        assert!(input.is_last_attempt());
        assert_eq!(input.idempotency_key, format!("{}/c#2", step.lease.task_id));
        assert_eq!(input.task.input.get(), r#"{"n": 9007199254740993}"#);
        assert_eq!(input.step.config.unwrap().get(), r#"{"rate":2}"#);
    }

    #[test]
    fn a_step_that_the_revision_has_not_is_an_error() {
        let error = step_input(&revision(), &claimed(9)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Internal);
    }
}
