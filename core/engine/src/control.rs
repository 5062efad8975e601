//! Operator verbs. They take the locks of all the task's steps and of the task, raise `gen` where a step must run anew, and never
//! search a queue.

use sqlx::PgConnection;
use tasker_model::state::TaskState;
use tasker_model::{Error, ErrorKind, Payload, Result, TaskId, nearest};

use crate::hot::Reply;
use crate::{Engine, pgmq, retrying, to_error};

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
        self.end("select {schema}.cancel($1, $2, $3)", "cancelling", task, actor, reason).await
    }

    /// Sends a signal to a task: the step that waits for it is done, with the payload as its result. Where none waits yet it is kept for
    /// the one that will. Answers the name of the step that took it.
    ///
    /// Fails with `not_found` for an unknown task, `invalid` for a signal that no step of its workflow waits for (the nearest name is
    /// given) and for a payload that the step's schema does not allow, `conflict` where the task has ended.
    pub async fn signal(&self, task: TaskId, name: &str, payload: &Payload, actor: &str) -> Result<Option<String>> {
        let mut conn = self.acquire().await?;
        self.signal_on(&mut conn, task, name, payload, actor).await
    }

    /// The same on the caller's connection, in its transaction if it has begun one.
    pub async fn signal_on(
        &self,
        conn: &mut PgConnection,
        task: TaskId,
        name: &str,
        payload: &Payload,
        actor: &str,
    ) -> Result<Option<String>> {
        let revision: Option<i32> =
            sqlx::query_scalar(self.statement("select revision_id from {schema}.task where task_id = $1"))
                .bind(task.0)
                .fetch_optional(self.on(conn))
                .await
                .map_err(|error| to_error("finding the task", error))?;
        let revision = match revision {
            Some(revision) => self.revision(conn, revision).await?,
            None => return Err(crate::queries::no_task(task)),
        };
        let signals = || revision.steps.iter().filter_map(|step| step.wait.as_ref()?.signal.as_deref());
        let waits = || {
            revision.steps.iter().filter_map(|step| step.wait.as_ref()).filter(|w| w.signal.as_deref() == Some(name))
        };
        if waits().next().is_none() && !self.is_awaited(conn, task, name).await? {
            let hint = match nearest(name, signals()) {
                Some(near) => format!("; did you mean `{near}`?"),
                None if signals().next().is_none() => "; it waits for none".to_owned(),
                None => format!("; it waits for {}", signals().collect::<Vec<_>>().join(", ")),
            };
            let message =
                format!("no step of workflow {} waits for signal `{name}`{hint}", revision.definition.reference());
            return Err(Error::new(ErrorKind::Invalid, message).with("signal", name));
        }
        for wait in waits() {
            wait.check_payload(payload.get())?;
        }
        let sql = self.statement("select * from {schema}.signal_v1($1, $2, $3, $4)");
        let rows = retrying!(
            sqlx::query(sql.clone())
                .bind(task.0)
                .bind(name)
                .bind(payload.get())
                .bind(actor)
                .fetch_all(self.on(conn))
                .await
                .map_err(|error| to_error("sending a signal", error))
        )?;
        let reply = Reply::read(&rows)?;
        let queues: Vec<i32> = reply.left.iter().map(|(queue, _)| *queue).collect();
        if !queues.is_empty() {
            // The step is committed; polling finds it as well.
            if let Err(error) = pgmq::wake(self, conn, &queues).await {
                tracing::debug!(%error, "waking workers after a signal");
            }
        }
        let taken_by = reply.taken_by.and_then(|idx| revision.steps.iter().find(|step| step.idx == idx));
        Ok(taken_by.map(|step| step.name.clone()))
    }

    /// Says whether a step waits for this signal because its handler asked for it.
    async fn is_awaited(&self, conn: &mut PgConnection, task: TaskId, name: &str) -> Result<bool> {
        let sql = self.statement(
            "select exists (select from {schema}.hold where task_id = $1 and reason = 'signal' and key = $2)",
        );
        sqlx::query_scalar(sql)
            .bind(task.0)
            .bind(name)
            .fetch_one(self.on(conn))
            .await
            .map_err(|error| to_error("looking for steps that wait", error))
    }

    /// Undoes what a task did: one that runs is cancelled, which undoes it; one that is complete is opened again, undone, and ends as
    /// cancelled. Fails with `not_found` for an unknown task, `invalid` without a reason or where no step of it has an `undo`, `conflict`
    /// where it was undone or had nothing to undo.
    pub async fn compensate(&self, task: TaskId, actor: &str, reason: &str) -> Result<CancelReply> {
        if reason.trim().is_empty() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "undoing a task needs a reason; give one that the next reader understands",
            ));
        }
        self.end("select {schema}.compensate($1, $2, $3)", "undoing a task", task, actor, reason).await
    }

    /// Calls a verb that ends a task.
    async fn end(&self, call: &str, doing: &str, task: TaskId, actor: &str, reason: &str) -> Result<CancelReply> {
        let sql = self.statement(call);
        let state: String = retrying!(
            sqlx::query_scalar(sql.clone())
                .bind(task.0)
                .bind(actor)
                .bind(reason)
                .fetch_one(self.single())
                .await
                .map_err(|error| to_error(doing, error))
        )?;
        if state == "ending" { Ok(CancelReply::Ending) } else { Ok(CancelReply::Ended(state.parse()?)) }
    }
}
