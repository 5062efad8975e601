//! Lists of tasks, newest first.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Postgres, QueryBuilder, Row};
use tasker_model::definition::Priority;
use tasker_model::state::TaskState;
use tasker_model::{Error, ErrorKind, Payload, Result, TaskId, WorkflowRef};

use crate::hot::payload;
use crate::{Engine, to_error};

/// The most rows that one list answers; the next page starts where it ended.
const LIST_LIMIT: u32 = 1_000;

/// Which tasks to list. Everything given must hold.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// In this state.
    pub state: Option<TaskState>,
    /// Of workflows with this name.
    pub workflow: Option<String>,
    /// Of workflows in this namespace.
    pub namespace: Option<String>,
    /// Submitted with this key.
    pub key: Option<String>,
    /// A JSON object that the tags must contain.
    pub tags: Option<Payload>,
    /// Submitted at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// How many at most: 1 to 1,000; 50 where it is 0.
    pub limit: u32,
    /// Only tasks before this one in the list: the last one of the page before.
    pub before: Option<TaskId>,
}

/// One task in a list.
#[derive(Debug, Clone, Serialize)]
pub struct TaskRow {
    /// Its id.
    pub task_id: TaskId,
    /// Its workflow.
    pub workflow: WorkflowRef,
    /// Its stored state.
    pub state: TaskState,
    /// The state in which it will end, where it is ending already.
    pub ending: Option<TaskState>,
    /// Whether what it did is being undone, or was before it ended.
    pub compensating: bool,
    /// Whether it is paused.
    pub paused: bool,
    /// How many steps it has.
    pub steps: i64,
    /// How many of them are done.
    pub steps_done: i64,
    /// How many of them are at their end, done or not.
    pub steps_ended: i64,
    /// The idempotency key.
    pub key: Option<String>,
    /// The tags.
    pub tags: Payload,
    /// The priority of steps that name none.
    pub priority: Option<Priority>,
    /// When it was submitted.
    pub created_at: DateTime<Utc>,
    /// When its first steps may run.
    pub run_at: Option<DateTime<Utc>>,
    /// When it must be finished.
    pub deadline: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Why it failed or was cancelled.
    pub error: Option<Payload>,
}

/// The columns of [`TaskRow`]. The steps are counted by the primary key, for the rows of one page only.
const COLUMNS: &str = "k.task_id, w.namespace, w.name, k.state::text as state, k.ending::text as ending, k.compensating, k.paused, \
    s.steps, s.done, s.ended, k.key, k.tags::text as tags, k.priority, k.created_at, k.run_at, k.deadline, \
    k.finished_at, k.error::text as error";
const COUNTS: &str = "cross join lateral (select count(*) as steps, count(*) filter (where c.state = 'done') as done, \
    count(*) filter (where c.state not in ('waiting', 'ready')) as ended from {schema}.step c where c.task_id = k.task_id) s";

impl Engine {
    /// Lists tasks, newest first. Reads by index: state (open, failed, cancelled), workflow, tags, or the id's order.
    pub async fn list_tasks(&self, filter: &TaskFilter) -> Result<Vec<TaskRow>> {
        let doing = "listing tasks";
        let limit = match filter.limit {
            0 => 50,
            1..=LIST_LIMIT => filter.limit,
            more => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("a list has at most {LIST_LIMIT} tasks, {more} were asked for; page with `before`"),
                ));
            }
        };
        let mut conn = self.acquire().await?;
        let mut query = QueryBuilder::<Postgres>::new(
            self.schema().fill(&format!("select {COLUMNS} from (select * from {{schema}}.task t where true")),
        );
        if let Some(state) = filter.state {
            // As text, not as a parameter: a generic plan could not use the partial indexes.
            query.push(format_args!(" and t.state = '{state}'"));
            if state == TaskState::Running {
                query.push(" and t.finished_at is null");
            }
        }
        if filter.workflow.is_some() || filter.namespace.is_some() {
            let ids: Vec<i32> = sqlx::query_scalar(self.statement(
                "select workflow_id from {schema}.workflow where ($1::text is null or namespace = $1) and ($2::text is null or name = $2)",
            ))
            .bind(&filter.namespace)
            .bind(&filter.workflow)
            .fetch_all(self.on(&mut conn))
            .await
            .map_err(|error| to_error(doing, error))?;
            match ids[..] {
                [one] => query.push(" and t.workflow_id = ").push_bind(one),
                _ => query.push(" and t.workflow_id = any(").push_bind(ids).push(")"),
            };
        }
        if let Some(key) = &filter.key {
            query
                .push(self.schema().fill(" and t.task_id in (select x.task_id from {schema}.task_key x where x.key = "))
                .push_bind(key)
                .push(")");
        }
        if let Some(tags) = &filter.tags {
            // The index leaves out tasks without tags.
            query.push(" and t.tags <> '{}' and t.tags @> ").push_bind(tags.get().to_owned()).push("::text::jsonb");
        }
        if let Some(since) = filter.since {
            query.push(" and t.created_at >= ").push_bind(since).push(" and t.task_id >= ").push_bind(first_id(since));
        }
        if let Some(before) = filter.before {
            query.push(" and t.task_id < ").push_bind(before.0);
        }
        query
            .push(" order by t.task_id desc limit ")
            .push_bind(i64::from(limit))
            .push(self.schema().fill(") k join {schema}.workflow w on w.workflow_id = k.workflow_id "))
            .push(self.schema().fill(COUNTS))
            .push(" order by k.task_id desc");
        let rows = query.build().fetch_all(self.on(&mut conn)).await.map_err(|error| to_error(doing, error))?;
        rows.iter().map(|row| task_row(row, doing)).collect()
    }

    /// Reads one task's row for a list.
    pub async fn task_row(&self, task: TaskId) -> Result<TaskRow> {
        let doing = "reading a task";
        let sql = self.schema().fill(&format!(
            "select {COLUMNS} from {{schema}}.task k join {{schema}}.workflow w on w.workflow_id = k.workflow_id {COUNTS} where k.task_id = $1"
        ));
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(task.0)
            .fetch_optional(self.single())
            .await
            .map_err(|error| to_error(doing, error))?
            .ok_or_else(|| no_task(task))?;
        task_row(&row, doing)
    }
}

pub(crate) fn no_task(task: TaskId) -> Error {
    Error::new(ErrorKind::NotFound, format!("task {task} does not exist; see the tasks with: tasker task list"))
}

fn task_row(row: &PgRow, doing: &str) -> Result<TaskRow> {
    read(row).map_err(|error| to_error(doing, error))?
}

fn read(row: &PgRow) -> sqlx::Result<Result<TaskRow>> {
    let state: &str = row.try_get("state")?;
    let ending: Option<&str> = row.try_get("ending")?;
    let (state, ending) = match (state.parse(), ending.map(str::parse).transpose()) {
        (Ok(state), Ok(ending)) => (state, ending),
        (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
    };
    let priority: Option<i16> = row.try_get("priority")?;
    Ok(Ok(TaskRow {
        task_id: TaskId(row.try_get("task_id")?),
        workflow: WorkflowRef { namespace: row.try_get("namespace")?, name: row.try_get("name")? },
        state,
        ending,
        compensating: row.try_get("compensating")?,
        paused: row.try_get("paused")?,
        steps: row.try_get("steps")?,
        steps_done: row.try_get("done")?,
        steps_ended: row.try_get("ended")?,
        key: row.try_get("key")?,
        tags: payload(row, "tags")?.unwrap_or_default(),
        priority: priority.and_then(|number| Priority::from_number(number.into())),
        created_at: row.try_get("created_at")?,
        run_at: row.try_get("run_at")?,
        deadline: row.try_get("deadline")?,
        finished_at: row.try_get("finished_at")?,
        error: payload(row, "error")?,
    }))
}

/// The smallest id that a task submitted at `since` may have. Ids are made by the submitter's clock, which may be off by hours.
fn first_id(since: DateTime<Utc>) -> uuid::Uuid {
    let day_before = since - chrono::TimeDelta::days(1);
    let ms = u128::try_from(day_before.timestamp_millis()).unwrap_or_default();
    uuid::Uuid::from_u128(ms << 80)
}
