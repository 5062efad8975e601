//! Registered workflows and their revisions.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::Row;
use tasker_model::{Payload, Result, WorkflowRef};

use crate::hot::payload;
use crate::{Engine, to_error};

/// One workflow in the list.
#[derive(Debug, Clone, Serialize)]
pub struct WorkflowRow {
    /// Its name.
    pub workflow: WorkflowRef,
    /// The content hash of the current revision.
    pub revision: Option<String>,
    /// The version of the current revision.
    pub version: Option<String>,
    /// How many revisions are registered.
    pub revisions: i64,
    /// How many steps the current one has.
    pub steps: i64,
    /// Whether it is paused.
    pub paused: bool,
    /// When its last task was submitted.
    pub last_task_at: Option<DateTime<Utc>>,
}

/// A workflow with its current definition.
#[derive(Debug, Clone, Serialize)]
pub struct WorkflowDetail {
    /// Its row in the list.
    #[serde(flatten)]
    pub row: WorkflowRow,
    /// The current definition, in its canonical form.
    pub definition: Payload,
    /// The steps of the current revision.
    pub step_list: Vec<WorkflowStepRow>,
    /// All revisions, newest first.
    pub revision_list: Vec<RevisionRow>,
}

/// A registered revision.
#[derive(Debug, Clone, Serialize)]
pub struct RevisionRow {
    /// Its content hash.
    pub revision: String,
    /// Its version.
    pub version: Option<String>,
    /// Whether a submit by name uses it.
    pub current: bool,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
}

/// A step of a revision.
#[derive(Debug, Clone, Serialize)]
pub struct WorkflowStepRow {
    /// Its number.
    pub idx: i32,
    /// Its name.
    pub name: String,
    /// Its handler.
    pub handler: Option<String>,
    /// The runtime of the handler, once a worker announced it.
    pub kind: Option<String>,
    /// Its queue.
    pub queue: Option<String>,
    /// Attempts in all.
    pub max_attempts: i32,
    /// How long one attempt may take.
    pub timeout_ms: i32,
    /// The names of its parents.
    pub parents: Vec<String>,
}

const ROWS: &str = "select w.workflow_id, w.namespace, w.name, r.hash, r.version, w.paused, \
    (select count(*) from {schema}.revision x where x.workflow_id = w.workflow_id) as revisions, \
    (select count(*) from {schema}.workflow_step x where x.revision_id = w.current_revision) as steps, \
    (select k.created_at from {schema}.task k where k.workflow_id = w.workflow_id order by k.task_id desc limit 1) as last_task_at \
    from {schema}.workflow w left join {schema}.revision r on r.revision_id = w.current_revision ";

impl Engine {
    /// Lists the workflows by name.
    pub async fn workflows(&self) -> Result<Vec<WorkflowRow>> {
        let doing = "listing the workflows";
        let rows = sqlx::query(self.statement(&format!("{ROWS} order by w.namespace, w.name")))
            .fetch_all(self.single())
            .await
            .map_err(|error| to_error(doing, error))?;
        rows.iter().map(|row| workflow_row(row).map_err(|error| to_error(doing, error))).collect()
    }

    /// Reads a workflow, its current revision and the list of all; `not_found` with the nearest name where there is none.
    pub async fn workflow(&self, workflow: &WorkflowRef) -> Result<WorkflowDetail> {
        let doing = "reading a workflow";
        let mut conn = self.acquire().await?;
        let current = self.current_revision(&mut conn, workflow).await?;
        let row = sqlx::query(self.statement(&format!("{ROWS} where w.namespace = $1 and w.name = $2")))
            .bind(&workflow.namespace)
            .bind(&workflow.name)
            .fetch_one(self.on(&mut conn))
            .await
            .map_err(|error| to_error(doing, error))?;
        let revisions = sqlx::query(self.statement(
            "select r.hash, r.version, r.revision_id = $2 as current, r.created_at, \
             case when r.revision_id = $2 then r.definition::text end as definition \
             from {schema}.revision r where r.workflow_id = $1 order by r.revision_id desc",
        ))
        .bind(row.try_get::<i32, _>("workflow_id").map_err(|error| to_error(doing, error))?)
        .bind(current)
        .fetch_all(self.on(&mut conn))
        .await
        .map_err(|error| to_error(doing, error))?;
        let steps = sqlx::query(self.statement(
            "select d.idx, d.name, h.name as handler, h.kind, g.queue, d.max_attempts, d.timeout_ms, \
             array(select p.name from {schema}.workflow_step p where p.revision_id = d.revision_id and p.idx = any(d.parents) order by p.idx) as parents \
             from {schema}.workflow_step d left join {schema}.target g on g.target_id = d.target_id \
             left join {schema}.handler h on h.handler_id = g.handler_id where d.revision_id = $1 order by d.idx",
        ))
        .bind(current)
        .fetch_all(self.on(&mut conn))
        .await
        .map_err(|error| to_error(doing, error))?;
        let read = || -> sqlx::Result<WorkflowDetail> {
            let mut definition = Payload::null();
            let mut revision_list = Vec::with_capacity(revisions.len());
            for revision in &revisions {
                if let Some(text) = payload(revision, "definition")? {
                    definition = text;
                }
                revision_list.push(RevisionRow {
                    revision: revision.try_get("hash")?,
                    version: revision.try_get("version")?,
                    current: revision.try_get("current")?,
                    created_at: revision.try_get("created_at")?,
                });
            }
            Ok(WorkflowDetail {
                row: workflow_row(&row)?,
                definition,
                step_list: steps.iter().map(step_row).collect::<sqlx::Result<_>>()?,
                revision_list,
            })
        };
        read().map_err(|error| to_error(doing, error))
    }
}

fn workflow_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<WorkflowRow> {
    Ok(WorkflowRow {
        workflow: WorkflowRef { namespace: row.try_get("namespace")?, name: row.try_get("name")? },
        revision: row.try_get("hash")?,
        version: row.try_get("version")?,
        revisions: row.try_get("revisions")?,
        steps: row.try_get("steps")?,
        paused: row.try_get("paused")?,
        last_task_at: row.try_get("last_task_at")?,
    })
}

fn step_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<WorkflowStepRow> {
    Ok(WorkflowStepRow {
        idx: row.try_get("idx")?,
        name: row.try_get("name")?,
        handler: row.try_get("handler")?,
        kind: row.try_get("kind")?,
        queue: row.try_get("queue")?,
        max_attempts: row.try_get("max_attempts")?,
        timeout_ms: row.try_get("timeout_ms")?,
        parents: row.try_get("parents")?,
    })
}
