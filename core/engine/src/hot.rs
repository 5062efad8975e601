//! The rows with which submit, claim, settle and the pump answer.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;
use tasker_model::state::TaskState;
use tasker_model::{Error, ErrorKind, Payload, Result, TaskId};

/// The right to run one step, proved by its message: opaque to handlers and languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The queue of the message.
    pub queue_id: i32,
    /// The message's priority band.
    pub band: i16,
    /// The message.
    pub msg_id: i64,
    /// Which delivery of it this is; the fence.
    pub read_ct: i32,
    /// The task.
    pub task_id: TaskId,
    /// The step's place in it.
    pub idx: i32,
    /// The step's generation; raised by verbs and timeouts.
    pub generation: i32,
}

/// A leased step with all that it needs to run. Payloads are the database's own text.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The lease.
    pub lease: Lease,
    /// Counts the runs of the step: 0, more after retry-from-here.
    pub run: i32,
    /// This attempt, from 1.
    pub attempt: i32,
    /// The revision that the task is pinned to.
    pub revision_id: i32,
    /// The handler.
    pub handler_id: i32,
    /// The name of a dynamic step; others have theirs in the revision.
    pub step_name: Option<String>,
    /// When the task was submitted.
    pub created_at: DateTime<Utc>,
    /// When the task must be finished.
    pub deadline: Option<DateTime<Utc>>,
    /// The task's input.
    pub input: Payload,
    /// The task's tags.
    pub tags: Payload,
    /// The submitter's correlation id.
    pub correlation_id: Option<String>,
    /// The submitter's trace context.
    pub trace: Option<Payload>,
    /// The parents' results, an object keyed by their idx.
    pub results: Option<Payload>,
    /// The item of a dynamic step.
    pub item: Option<Payload>,
    /// What the step saved when it stopped last.
    pub checkpoint: Option<Payload>,
    /// How long the message had waited when it was read; 0 for a step that was handed off.
    pub age: Duration,
}

/// Why a leased message must not run. Its lease ends with an outcome of the engine's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its task is ending.
    Cancelled,
    /// Its task is past its deadline.
    Deadline,
    /// Its task or workflow is paused.
    Paused,
    /// It was delivered too often without an outcome.
    Poison,
    /// The caller has no such handler.
    NoHandler,
    /// Its task's input was never checked against the whole schema.
    Unvalidated,
    /// The answer was full; it goes back.
    Overflow,
    /// Its own context is over the limit.
    ContextTooLarge,
}

impl Refusal {
    fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "cancelled" => Self::Cancelled,
            "deadline" => Self::Deadline,
            "paused" => Self::Paused,
            "poison" => Self::Poison,
            "no_handler" => Self::NoHandler,
            "unvalidated" => Self::Unvalidated,
            "overflow" => Self::Overflow,
            "context_too_large" => Self::ContextTooLarge,
            other => return Err(unknown("refusal", other)),
        })
    }
}

/// A refused message.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Why.
    pub reason: Refusal,
    /// The step as it was leased.
    pub claimed: Claimed,
}

/// What became of an outcome that was not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This very outcome is stored already.
    Duplicate,
    /// Another holder's outcome came first, or the step went on without this one.
    Lost,
}

/// One submission's task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// The task.
    pub task_id: TaskId,
    /// False where the key had been used with the same input before.
    pub created: bool,
}

/// A task that reached its end in this call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// The task.
    pub task_id: TaskId,
    /// Its last state.
    pub state: TaskState,
}

/// The answer of a hot call.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// Steps for the caller to run.
    pub leased: Vec<Claimed>,
    /// Leased messages that must not run.
    pub refused: Vec<Refused>,
    /// Tasks that ended.
    pub finished: Vec<Finished>,
    /// Per queue, how many messages were left visible for others.
    pub left: Vec<(i32, i64)>,
    /// By position in the batch: what was not applied.
    pub verdicts: Vec<(usize, Verdict)>,
    /// By position in the batch: the tasks.
    pub submitted: Vec<Submitted>,
    /// The step that took the signal which this call sent.
    pub taken_by: Option<i32>,
    /// When the next timer is due.
    pub next_timer: Option<Duration>,
}

impl Reply {
    /// Adds what a claim answered.
    pub(crate) fn absorb(&mut self, read: Self) {
        self.leased.extend(read.leased);
        self.refused.extend(read.refused);
    }

    /// Reads the rows of one answer.
    pub(crate) fn read(rows: &[PgRow]) -> Result<Self> {
        let mut reply = Self::default();
        for row in rows {
            reply.add(row).map_err(|error| crate::to_error("reading the engine's answer", error))??;
        }
        Ok(reply)
    }

    fn add(&mut self, row: &PgRow) -> Result<Result<()>, sqlx::Error> {
        let kind: &str = row.try_get("kind")?;
        match kind {
            "leased" => self.leased.push(claimed(row)?),
            "refused" => match Refusal::parse(row.try_get("detail")?) {
                Ok(reason) => self.refused.push(Refused { reason, claimed: claimed(row)? }),
                Err(error) => return Ok(Err(error)),
            },
            "finished" => match row.try_get::<&str, _>("detail")?.parse() {
                Ok(state) => self.finished.push(Finished { task_id: TaskId(row.try_get("task_id")?), state }),
                Err(error) => return Ok(Err(error)),
            },
            "left" => self.left.push((row.try_get("queue_id")?, row.try_get("amount")?)),
            "signalled" => self.taken_by = row.try_get("idx")?,
            "verdict" => {
                let ord: i32 = row.try_get("ord")?;
                let verdict =
                    if row.try_get::<&str, _>("detail")? == "duplicate" { Verdict::Duplicate } else { Verdict::Lost };
                self.verdicts.push((usize::try_from(ord).unwrap_or_default().saturating_sub(1), verdict));
            }
            "submitted" => self.submitted.push(Submitted {
                task_id: TaskId(row.try_get("task_id")?),
                created: row.try_get::<&str, _>("detail")? == "created",
            }),
            "next" => {
                let ms: i64 = row.try_get("amount")?;
                self.next_timer = Some(Duration::from_millis(u64::try_from(ms).unwrap_or_default()));
            }
            other => return Ok(Err(unknown("row", other))),
        }
        Ok(Ok(()))
    }
}

fn unknown(what: &str, text: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("the database answered with an unknown {what} `{text}`; is this program older than the schema?"),
    )
}

fn claimed(row: &PgRow) -> Result<Claimed, sqlx::Error> {
    Ok(Claimed {
        lease: Lease {
            queue_id: row.try_get("queue_id")?,
            band: row.try_get("band")?,
            msg_id: row.try_get("msg_id")?,
            read_ct: row.try_get("read_ct")?,
            task_id: TaskId(row.try_get("task_id")?),
            idx: row.try_get("idx")?,
            generation: row.try_get("gen")?,
        },
        run: row.try_get("run")?,
        attempt: row.try_get("attempt")?,
        revision_id: row.try_get("revision_id")?,
        handler_id: row.try_get("handler_id")?,
        step_name: row.try_get("step_name")?,
        created_at: row.try_get("created_at")?,
        deadline: row.try_get("deadline")?,
        input: payload(row, "input")?.unwrap_or_default(),
        tags: payload(row, "tags")?.unwrap_or_default(),
        correlation_id: row.try_get("correlation_id")?,
        trace: payload(row, "trace")?,
        results: payload(row, "results")?,
        item: payload(row, "item")?,
        checkpoint: payload(row, "checkpoint")?,
        age: Duration::from_millis(
            row.try_get::<Option<i32>, _>("age_ms")?.and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default(),
        ),
    })
}

/// Takes a JSON text as the database wrote it.
pub(crate) fn payload(row: &PgRow, column: &str) -> Result<Option<Payload>, sqlx::Error> {
    row.try_get::<Option<&str>, _>(column)?
        .map(|text| {
            Payload::parse(text)
                .map_err(|error| sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(error) })
        })
        .transpose()
}
