//! One task with its steps.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tasker_model::definition::Priority;
use tasker_model::state::{StepState, TaskState};
use tasker_model::{ErrorKind, Payload, Result, TaskId};

use super::display::{Signs, StepDisplay, display};
use super::tasks::{TaskRow, no_task};
use crate::hot::payload;
use crate::{Engine, to_error};

/// Queue tables above this size are not searched for a step's message: what is displayed is not worth it.
const SEARCHED_BYTES: i64 = 4 * 1024 * 1024;

/// A task with everything that is known of it.
#[derive(Debug, Clone, Serialize)]
pub struct TaskDetail {
    /// The task's row.
    pub task: TaskRow,
    /// The content hash of the revision that it is pinned to.
    pub revision: String,
    /// That revision's version, if it has one.
    pub version: Option<String>,
    /// The step that it runs as, where it is a child.
    pub parent: Option<ParentRow>,
    /// The input.
    pub input: Payload,
    /// The output, once it is complete and not over 4 MiB.
    pub output: Option<Payload>,
    /// The submitter's correlation id.
    pub correlation_id: Option<String>,
    /// The submitter's trace context.
    pub trace: Option<Payload>,
    /// The steps in topological order.
    pub steps: Vec<StepRow>,
    /// The engine's time when this was read: what `due_at` counts down from.
    pub read_at: DateTime<Utc>,
}

/// The task that a step runs.
#[derive(Debug, Clone, Serialize)]
pub struct ChildRow {
    /// Its id.
    pub task_id: TaskId,
    /// Its state.
    pub state: TaskState,
}

/// The step that a task runs as.
#[derive(Debug, Clone, Serialize)]
pub struct ParentRow {
    /// The step's task.
    pub task_id: TaskId,
    /// The step's name.
    pub step: String,
}

/// One step of a task.
#[derive(Debug, Clone, Serialize)]
pub struct StepRow {
    /// Its number.
    pub idx: i32,
    /// Its name.
    pub name: String,
    /// Its stored state.
    pub state: StepState,
    /// What it is doing.
    pub display: StepDisplay,
    /// When it runs next, where it is retrying or scheduled.
    pub due_at: Option<DateTime<Utc>>,
    /// Why it is held: `no_handler, paused, limit, signal, child`.
    pub held: Option<String>,
    /// The signal that it waits for, or that it waited for.
    pub signal: Option<String>,
    /// The task that it runs, or ran, as its own.
    pub child: Option<ChildRow>,
    /// Why it was skipped: `operator, blocked, decision`.
    pub skipped_as: Option<String>,
    /// Counts its runs: 0, more after a retry from here.
    pub run: i32,
    /// This attempt, or the last one.
    pub attempt: i32,
    /// Attempts in all.
    pub max_attempts: Option<i32>,
    /// How long one attempt may take.
    pub timeout_ms: Option<i32>,
    /// Its handler.
    pub handler: Option<String>,
    /// Its queue.
    pub queue: Option<String>,
    /// Its priority.
    pub priority: Option<Priority>,
    /// The names of its parents.
    pub parents: Vec<String>,
    /// How many items a map, or ranges a batch, has; nothing until it fanned out.
    pub item_count: Option<i32>,
    /// Its result; that of a map or batch where it is not over 256 KiB.
    pub result: Option<Payload>,
    /// Its last error, also while it is retrying.
    pub error: Option<Payload>,
    /// What it saved to go on from.
    pub checkpoint: Option<Payload>,
    /// When the attempt began that runs or ended last.
    pub started_at: Option<DateTime<Utc>>,
    /// When it reached its end.
    pub finished_at: Option<DateTime<Utc>>,
    /// How long the last finished attempt ran.
    pub duration_ms: Option<i32>,
    /// The worker that runs it, or ended the last attempt.
    pub worker: Option<String>,
}

/// A step on its way to [`StepRow`].
struct Raw {
    row: StepRow,
    parents: Vec<i32>,
    queue_id: Option<i32>,
    generation: i32,
    is_held: bool,
    has_lease: bool,
}

/// A message of a step: whether somebody read it, and until when it is invisible.
struct Message {
    idx: i32,
    generation: i32,
    is_read: bool,
    until: DateTime<Utc>,
}

impl Engine {
    /// Reads a task and its steps in one snapshot.
    pub async fn task_detail(&self, task: TaskId) -> Result<TaskDetail> {
        let doing = "reading a task";
        let row = self.task_row(task).await?;
        let mut tx = self
            .pool()
            .begin_with("begin isolation level repeatable read read only")
            .await
            .map_err(|error| to_error(doing, error))?;
        let head = sqlx::query(self.statement(
            "select r.hash, r.version, k.input::text as input, k.correlation_id, k.trace::text as trace, {schema}.now() as read_at, \
             k.parent_task, coalesce(s.name, w.name) as parent_step \
             from {schema}.task k join {schema}.revision r on r.revision_id = k.revision_id \
             left join {schema}.task p on p.task_id = k.parent_task \
             left join {schema}.step s on s.task_id = k.parent_task and s.idx = k.parent_idx \
             left join {schema}.workflow_step w on w.revision_id = p.revision_id and w.idx = k.parent_idx where k.task_id = $1",
        ))
        .bind(task.0)
        .fetch_optional(self.on(&mut tx))
        .await
        .map_err(|error| to_error(doing, error))?
        .ok_or_else(|| no_task(task))?;
        let rows = sqlx::query(self.statement(include_str!("steps.sql")))
            .bind(task.0)
            .fetch_all(self.on(&mut tx))
            .await
            .map_err(|error| to_error(doing, error))?;
        let mut steps = Vec::with_capacity(rows.len());
        for row in &rows {
            steps.push(raw(row).map_err(|error| to_error(doing, error))??);
        }
        let messages = self.messages(&mut tx, task, &steps).await?;
        tx.commit().await.map_err(|error| to_error(doing, error))?;
        let output = match self.task_output(task).await {
            // It is read by its steps.
            Err(error) if error.kind == ErrorKind::ContextTooLarge => None,
            output => output?,
        };
        let field = |error| to_error(doing, error);
        let read_at: DateTime<Utc> = head.try_get("read_at").map_err(field)?;
        let parent: Option<uuid::Uuid> = head.try_get("parent_task").map_err(field)?;
        let step: Option<String> = head.try_get("parent_step").map_err(field)?;
        Ok(TaskDetail {
            parent: parent.map(|id| ParentRow { task_id: TaskId(id), step: step.unwrap_or_default() }),
            task: row,
            revision: head.try_get("hash").map_err(field)?,
            version: head.try_get("version").map_err(field)?,
            input: payload(&head, "input").map_err(field)?.unwrap_or_default(),
            output,
            correlation_id: head.try_get("correlation_id").map_err(field)?,
            trace: payload(&head, "trace").map_err(field)?,
            steps: finish(steps, &messages, read_at),
            read_at,
        })
    }

    /// Finds the messages of ready steps that nothing else tells of: a worker names what it runs only with its next heartbeat.
    async fn messages(&self, conn: &mut PgConnection, task: TaskId, steps: &[Raw]) -> Result<Vec<Message>> {
        let mut tables: Vec<String> = steps
            .iter()
            .filter(|s| s.row.state == StepState::Ready && !s.is_held && !s.has_lease && s.row.due_at.is_none())
            .filter_map(|s| {
                let band = s.row.priority?.number();
                Some(format!("q_{}{}_{band}", self.schema().queue_prefix(), s.queue_id?))
            })
            .collect();
        tables.sort_unstable();
        tables.dedup();
        let doing = "reading a task's messages";
        let mut found = Vec::new();
        for table in tables {
            let is_small: Option<bool> =
                sqlx::query_scalar("select pg_relation_size(to_regclass('pgmq.' || $1::text)) <= $2")
                    .bind(&table)
                    .bind(SEARCHED_BYTES)
                    .fetch_one(self.on(conn))
                    .await
                    .map_err(|error| to_error(doing, error))?;
            if is_small != Some(true) {
                continue;
            }
            let rows: Vec<(i32, i32, i32, DateTime<Utc>)> = sqlx::query_as(self.statement(&format!(
                "select (message->>'i')::int, (message->>'g')::int, read_ct::int, vt from pgmq.{table} \
                 where vt > {{schema}}.now() and (message->>'t')::uuid = $1"
            )))
            .bind(task.0)
            .fetch_all(self.on(conn))
            .await
            .map_err(|error| to_error(doing, error))?;
            found.extend(rows.into_iter().map(|(idx, generation, read, until)| Message {
                idx,
                generation,
                is_read: read > 0,
                until,
            }));
        }
        Ok(found)
    }
}

fn raw(row: &PgRow) -> sqlx::Result<Result<Raw>> {
    let state = match row.try_get::<&str, _>("state")?.parse() {
        Ok(state) => state,
        Err(error) => return Ok(Err(error)),
    };
    let child: Option<uuid::Uuid> = row.try_get("child")?;
    let child = match row.try_get::<Option<&str>, _>("child_state")?.map(str::parse).transpose() {
        Ok(state) => child.zip(state).map(|(id, state)| ChildRow { task_id: TaskId(id), state }),
        Err(error) => return Ok(Err(error)),
    };
    let priority: i16 = row.try_get("priority")?;
    let held: Option<String> = row.try_get("held")?;
    let lease_started_at: Option<DateTime<Utc>> = row.try_get("lease_started_at")?;
    let duration_ms: Option<i32> = row.try_get("duration_ms")?;
    let last_at: Option<DateTime<Utc>> = row.try_get("last_at")?;
    let last_started_at = last_at.zip(duration_ms).map(|(at, ms)| at - TimeDelta::milliseconds(ms.into()));
    let lease_worker: Option<String> = row.try_get("lease_worker")?;
    let last_worker: Option<String> = row.try_get("last_worker")?;
    Ok(Ok(Raw {
        parents: row.try_get("parents")?,
        queue_id: row.try_get("queue_id")?,
        generation: row.try_get("gen")?,
        is_held: held.is_some(),
        has_lease: lease_started_at.is_some(),
        row: StepRow {
            idx: row.try_get("idx")?,
            name: row.try_get::<Option<String>, _>("name")?.unwrap_or_default(),
            state,
            display: StepDisplay::Waiting,
            due_at: row.try_get("due_at")?,
            held,
            signal: row.try_get("signal")?,
            child,
            skipped_as: row.try_get("skipped_as")?,
            run: row.try_get("run")?,
            attempt: row.try_get("attempt")?,
            max_attempts: row.try_get("max_attempts")?,
            timeout_ms: row.try_get("timeout_ms")?,
            handler: row.try_get("handler")?,
            queue: row.try_get("queue")?,
            priority: Priority::from_number(priority.into()),
            parents: Vec::new(),
            item_count: row.try_get("item_count")?,
            result: payload(row, "result")?,
            error: payload(row, "error")?,
            checkpoint: payload(row, "checkpoint")?,
            started_at: lease_started_at.or(last_started_at),
            finished_at: row.try_get("finished_at")?,
            duration_ms,
            worker: lease_worker.or(last_worker),
        },
    }))
}

fn finish(steps: Vec<Raw>, messages: &[Message], now: DateTime<Utc>) -> Vec<StepRow> {
    let names: Vec<(i32, String)> = steps.iter().map(|step| (step.row.idx, step.row.name.clone())).collect();
    let name_of = |idx: &i32| names.iter().find(|(i, _)| i == idx).map(|(_, name)| name.clone());
    let finish_one = |raw: Raw| {
        let mut row = raw.row;
        let message = messages.iter().find(|m| m.idx == row.idx && m.generation == raw.generation && m.until > now);
        row.parents = raw.parents.iter().filter_map(name_of).collect();
        let unread = message.filter(|m| !m.is_read);
        row.due_at = row.due_at.or(unread.map(|m| m.until));
        row.display = display(Signs {
            state: row.state,
            attempt: row.attempt,
            is_held: raw.is_held,
            is_delayed: row.due_at.is_some(),
            is_leased: raw.has_lease || message.is_some_and(|m| m.is_read),
        });
        row
    };
    steps.into_iter().map(finish_one).collect()
}
