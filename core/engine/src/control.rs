//! Operator verbs. They take the locks of all the task's steps and of the task, raise `gen` where a step must run anew, and never
//! search a queue.

use tasker_model::state::TaskState;
use tasker_model::{Error, ErrorKind, Result, TaskId};

use crate::{Engine, retrying, to_error};

/// What a cancellation found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReply {
    /// The task is at its end, by this call or before it.
    Ended(TaskState),
    /// Nothing more starts; running handlers were asked to stop and have ten seconds.
    Ending,
}

impl Engine {
    /// Cancels a task. Idempotent. Fails with `not_found` for an unknown task, `invalid` without a reason.
    pub async fn cancel(&self, task: TaskId, actor: &str, reason: &str) -> Result<CancelReply> {
        if reason.trim().is_empty() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "cancelling needs a reason; give one that the next reader understands",
            ));
        }
        let sql = self.statement("select {schema}.cancel($1, $2, $3)");
        let state: String = retrying!(
            sqlx::query_scalar(sql.clone())
                .bind(task.0)
                .bind(actor)
                .bind(reason)
                .fetch_one(self.single())
                .await
                .map_err(|error| to_error("cancelling", error))
        )?;
        if state == "ending" { Ok(CancelReply::Ending) } else { Ok(CancelReply::Ended(state.parse()?)) }
    }
}
