//! Saving where a long step is.

use std::future::IntoFuture;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::Serialize;
use sqlx::PgConnection;
use tasker_model::{ErrorKind, StepFailure};
use tasker_worker::StepContext;

use crate::StepError;

/// A checkpoint about to be saved; `.await` saves it. See [`Ctx::checkpoint`].
#[must_use = "a checkpoint is not saved until it is awaited"]
#[derive(Debug)]
pub struct SaveCheckpoint<'a> {
    save: tasker_worker::SaveCheckpoint<'a>,
    ctx: &'a StepContext,
    is_on: bool,
}

impl<'a> SaveCheckpoint<'a> {
    pub(super) fn new(ctx: &'a StepContext, cursor: impl Serialize) -> Self {
        Self { save: ctx.checkpoint(cursor), ctx, is_on: false }
    }

    /// Says how many items are handled so far; for people.
    pub fn items(mut self, items: u64) -> Self {
        self.save = self.save.items(items);
        self
    }

    /// Saves what has been gathered so far beside the cursor.
    pub fn accumulated(mut self, value: impl Serialize) -> Self {
        self.save = self.save.accumulated(value);
        self
    }

    /// Saves it in the transaction of this connection, which is in the database of Tasker: with the rows written there, or not at all.
    /// It then never asks the handler to stop: the transaction is to be committed.
    pub fn on(mut self, connection: &'a mut PgConnection) -> Self {
        self.save = self.save.on(connection);
        self.is_on = true;
        self
    }
}

impl<'a> IntoFuture for SaveCheckpoint<'a> {
    type Output = Result<(), StepError>;
    type IntoFuture = BoxFuture<'a, Result<(), StepError>>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            match self.save.await {
                Ok(()) if self.ctx.must_stop() && !self.is_on => Err(StepError::cancelled()),
                Ok(()) => Ok(()),
                Err(error) if error.kind == ErrorKind::LeaseLost => Err(StepError::cancelled()),
                Err(error) if error.kind == ErrorKind::ResultRejected => {
                    Err(StepError::of(StepFailure::result_rejected(error.message)))
                }
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }
}
