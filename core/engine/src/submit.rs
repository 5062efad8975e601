//! Submitting tasks, alone or with the caller's own rows in one transaction.

use chrono::{DateTime, Datelike, Utc};
use sqlx::PgConnection;
use tasker_model::definition::Priority;
use tasker_model::limits::{INPUT_BYTES, KEY_BYTES, SUBMIT_BYTES, SUBMIT_TASKS, TAGS_BYTES};
use tasker_model::payload::check_payload;
use tasker_model::revision::Revision;
use tasker_model::{Error, ErrorKind, Payload, Result, TaskId};

use crate::hot::Reply;
use crate::{Caller, Engine, to_error};

/// One task to be made.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The registered revision.
    pub revision_id: i32,
    /// A JSON object, at most 256 KiB.
    pub input: Payload,
    /// The idempotency key: the same key with the same input answers the existing task.
    pub key: Option<String>,
    /// When the first steps may run; now by default.
    pub run_at: Option<DateTime<Utc>>,
    /// For steps whose definition names none.
    pub priority: Option<Priority>,
    /// When the task must be finished; it fails then.
    pub deadline: Option<DateTime<Utc>>,
    /// A JSON object of at most 4 KiB, searchable.
    pub tags: Option<Payload>,
    /// Carried through to every step.
    pub correlation_id: Option<String>,
    /// W3C trace context, carried through to every step.
    pub trace: Option<Payload>,
    /// Steps to leave out; their dependents get null and run.
    pub skip: Vec<String>,
}

impl Submission {
    /// Submits this input to this revision, with nothing else said.
    pub fn new(revision_id: i32, input: Payload) -> Self {
        Self {
            revision_id,
            input,
            key: None,
            run_at: None,
            priority: None,
            deadline: None,
            tags: None,
            correlation_id: None,
            trace: None,
            skip: Vec::new(),
        }
    }

    /// Checks everything that can be checked without the database, the input against the workflow's whole schema among it.
    pub fn check(&self, revision: &Revision) -> Result<()> {
        check_payload(ErrorKind::InputInvalid, self.input.get(), INPUT_BYTES, "the input")?;
        revision.validate_input(self.input.get())?;
        if let Some(key) = &self.key
            && (key.is_empty() || key.len() > KEY_BYTES || key.contains('\0'))
        {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the key must have 1 to {KEY_BYTES} bytes and no NUL; it has {}", key.len()),
            ));
        }
        if let Some(tags) = &self.tags {
            check_payload(ErrorKind::Invalid, tags.get(), TAGS_BYTES, "the object of tags")?;
            if !tags.get().trim_start().starts_with('{') {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    "the tags must be a JSON object, such as {\"tenant\": \"acme\"}",
                ));
            }
        }
        if let Some(trace) = &self.trace {
            check_payload(ErrorKind::Invalid, trace.get(), TAGS_BYTES, "the trace context")?;
        }
        if self.correlation_id.as_ref().is_some_and(|id| id.len() > KEY_BYTES || id.contains('\0')) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the correlation id must have at most {KEY_BYTES} bytes and no NUL"),
            ));
        }
        for (what, at) in [("run_at", self.run_at), ("deadline", self.deadline)] {
            if let Some(at) = at.filter(|at| !(1..=9999).contains(&at.year())) {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("{what} must lie in the years 1 to 9999, not at {at}"),
                ));
            }
        }
        if let Some(unknown) = self.skip.iter().find(|name| revision.step_by_name(name).is_none()) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("workflow {} has no step `{unknown}` to skip", revision.definition.reference()),
            ));
        }
        Ok(())
    }
}

/// Who may run the first steps: a worker in this process that has slots, or nobody in particular.
#[derive(Debug, Clone, Copy)]
pub enum Root<'a> {
    /// Whoever reads the queue. The only choice inside a caller's transaction, which may yet roll back.
    Anyone,
    /// This worker, up to its `handoff`; the reply holds the leased steps.
    HandOff(&'a Caller),
}

impl Engine {
    /// Makes tasks, all or none, on the given connection and in its transaction if it has one. The submissions must have been checked
    /// ([`Submission::check`]): their tasks are marked as validated. Answers in `submitted`, in the order of `tasks`.
    ///
    /// At most 100,000 tasks and 64 MiB of inputs a call: above that it fails with `invalid`. Fails with `conflict` where a key was used
    /// with another input.
    pub async fn submit(
        &self,
        conn: &mut PgConnection,
        tasks: &[Submission],
        actor: Option<&str>,
        root: Root<'_>,
    ) -> Result<Reply> {
        check_size(tasks)?;
        let ids: Vec<_> = tasks.iter().map(|_| TaskId::generate().0).collect();
        let skip: Vec<Option<String>> = tasks
            .iter()
            .map(|t| {
                if t.skip.is_empty() {
                    Ok(None)
                } else {
                    Payload::from_value(&t.skip).map(|p| Some(p.get().to_owned()))
                }
            })
            .collect::<Result<_>>()?;
        let (worker_id, queues, handlers, handoff, lease) = match root {
            Root::Anyone => (None, &[][..], &[][..], 0, std::time::Duration::ZERO),
            Root::HandOff(c) => (
                Some(c.worker_id),
                &c.queues[..],
                &c.handlers[..],
                i32::try_from(c.handoff).unwrap_or(i32::MAX),
                c.lease,
            ),
        };
        let sql = if tasks.len() > SLICE { &self.sql.submit_many } else { &self.sql.submit };
        let rows = sqlx::query(sql.clone())
            .bind(ids)
            .bind(tasks.iter().map(|t| t.revision_id).collect::<Vec<_>>())
            .bind(tasks.iter().map(|t| t.input.get()).collect::<Vec<_>>())
            .bind(tasks.iter().map(|t| t.key.as_deref()).collect::<Vec<_>>())
            .bind(tasks.iter().map(|t| t.run_at).collect::<Vec<_>>())
            .bind(tasks.iter().map(|t| t.priority.map(|p| i16::try_from(p.number()).unwrap_or(1))).collect::<Vec<_>>())
            .bind(tasks.iter().map(|t| t.deadline).collect::<Vec<_>>())
            .bind(tasks.iter().map(|t| t.tags.as_ref().map(Payload::get)).collect::<Vec<_>>())
            .bind(tasks.iter().map(|t| t.correlation_id.as_deref()).collect::<Vec<_>>())
            .bind(tasks.iter().map(|t| t.trace.as_ref().map(Payload::get)).collect::<Vec<_>>())
            .bind(skip)
            .bind(true)
            .bind(actor)
            .bind(worker_id)
            .bind(queues)
            .bind(handlers)
            .bind(handoff)
            .bind(lease)
            .fetch_all(self.on(conn))
            .await
            .map_err(|error| to_error("submitting", error))?;
        let mut reply = Reply::read(&rows)?;
        reply.submitted.truncate(tasks.len());
        reply.left = by_queue(&reply.left);
        Ok(reply)
    }
}

/// What `submit_many.sql` gives to the engine at a time.
const SLICE: usize = 256;

fn check_size(tasks: &[Submission]) -> Result<()> {
    let bytes: usize = tasks.iter().map(|task| task.input.get().len()).sum();
    if tasks.len() <= SUBMIT_TASKS && bytes <= SUBMIT_BYTES {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!(
            "one call submits at most {SUBMIT_TASKS} tasks and {SUBMIT_BYTES} bytes of inputs, not {} tasks and {bytes} bytes; \
             make several calls, in one transaction if they belong together",
            tasks.len()
        ),
    ))
}

/// Adds up what each slice left in a queue.
fn by_queue(left: &[(i32, i64)]) -> Vec<(i32, i64)> {
    let mut sums = std::collections::BTreeMap::new();
    for (queue, amount) in left {
        *sums.entry(*queue).or_default() += amount;
    }
    sums.into_iter().collect()
}
