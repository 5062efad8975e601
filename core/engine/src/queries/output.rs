//! A task's output, assembled when it is asked for.

use sqlx::Row;
use sqlx::postgres::PgRow;
use tasker_model::limits::CONTEXT_BYTES;
use tasker_model::{Error, ErrorKind, Payload, Result, TaskId, TaskState};

use super::tasks::no_task;
use crate::hot::payload;
use crate::{Engine, to_error};

/// How a task ended.
#[derive(Debug, Clone)]
pub struct TaskEnd {
    /// Its last state.
    pub state: TaskState,
    /// Why it failed or was cancelled.
    pub error: Option<Payload>,
    /// Its output, if it completed.
    pub output: Option<Payload>,
}

/// A step that a task's output is made of.
struct Sink {
    name: String,
    is_done: bool,
    /// In bytes; what is too large is not read.
    size: i64,
    result: Payload,
}

impl Engine {
    /// Reads the output of a complete task: the result of its only sink, or, with several, an object of their results without skipped
    /// ones. None while the task runs, or when it did not complete. Fails with `context_too_large` above 4 MiB.
    pub async fn task_output(&self, task: TaskId) -> Result<Option<Payload>> {
        Ok(self.task_end(task).await?.and_then(|end| end.output))
    }

    /// Reads how a task ended, in one statement; none while it runs. Fails with `not_found` for an unknown task, and like
    /// [`Engine::task_output`].
    pub async fn task_end(&self, task: TaskId) -> Result<Option<TaskEnd>> {
        let doing = "reading a task's output";
        let rows = sqlx::query(self.sql.task_end.clone())
            .bind(task.0)
            .fetch_all(self.single())
            .await
            .map_err(|error| to_error(doing, error))?;
        let first = rows.first().ok_or_else(|| no_task(task))?;
        let state: TaskState = first.try_get::<&str, _>("state").map_err(|error| to_error(doing, error))?.parse()?;
        if !state.is_terminal() {
            return Ok(None);
        }
        let error = payload(first, "error").map_err(|error| to_error(doing, error))?;
        if state != TaskState::Complete {
            return Ok(Some(TaskEnd { state, error, output: None }));
        }
        let sinks = rows.iter().map(sink).collect::<sqlx::Result<Vec<_>>>().map_err(|error| to_error(doing, error))?;
        Ok(Some(TaskEnd { state, error, output: Some(assemble(task, sinks)?) }))
    }
}

fn sink(row: &PgRow) -> sqlx::Result<Sink> {
    Ok(Sink {
        name: row.try_get("name")?,
        is_done: row.try_get::<Option<&str>, _>("step_state")? == Some("done"),
        size: row.try_get::<Option<i64>, _>("size")?.unwrap_or_default(),
        result: payload(row, "result")?.unwrap_or_default(),
    })
}

fn assemble(task: TaskId, sinks: Vec<Sink>) -> Result<Payload> {
    let size: i64 = sinks.iter().map(|sink| sink.size).sum();
    if usize::try_from(size).is_ok_and(|size| size > CONTEXT_BYTES) {
        return Err(Error::new(
            ErrorKind::ContextTooLarge,
            format!(
                "the output of task {task} has {size} bytes, at most {CONTEXT_BYTES} are assembled; read the steps' results one by one"
            ),
        ));
    }
    let is_only = sinks.len() == 1;
    let mut done = sinks.into_iter().filter(|sink| sink.is_done).map(|sink| (sink.name, sink.result));
    if is_only {
        return Ok(done.next().map(|(_, result)| result).unwrap_or_default());
    }
    Payload::from_value(&done.collect::<std::collections::BTreeMap<_, _>>())
}
