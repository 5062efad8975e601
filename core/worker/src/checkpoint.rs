//! How a long step says how far it is, so that whoever runs it next goes on from there.

use std::future::IntoFuture;
use std::sync::PoisonError;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::Serialize;
use sqlx::PgConnection;
use tasker_engine::retrying;
use tasker_model::{Checkpoint, Error, ErrorKind, Outcome, Payload, Result};

use crate::StepContext;
use crate::answer::answer;

/// How long a saved step's lease lasts where no worker process renews it: in a test kit.
const LENT_LEASE: Duration = Duration::from_secs(30);

/// A checkpoint about to be saved; `.await` saves it. See [`StepContext::checkpoint`].
#[must_use = "a checkpoint is not saved until it is awaited"]
#[derive(Debug)]
pub struct SaveCheckpoint<'a> {
    ctx: &'a StepContext,
    checkpoint: Result<Checkpoint>,
    connection: Option<&'a mut PgConnection>,
}

impl StepContext {
    /// Saves where the step is: after a failure, a `kill -9` or a deploy it goes on from this cursor, which is no attempt.
    ///
    /// Fails with `lease_lost` where the step is another worker's by now or has ended; the handler must return. Fails with
    /// `result_rejected` where the cursor or what was gathered is over 256 KiB or cannot be stored.
    pub fn checkpoint(&self, cursor: impl Serialize) -> SaveCheckpoint<'_> {
        let checkpoint = Payload::from_value(&cursor).map(|cursor| Checkpoint { cursor, items: 0, accumulated: None });
        SaveCheckpoint { ctx: self, checkpoint, connection: None }
    }

    /// Returns the last checkpoint: the one that this attempt began from, or saved since.
    pub fn last_checkpoint(&self) -> Option<Checkpoint> {
        self.saved().lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<'a> SaveCheckpoint<'a> {
    /// Says how many items are handled so far; for people.
    pub fn items(mut self, items: u64) -> Self {
        if let Ok(checkpoint) = &mut self.checkpoint {
            checkpoint.items = items;
        }
        self
    }

    /// Saves what has been gathered so far beside the cursor.
    pub fn accumulated(mut self, value: impl Serialize) -> Self {
        self.checkpoint = self
            .checkpoint
            .and_then(|checkpoint| Ok(Checkpoint { accumulated: Some(Payload::from_value(&value)?), ..checkpoint }));
        self
    }

    /// Saves it in the transaction of this connection, which is in the database of the engine: with the rows written there, or not at all.
    /// From then on nobody else can claim the step until that transaction ends; the server ends one that stands still for five seconds.
    pub fn on(mut self, connection: &'a mut PgConnection) -> Self {
        self.connection = Some(connection);
        self
    }

    async fn save(self) -> Result<()> {
        let checkpoint = self.checkpoint?;
        let Checkpoint { cursor, items, accumulated } = checkpoint.clone();
        Outcome::Checkpoint { cursor, items, accumulated }.check()?;
        let text = Payload::from_value(&checkpoint)?;
        let ctx = self.ctx;
        let lease = ctx.process().map_or(LENT_LEASE, |process| process.options.lease);
        let worker_id = ctx.process().map(|process| process.worker_id);
        let engine = ctx.engine();
        let is_held = match (self.connection, ctx.connection(), ctx.process()) {
            (Some(connection), _, _) => {
                engine.save_checkpoint(connection, ctx.lease(), &text, worker_id, lease).await?
            }
            (None, Some(lent), _) => {
                engine.save_checkpoint(&mut *lent.lock().await, ctx.lease(), &text, worker_id, lease).await?
            }
            (None, None, Some(_)) => {
                let mut connection = engine.acquire().await?;
                retrying!(answer(engine.save_checkpoint(&mut connection, ctx.lease(), &text, worker_id, lease)).await)?
            }
            // A step that a test runs by itself, without a database.
            (None, None, None) => true,
        };
        if !is_held {
            ctx.token().cancel();
            let message =
                format!("the lease of step {} was lost; return without doing anything more", ctx.input().step.id);
            return Err(Error::new(ErrorKind::LeaseLost, message));
        }
        *ctx.saved().lock().unwrap_or_else(PoisonError::into_inner) = Some(checkpoint);
        Ok(())
    }
}

impl<'a> IntoFuture for SaveCheckpoint<'a> {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'a, Result<()>>;

    fn into_future(self) -> Self::IntoFuture {
        self.save().boxed()
    }
}
