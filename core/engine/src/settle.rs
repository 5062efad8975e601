//! What a worker says of its steps, and who is speaking.

use std::time::Duration;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row, SqlStr};
use tasker_model::limits::BATCH_OUTCOMES;
use tasker_model::outcome::StepFailure;
use tasker_model::{Error, ErrorKind, Payload, Result, TaskId};

use crate::hot::Reply;
use crate::{Engine, Lease, to_error};

/// What happened to one leased step.
#[derive(Debug, Clone)]
pub enum Change {
    /// It has a result.
    Success {
        /// The result.
        value: Payload,
        /// What its handler said about it; kept with the event.
        metadata: Option<Payload>,
    },
    /// It has a result and chose what lives after it.
    Decision {
        /// The result.
        value: Payload,
        /// The names of the routes it chose; for the history.
        routes: Vec<String>,
        /// The numbers of the children that it might have chosen and did not: they are skipped.
        unchosen: Vec<i32>,
    },
    /// It divides its work into ranges, which run in its place.
    Ranges {
        /// How much there is to do in all.
        items: u64,
        /// A list of the ranges.
        ranges: Payload,
    },
    /// It is done, and gives a map its items.
    MapItems {
        /// The map's number.
        map: i32,
        /// The list.
        items: Payload,
    },
    /// An item or range failed for good, which is not the end of its task: the step that fanned out says what follows.
    ItemFailure {
        /// Why.
        error: StepFailure,
    },
    /// Its result is that of a task that it runs.
    Child {
        /// `{"workflow": "namespace.name", "input": {..}}`.
        spec: Payload,
    },
    /// It waits; what comes is its result.
    Wait {
        /// `{"signal", "until", "timeout_ms", "default"}`, each as far as it is said.
        spec: Payload,
        /// How long at most, where it has a time; for the caller's own clock.
        due_in: Option<Duration>,
    },
    /// It failed and will be tried again after the delay.
    Retry {
        /// Why.
        error: StepFailure,
        /// From now.
        delay: Duration,
    },
    /// It failed for good.
    Failure {
        /// Why.
        error: StepFailure,
    },
    /// It is this far, and goes on from there in a new delivery; not an attempt.
    Checkpoint {
        /// What is saved: `{"cursor": .., "items": n, "accumulated": ..}`.
        saved: Payload,
    },
    /// It goes back unrun; not an attempt.
    Release {
        /// Why, for the history.
        reason: &'static str,
    },
    /// Its task's input is valid; the step goes back and may be handed off now.
    Validated,
    /// Its task is paused: it is held until that is resumed.
    Paused,
    /// It stopped because its task is ending; where nobody asked for that, it goes back.
    Cancelled {
        /// What it said.
        error: StepFailure,
    },
    /// Its task's input is not what the workflow accepts: the task fails and no handler runs.
    InputInvalid {
        /// Where and why.
        error: StepFailure,
    },
    /// Its task is past its deadline: the task fails.
    Deadline {
        /// What is said of it.
        error: StepFailure,
    },
}

impl Change {
    fn kind(&self) -> &'static str {
        match self {
            Self::Success { .. } => "success",
            Self::Decision { .. } => "decision",
            Self::Ranges { .. } => "fan_out",
            Self::MapItems { .. } => "map",
            Self::ItemFailure { .. } => "item_failure",
            Self::Child { .. } => "child",
            Self::Wait { .. } => "wait",
            Self::Retry { .. } => "retry",
            Self::Failure { .. } => "failure",
            Self::Checkpoint { .. } => "checkpoint",
            Self::Release { .. } => "release",
            Self::Validated => "validated",
            Self::Paused => "paused",
            Self::Cancelled { .. } => "cancelled",
            Self::InputInvalid { .. } => "input_invalid",
            Self::Deadline { .. } => "deadline",
        }
    }

    /// What its column `error` holds: why it failed, or what else its kind has to say.
    fn error(&self) -> Result<Option<String>> {
        let write = |error: &StepFailure| Ok(Some(Payload::from_value(error)?.get().to_owned()));
        match self {
            Self::Retry { error, .. }
            | Self::Failure { error }
            | Self::ItemFailure { error }
            | Self::Cancelled { error }
            | Self::InputInvalid { error }
            | Self::Deadline { error } => write(error),
            Self::Release { reason } => {
                Ok(Some(Payload::from_value(&serde_json::json!({ "reason": reason }))?.get().to_owned()))
            }
            Self::Decision { routes, unchosen, .. } => {
                let detail = serde_json::json!({ "routes": routes, "unchosen": unchosen });
                Ok(Some(Payload::from_value(&detail)?.get().to_owned()))
            }
            Self::Ranges { items, .. } => Ok(Some(format!(r#"{{"items":{items}}}"#))),
            Self::MapItems { map, .. } => Ok(Some(format!(r#"{{"step":{map}}}"#))),
            Self::Success { .. }
            | Self::Child { .. }
            | Self::Wait { .. }
            | Self::Checkpoint { .. }
            | Self::Validated
            | Self::Paused => Ok(None),
        }
    }
}

/// One outcome for [`crate::pgmq::settle`].
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Whose.
    pub lease: Lease,
    /// What happened.
    pub change: Change,
    /// How long the handler ran, by the worker's monotonic clock.
    pub duration: Option<Duration>,
}

/// Who calls, and what it can take.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The worker's id.
    pub worker_id: i32,
    /// The queues it serves, in the order in which it wants to read them.
    pub queues: Vec<i32>,
    /// The handlers it announced.
    pub handlers: Vec<i32>,
    /// Handlers to leave out of the next reads: it met their messages and cannot run them.
    pub exclude: Vec<i32>,
    /// How many steps it has slots for, reserved before the call.
    pub want: usize,
    /// How many of them are kept for steps that this call makes ready; `want - handoff` are read from the queues, after it.
    pub handoff: usize,
    /// A number that grows with each read: it places the reads in the weighted sequence of bands.
    pub turn: i32,
    /// How long a lease lasts without a heartbeat.
    pub lease: Duration,
    /// Says that every workflow of the batch is `durability: relaxed`.
    pub relaxed: bool,
}

impl Engine {
    /// Applies outcomes in one commit. See [`crate::pgmq::settle`], whose work this is.
    pub(crate) async fn settle_call(
        &self,
        conn: &mut PgConnection,
        caller: &Caller,
        outcomes: &[Settlement],
    ) -> Result<Reply> {
        if outcomes.len() > BATCH_OUTCOMES {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{} outcomes in one batch; at most {BATCH_OUTCOMES}", outcomes.len()),
            ));
        }
        // P1, place (1): messages are locked in the order of the batch.
        let mut order: Vec<usize> = (0..outcomes.len()).collect();
        order.sort_by_key(|&at| {
            let lease = outcomes[at].lease;
            (lease.queue_id, lease.band, lease.msg_id)
        });
        let mut columns = Columns::with_capacity(order.len());
        for &at in &order {
            columns.push(&outcomes[at])?;
        }
        let rows = sqlx::query(self.sql.settle.clone())
            .bind(&columns.queue)
            .bind(&columns.band)
            .bind(&columns.msg)
            .bind(&columns.read_ct)
            .bind(&columns.task)
            .bind(&columns.idx)
            .bind(&columns.generation)
            .bind(&columns.kind)
            .bind(&columns.value)
            .bind(&columns.metadata)
            .bind(&columns.error)
            .bind(&columns.delay_ms)
            .bind(&columns.duration_ms)
            .bind(caller.worker_id)
            .bind(&caller.queues)
            .bind(&caller.handlers)
            .bind(&caller.exclude)
            .bind(i32::try_from(caller.handoff).unwrap_or(i32::MAX))
            // In place of what it wants: the functions of the release before read the rest from the queues, which a claim does now.
            .bind(i32::try_from(caller.handoff).unwrap_or(i32::MAX))
            .bind(caller.turn)
            .bind(caller.lease)
            .bind(caller.relaxed)
            .fetch_all(self.on(conn))
            .await
            .map_err(|error| to_error("settling outcomes", error))?;
        let mut reply = Reply::read(&rows)?;
        for (at, _) in &mut reply.verdicts {
            *at = order.get(*at).copied().unwrap_or_default();
        }
        Ok(reply)
    }

    /// Settles one step with success inside the caller's own transaction, as its last statement before the commit.
    /// Fails with `lease_lost` unless exactly this step was updated; the transaction must be rolled back then.
    pub async fn settle_here(
        &self,
        conn: &mut PgConnection,
        lease: &Lease,
        value: &Payload,
        duration: Duration,
        worker_id: Option<i32>,
    ) -> Result<Reply> {
        let rows = of_lease(self.sql.settle_here.clone(), lease)
            .bind(value.get())
            .bind(i32::try_from(duration.as_millis()).unwrap_or(i32::MAX))
            .bind(worker_id)
            .fetch_all(self.on(conn))
            .await
            .map_err(|error| to_error("settling the step in its own transaction", error))?;
        Reply::read(&rows)
    }

    /// Reads some results of a map or batch, from the place `from` on, in their order: for a step to which they were too large to be
    /// delivered. Answers at most `limit`, and at most 4 MiB unless the first alone is larger.
    pub async fn page_results(
        &self,
        conn: &mut PgConnection,
        task: TaskId,
        idx: i32,
        from: u32,
        limit: u32,
    ) -> Result<Vec<Payload>> {
        let doing = "reading results";
        let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let rows: Vec<String> =
            sqlx::query_scalar(self.statement("select result from {schema}.page_results($1, $2, $3, $4)"))
                .bind(task.0)
                .bind(idx)
                .bind(number(from))
                .bind(number(limit))
                .fetch_all(self.on(conn))
                .await
                .map_err(|error| to_error(doing, error))?;
        rows.iter().map(|text| Payload::parse(text)).collect()
    }

    /// Saves how far a running step is and extends its lease, in the transaction of `conn` if it has one. Answers false, and saves
    /// nothing, where the lease was lost.
    pub async fn save_checkpoint(
        &self,
        conn: &mut PgConnection,
        lease: &Lease,
        saved: &Payload,
        worker_id: Option<i32>,
        extend: Duration,
    ) -> Result<bool> {
        of_lease(self.sql.save_checkpoint.clone(), lease)
            .bind(saved.get())
            .bind(worker_id)
            .bind(extend)
            .fetch_one(self.on(conn))
            .await
            .and_then(|row| row.try_get(0))
            .map_err(|error| to_error("saving a checkpoint", error))
    }
}

/// Begins a call about one leased step: the lease's seven parts come first.
fn of_lease(call: SqlStr, lease: &Lease) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(call)
        .bind(lease.queue_id)
        .bind(lease.band)
        .bind(lease.msg_id)
        .bind(lease.read_ct)
        .bind(lease.task_id.0)
        .bind(lease.idx)
        .bind(lease.generation)
}

#[derive(Default)]
struct Columns<'a> {
    queue: Vec<i32>,
    band: Vec<i16>,
    msg: Vec<i64>,
    read_ct: Vec<i32>,
    task: Vec<uuid::Uuid>,
    idx: Vec<i32>,
    generation: Vec<i32>,
    kind: Vec<&'static str>,
    value: Vec<Option<&'a str>>,
    metadata: Vec<Option<&'a str>>,
    error: Vec<Option<String>>,
    delay_ms: Vec<Option<i64>>,
    duration_ms: Vec<Option<i32>>,
}

impl<'a> Columns<'a> {
    fn with_capacity(size: usize) -> Self {
        Self { value: Vec::with_capacity(size), task: Vec::with_capacity(size), ..Self::default() }
    }

    fn push(&mut self, outcome: &'a Settlement) -> Result<()> {
        let lease = outcome.lease;
        self.queue.push(lease.queue_id);
        self.band.push(lease.band);
        self.msg.push(lease.msg_id);
        self.read_ct.push(lease.read_ct);
        self.task.push(lease.task_id.0);
        self.idx.push(lease.idx);
        self.generation.push(lease.generation);
        self.kind.push(outcome.change.kind());
        let (value, metadata) = match &outcome.change {
            Change::Success { value, metadata } => (Some(value.get()), metadata.as_ref().map(Payload::get)),
            Change::Decision { value, .. }
            | Change::Checkpoint { saved: value }
            | Change::Ranges { ranges: value, .. }
            | Change::MapItems { items: value, .. }
            | Change::Child { spec: value }
            | Change::Wait { spec: value, .. } => (Some(value.get()), None),
            _ => (None, None),
        };
        self.value.push(value);
        self.metadata.push(metadata);
        self.error.push(outcome.change.error()?);
        self.delay_ms.push(match &outcome.change {
            Change::Retry { delay, .. } => Some(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)),
            _ => None,
        });
        self.duration_ms.push(outcome.duration.map(|d| i32::try_from(d.as_millis()).unwrap_or(i32::MAX)));
        Ok(())
    }
}
