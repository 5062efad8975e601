//! `ctx.transaction`: the handler's rows and the step's result in one commit, so that its effects in the database happen exactly once.
//!
//! The block runs in a transaction of its own; settling is its last statement. If another holder of the step was faster, that statement
//! fails and the rows roll back with it: then nothing is reported, for the step is no longer ours.

use std::fmt;

use serde::Serialize;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tasker_engine::{Reply, to_error};
use tasker_model::limits::RESULT_BYTES;
use tasker_model::payload::check_payload;
use tasker_model::{Error, ErrorKind, Outcome, Payload, Result};

use crate::StepContext;
use crate::answer::answer;
use crate::context::Phase;

/// Proves that the step was settled in the handler's own transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled(());

impl From<Settled> for Outcome {
    fn from(_: Settled) -> Self {
        Outcome::Settled
    }
}

/// Why a step's transaction did not commit.
#[derive(Debug)]
pub enum TransactionError<E> {
    /// The block failed; it was rolled back, and this is the handler's to report.
    Work(E),
    /// The engine refused or the connection failed. Of kind `lease_lost` where another worker has the step by now: nothing that the
    /// handler returns is reported then.
    Engine(Error),
}

impl<E: fmt::Display> fmt::Display for TransactionError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work(error) => error.fmt(f),
            Self::Engine(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for TransactionError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Work(error) => Some(error),
            Self::Engine(error) => Some(error),
        }
    }
}

/// Puts the phase back if the block fails, panics or is dropped.
struct Entered<'a>(&'a StepContext);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if self.0.phase() == Phase::InTransaction {
            self.0.set_phase(Phase::Open);
        }
    }
}

impl StepContext {
    /// Runs `work` in a database transaction and settles the step with its value in the same commit.
    ///
    /// The isolation is READ COMMITTED. An `Err` rolls everything back and is the handler's to return. One inside another is an error,
    /// and so are a second one after the first committed and one in a step that decides.
    pub async fn transaction<T, E, F>(&self, work: F) -> Result<Settled, TransactionError<E>>
    where
        T: Serialize,
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    {
        if !self.step().routes.is_empty() {
            let message = format!(
                "step {} decides what runs after it, which its own transaction cannot store; write in a step before or after it",
                self.input().step.id
            );
            return Err(TransactionError::Engine(Error::new(ErrorKind::Invalid, message)));
        }
        self.enter_transaction().map_err(|phase| TransactionError::Engine(refused(self, phase)))?;
        let entered = Entered(self);
        let reply = match self.connection() {
            Some(connection) => self.in_savepoint(&mut *connection.lock().await, work).await,
            None => self.in_transaction(work).await,
        }?;
        self.set_phase(Phase::Settled);
        drop(entered);
        if let Some(process) = self.process() {
            process.after_transaction(&reply);
        }
        Ok(Settled(()))
    }

    async fn in_transaction<T, E, F>(&self, work: F) -> Result<Reply, TransactionError<E>>
    where
        T: Serialize,
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    {
        let mut conn = answer(self.engine().acquire()).await.map_err(TransactionError::Engine)?;
        let result = self.on_connection_of_its_own(&mut conn, work).await;
        if matches!(&result, Err(TransactionError::Engine(error)) if error.kind == ErrorKind::Unavailable) {
            // Nobody else is to wait for a connection that fell silent, or that is broken.
            conn.close_on_drop();
        }
        result
    }

    async fn on_connection_of_its_own<T, E, F>(
        &self,
        conn: &mut PgConnection,
        work: F,
    ) -> Result<Reply, TransactionError<E>>
    where
        T: Serialize,
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    {
        let engine = TransactionError::Engine;
        let begin = async {
            let begun = conn.begin_with("begin isolation level read committed").await;
            let mut tx = begun.map_err(|error| to_error("beginning the step's transaction", error))?;
            self.engine().forget_statements(&mut tx).await?;
            Ok(tx)
        };
        let mut tx = answer(begin).await.map_err(engine)?;
        let value = work(&mut tx).await.map_err(TransactionError::Work)?;
        let reply = answer(self.settle_in(&mut tx, &value)).await.map_err(engine)?;
        let commit = async { tx.commit().await.map_err(|error| to_error("committing the step's transaction", error)) };
        if let Err(error) = answer(commit).await {
            // It may have committed. Then redelivery finds the step done; else it runs again. To report anything would be a guess.
            self.set_phase(Phase::Forgotten);
            return Err(engine(error));
        }
        Ok(reply)
    }

    /// The same inside a transaction that somebody else will end.
    async fn in_savepoint<T, E, F>(&self, conn: &mut PgConnection, work: F) -> Result<Reply, TransactionError<E>>
    where
        T: Serialize,
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    {
        let engine = |e| TransactionError::Engine(to_error("in the step's savepoint", e));
        conn.execute("savepoint tasker_step").await.map_err(engine)?;
        let result = match work(&mut *conn).await {
            Ok(value) => self.settle_in(conn, &value).await.map_err(TransactionError::Engine),
            Err(error) => Err(TransactionError::Work(error)),
        };
        let end = if result.is_ok() { "release savepoint tasker_step" } else { "rollback to savepoint tasker_step" };
        conn.execute(end).await.map_err(engine)?;
        result
    }

    async fn settle_in(&self, conn: &mut PgConnection, value: &impl Serialize) -> Result<Reply> {
        let value = Payload::from_value(value)?;
        check_payload(ErrorKind::ResultRejected, value.get(), RESULT_BYTES, "the result")?;
        let worker_id = self.process().map(|process| process.worker_id);
        let settled = self.engine().settle_here(conn, self.lease(), &value, self.started().elapsed(), worker_id).await;
        if let Err(error) = &settled
            && error.kind == ErrorKind::LeaseLost
        {
            self.set_phase(Phase::Forgotten);
            self.token().cancel();
        }
        settled
    }
}

fn refused(ctx: &StepContext, phase: Phase) -> Error {
    let step = &ctx.input().step.id;
    let message = match phase {
        Phase::InTransaction => {
            format!("step {step} began a transaction inside its transaction; use the one it has")
        }
        Phase::Forgotten => {
            format!("the lease of step {step} was lost; return without doing anything more")
        }
        Phase::Open | Phase::Settled => {
            format!("step {step} is settled already; do all its work in one transaction")
        }
    };
    let kind = if phase == Phase::Forgotten { ErrorKind::LeaseLost } else { ErrorKind::Invalid };
    Error::new(kind, message)
}
