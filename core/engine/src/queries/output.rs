//! A task's output, assembled when it is asked for.

use sqlx::Row;
use tasker_model::limits::CONTEXT_BYTES;
use tasker_model::{Error, ErrorKind, Payload, Result, TaskId};

use super::tasks::no_task;
use crate::hot::payload;
use crate::{Engine, to_error};

impl Engine {
    /// Reads the output of a complete task: the result of its only sink, or, with several, an object of their results without skipped
    /// ones. None while the task runs, or when it did not complete. Fails with `context_too_large` above 4 MiB.
    pub async fn task_output(&self, task: TaskId) -> Result<Option<Payload>> {
        let doing = "reading a task's output";
        let rows = sqlx::query(self.statement(
            "select k.state::text as state, w.name, s.state::text as step_state, s.result::text as result \
             from {schema}.task k \
             left join {schema}.workflow_step w on w.revision_id = k.revision_id and w.is_sink \
             left join {schema}.step s on s.task_id = k.task_id and s.idx = w.idx \
             where k.task_id = $1 order by w.idx",
        ))
        .bind(task.0)
        .fetch_all(self.single())
        .await
        .map_err(|error| to_error(doing, error))?;
        let mut sinks = Vec::with_capacity(rows.len());
        for row in &rows {
            let read = || -> sqlx::Result<_> {
                let state: Option<&str> = row.try_get("step_state")?;
                Ok((
                    row.try_get::<&str, _>("state")? == "complete",
                    row.try_get::<String, _>("name")?,
                    state == Some("done"),
                    payload(row, "result")?.unwrap_or_default(),
                ))
            };
            sinks.push(read().map_err(|error| to_error(doing, error))?);
        }
        match sinks.first() {
            None => return Err(no_task(task)),
            Some((is_complete, ..)) if !is_complete => return Ok(None),
            Some(_) => {}
        }
        let size: usize = sinks.iter().map(|(.., result)| result.get().len()).sum();
        if size > CONTEXT_BYTES {
            return Err(Error::new(
                ErrorKind::ContextTooLarge,
                format!(
                    "the output of task {task} has {size} bytes, at most {CONTEXT_BYTES} are assembled; read the steps' results one by one"
                ),
            ));
        }
        let only = sinks.len() == 1;
        let mut done =
            sinks.into_iter().filter(|(_, _, is_done, _)| *is_done).map(|(_, name, _, result)| (name, result));
        if only {
            return Ok(Some(done.next().map(|(_, result)| result).unwrap_or_default()));
        }
        let by_step: std::collections::BTreeMap<String, Payload> = done.collect();
        Payload::from_value(&by_step).map(Some)
    }
}
