//! Registering workflow revisions and choosing the current one.

use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;
use tasker_model::definition::{Durability, OnFailure};
use tasker_model::revision::Revision;
use tasker_model::wait::{Until, Wait};
use tasker_model::{Definition, Error, ErrorKind, Fan, Payload, Result, RevisionStep, Source, WorkflowRef};

use crate::{Engine, retrying, to_error};

/// A registered revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// Its id in this database.
    pub revision_id: i32,
    /// False where the same content had been registered before.
    pub created: bool,
}

#[derive(Serialize)]
struct StepColumns<'a> {
    idx: i32,
    name: &'a str,
    handler: Option<&'a str>,
    queue: &'a str,
    priority: Option<i32>,
    parents: &'a [i32],
    children: &'a [i32],
    is_sink: bool,
    auto: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fan: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    child: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undo: Option<&'a str>,
    max_attempts: u32,
    timeout_ms: u64,
}

impl Engine {
    /// Registers a revision in a transaction of its own, on a connection of its own: the pool's may all be held by transactions that wait
    /// for this. The first registration of a new content becomes the workflow's current one. Idempotent.
    pub async fn register(&self, revision: &Revision) -> Result<Registered> {
        let steps: Vec<_> = revision
            .steps
            .iter()
            .map(|s| StepColumns {
                idx: s.idx,
                name: &s.name,
                handler: s.calls_handler().then_some(&*s.handler),
                queue: &s.queue,
                priority: s.priority.map(tasker_model::definition::Priority::number),
                parents: &s.parents,
                children: &s.children,
                is_sink: s.is_sink,
                auto: s.is_auto(),
                wait: s.wait.as_ref().map(|wait| wait_column(revision, wait)),
                fan: s.fan.as_ref().map(|fan| fan_column(revision, fan)),
                child: s.child.as_ref().map(|child| child_column(revision, s, child)),
                undo: s.undo.as_deref(),
                max_attempts: s.retry.max_attempts,
                timeout_ms: s.timeout_ms,
            })
            .collect();
        let steps = Payload::from_value(&steps)?;
        let definition = &revision.definition;
        let text = Payload::from_value(definition)?;
        let check = Payload::from_value(&revision.input_check)?;
        let sql = self.statement(
            "select revision_id, created from {schema}.register_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        );
        let mut conn = self.open().await?;
        if revision.steps.iter().any(|step| !step.routes.is_empty()) {
            self.require(&mut conn, "decide_step", "decisions").await?;
        }
        if revision.steps.iter().any(|step| step.wait.is_some()) {
            self.require(&mut conn, "signal_v1", "waits").await?;
        }
        if !definition.events.is_empty() {
            self.require(&mut conn, "register_events", "events").await?;
        }
        if revision.steps.iter().any(|step| step.fan.is_some() || step.child.is_some() || step.undo.is_some()) {
            self.require(&mut conn, "fan_out", "maps, batches, child tasks and undo").await?;
        }
        let (revision_id, created) = retrying!(
            sqlx::query_as(sql.clone())
                .bind(&definition.namespace)
                .bind(&definition.name)
                .bind(&revision.hash)
                .bind(&definition.version)
                .bind(text.get())
                .bind(check.get())
                .bind(&definition.search)
                .bind(match definition.on_failure {
                    OnFailure::FailFast => "fail_fast",
                    OnFailure::Continue => "continue",
                })
                .bind(match definition.durability {
                    Durability::Strict => "strict",
                    Durability::Relaxed => "relaxed",
                })
                .bind(steps.get())
                .fetch_one(self.on(&mut conn))
                .await
                .map_err(|error| { to_error(&format!("registering workflow {}", definition.reference()), error,) })
        )?;
        Ok(Registered { revision_id, created })
    }

    /// Refuses what the functions of an older release would lose: a program may run before its schema is brought up to date.
    async fn require(&self, conn: &mut PgConnection, function: &str, what: &str) -> Result<()> {
        let sql = self
            .statement("select exists (select from pg_proc where pronamespace = to_regnamespace($1) and proname = $2)");
        let is_there: bool = sqlx::query_scalar(sql)
            .bind(self.schema().to_string())
            .bind(function)
            .fetch_one(self.on(conn))
            .await
            .map_err(|error| to_error("looking at the schema's functions", error))?;
        if is_there {
            return Ok(());
        }
        let message = format!(
            "schema {} is of a release that knows no {what}; bring it up to date: tasker db migrate",
            self.schema()
        );
        Err(Error::new(ErrorKind::Conflict, message))
    }

    /// Reads a registered revision back and compiles it.
    pub async fn revision(&self, conn: &mut PgConnection, revision_id: i32) -> Result<Revision> {
        let sql = self.statement("select definition::text from {schema}.revision where revision_id = $1");
        let text: String = sqlx::query_scalar(sql)
            .bind(revision_id)
            .fetch_one(self.on(conn))
            .await
            .map_err(|error| to_error(&format!("reading revision {revision_id}"), error))?;
        let definition: Definition = Payload::parse(&text)?.to()?;
        Revision::compile(definition).map_err(|problems| {
            let list = problems.iter().map(|p| p.message.as_str()).collect::<Vec<_>>().join("; ");
            tasker_model::Error::new(
                tasker_model::ErrorKind::Internal,
                format!("revision {revision_id} of the database does not compile: {list}; is this program older than the one that registered it?"),
            )
        })
    }

    /// Finds a workflow's current revision; `not_found` with the registered names where there is none.
    pub async fn current_revision(&self, conn: &mut PgConnection, workflow: &WorkflowRef) -> Result<i32> {
        let sql = self.statement(
            "select w.current_revision, (select string_agg(x.namespace || '.' || x.name, ' ') from {schema}.workflow x) \
             from (select 1) one left join {schema}.workflow w on w.namespace = $1 and w.name = $2",
        );
        let (found, names): (Option<i32>, Option<String>) = sqlx::query_as(sql)
            .bind(&workflow.namespace)
            .bind(&workflow.name)
            .fetch_one(self.on(conn))
            .await
            .map_err(|error| to_error("finding the workflow", error))?;
        found.ok_or_else(|| {
            let known: Vec<&str> = names.as_deref().unwrap_or_default().split_whitespace().collect();
            let hint = match tasker_model::nearest(&workflow.to_string(), known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None if known.is_empty() => {
                    "none is registered yet; a worker registers its own when it starts".to_owned()
                }
                None => format!("registered: {}", known.join(", ")),
            };
            tasker_model::Error::new(
                tasker_model::ErrorKind::NotFound,
                format!("workflow {workflow} is not registered; {hint}"),
            )
        })
    }

    /// Makes a registered revision current: `which` is a hash, a unique start of one, or a version. Answers its hash.
    pub async fn activate(&self, workflow: &WorkflowRef, which: &str) -> Result<String> {
        if which.is_empty() {
            let message = format!(
                "no revision of workflow {workflow} is named; give a version, or a hash of: tasker workflow show"
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let sql = self.statement("select hash from {schema}.activate_workflow($1, $2, $3)");
        sqlx::query_scalar(sql)
            .bind(&workflow.namespace)
            .bind(&workflow.name)
            .bind(which)
            .fetch_one(self.single())
            .await
            .map_err(|error| to_error("activating a revision", error))
    }
}

/// What SQL needs to know of a place: `{"input": path}`, or `{"step": idx, "path": path}`.
fn place(revision: &Revision, source: &Source) -> serde_json::Value {
    match source {
        Source::Step { step, path } => {
            json!({ "step": revision.step_by_name(step).map(|step| step.idx), "path": path })
        }
        Source::Input { path } | Source::Item { path } => json!({ "input": path }),
    }
}

/// What SQL needs to know of a map or batch.
fn fan_column(revision: &Revision, fan: &Fan) -> serde_json::Value {
    let mut column = match &fan.list {
        Some(list) => place(revision, list),
        None => json!({}),
    };
    column["kind"] = if fan.list.is_some() { "map" } else { "batch" }.into();
    column["in_flight"] = fan.in_flight.into();
    column["mode"] = fan.failures.as_str().into();
    column
}

/// What SQL needs to know of a child task.
fn child_column(revision: &Revision, step: &RevisionStep, child: &WorkflowRef) -> serde_json::Value {
    let with = step.bindings.iter().map(|binding| {
        let mut with = place(revision, &binding.source);
        with["param"] = binding.param.as_str().into();
        with["optional"] = binding.optional.into();
        with
    });
    json!({ "workflow": child.to_string(), "with": with.collect::<Vec<_>>() })
}

/// What SQL needs to know of a wait.
fn wait_column(revision: &Revision, wait: &Wait) -> serde_json::Value {
    let mut column = serde_json::Map::new();
    let mut set = |key: &str, value: serde_json::Value| column.insert(key.to_owned(), value);
    if let Some(ms) = wait.for_ms {
        set("for_ms", ms.into());
    }
    match &wait.until {
        Some(until @ Until::Time(_)) => drop(set("until", until.to_string().into())),
        Some(Until::Value(Source::Input { path })) => drop(set("until_input", path.clone().into())),
        Some(Until::Value(Source::Step { step, path })) => {
            set("until_step", revision.step_by_name(step).map(|step| step.idx).into());
            set("until_path", path.clone().into());
        }
        Some(Until::Value(Source::Item { .. })) | None => {}
    }
    if let Some(signal) = &wait.signal {
        set("signal", signal.as_str().into());
    }
    if let Some(ms) = wait.timeout_ms {
        set("timeout_ms", ms.into());
    }
    if let Some(default) = &wait.default {
        set("default", default.clone());
    }
    column.into()
}
