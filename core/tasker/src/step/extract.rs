//! Extractors: parameter types that say where their value comes from.

use std::any::TypeId;
use std::ops::{Deref, DerefMut};

use serde::{Serialize, de::DeserializeOwned};
use sqlx::PgConnection;
use tasker_worker::StepContext;

use super::{Delivery, SaveCheckpoint, Settled, StepDef};
use crate::StepError;

/// What a parameter asks for, known before the step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A value bound by the parameter's name.
    Value {
        /// Whether it may be missing.
        optional: bool,
    },
    /// The result of the step of this name.
    Result(&'static str),
    /// A state of the application.
    State(TypeId, &'static str),
    /// Only what every step has.
    Nothing,
}

/// A parameter of a step.
///
/// Implemented by the extractors and by every type that can be read from JSON; the latter take the value that is bound to
/// the parameter's name.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a parameter of a step",
    label = "not an extractor, and it cannot be read from JSON",
    note = "use `Input<T>`, `Dep<Step>`, `State<T>` or `Ctx`, or derive `serde::Deserialize`"
)]
pub trait FromStep: Sized + Send + 'static {
    /// Says what it asks for.
    fn need() -> Need;
    /// Takes it out of the delivery.
    fn from_step(delivery: &Delivery<'_>) -> Result<Self, StepError>;
}

impl<T: DeserializeOwned + Send + 'static> FromStep for T {
    fn need() -> Need {
        // What reads `null` does without a value: `Option`, `()`, `serde_json::Value`.
        Need::Value { optional: serde_json::from_str::<T>("null").is_ok() }
    }

    fn from_step(delivery: &Delivery<'_>) -> Result<Self, StepError> {
        delivery.value()
    }
}

/// The whole input of the task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Input<T>(pub T);

impl<T: DeserializeOwned + Send + 'static> FromStep for Input<T> {
    fn need() -> Need {
        Need::Nothing
    }

    fn from_step(delivery: &Delivery<'_>) -> Result<Self, StepError> {
        delivery.input().map(Self)
    }
}

impl<T> Deref for Input<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// An extractor of what a step gave, as `$value`.
macro_rules! result_of {
    ($(#[$doc:meta])* $name:ident($value:ty)) => {
        $(#[$doc])*
        pub struct $name<S: StepDef>(pub $value);

        impl<S: StepDef> FromStep for $name<S>
        where
            S::Output: DeserializeOwned + Send + 'static,
        {
            fn need() -> Need {
                Need::Result(S::NAME)
            }

            fn from_step(delivery: &Delivery<'_>) -> Result<Self, StepError> {
                delivery.result(S::NAME).map(Self)
            }
        }

        impl<S: StepDef> Deref for $name<S> {
            type Target = $value;

            fn deref(&self) -> &$value {
                &self.0
            }
        }

        impl<S: StepDef> std::fmt::Debug for $name<S>
        where
            S::Output: std::fmt::Debug,
        {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(S::NAME).field(&self.0).finish()
            }
        }
    };
}

result_of! {
    /// The result of another step: it makes an edge, and the step runs after that one.
    ///
    /// A skipped step gives `null`: where that may happen, take [`OptionalDep`].
    Dep(S::Output)
}

impl<S: StepDef> DerefMut for Dep<S> {
    fn deref_mut(&mut self) -> &mut S::Output {
        &mut self.0
    }
}

result_of! {
    /// The result of another step that may have been skipped: then it is `None`.
    OptionalDep(Option<S::Output>)
}

result_of! {
    /// The results of a map, in the order of its items: it makes an edge, and the step runs after the map.
    Items(Vec<S::Output>)
}

/// What the application gave with `with_state`, by its type: a gateway, a pool, settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State<T>(pub T);

impl<T: Clone + Send + Sync + 'static> FromStep for State<T> {
    fn need() -> Need {
        Need::State(TypeId::of::<T>(), std::any::type_name::<T>())
    }

    fn from_step(delivery: &Delivery<'_>) -> Result<Self, StepError> {
        delivery.state().map(Self)
    }
}

impl<T> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The context of this attempt: its number, the idempotency key, cancellation, progress, HTTP, the step's own transaction.
#[derive(Debug, Clone)]
pub struct Ctx(StepContext);

impl FromStep for Ctx {
    fn need() -> Need {
        Need::Nothing
    }

    fn from_step(delivery: &Delivery<'_>) -> Result<Self, StepError> {
        Ok(Self(super::context(delivery)))
    }
}

impl Deref for Ctx {
    type Target = StepContext;

    fn deref(&self) -> &StepContext {
        &self.0
    }
}

impl Ctx {
    /// Runs `work` in a transaction of the database that Tasker is in, and settles the step with its result in that same
    /// transaction: the rows that `work` writes and the step's result exist both or not at all, even if the step runs twice.
    ///
    /// An error of `work` rolls back and is the step's error. If another worker has the step by now, everything is
    /// rolled back. Return what this gives as the step's result.
    ///
    /// ```no_run
    /// # use tasker::prelude::*;
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct Payment { id: i64 }
    /// #[tasker::step]
    /// async fn charge_payment(total: f64, ctx: Ctx) -> Result<Settled<Payment>, StepError> {
    ///     ctx.transaction(async |tx| {
    ///         let id = sqlx::query_scalar("insert into payment (total) values ($1) returning id")
    ///             .bind(total)
    ///             .fetch_one(&mut *tx)
    ///             .await?;
    ///         Ok::<_, StepError>(Payment { id })
    ///     })
    ///     .await
    /// }
    /// ```
    pub async fn transaction<T, E>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<Settled<T>, StepError>
    where
        T: Serialize,
        E: Into<StepError>,
    {
        match self.0.transaction(work).await {
            Ok(_) => Ok(Settled::new()),
            Err(error) => Err(StepError::in_transaction(error)),
        }
    }

    /// Saves where a long step is. After a failure, a `kill -9` or a deploy, on this worker or another one, it finds the cursor
    /// ([`Ctx::cursor`]) and goes on from there; that is no attempt.
    ///
    /// ```
    /// # use tasker::prelude::*;
    /// #[tasker::step]
    /// async fn import_rows(rows: Vec<i64>, ctx: Ctx) -> Result<i64, StepError> {
    ///     let mut sum: i64 = ctx.accumulated()?.unwrap_or(0);
    ///     for (at, row) in rows.iter().enumerate().skip(ctx.cursor()?.unwrap_or(0)) {
    ///         sum += row;
    ///         ctx.checkpoint(at + 1).accumulated(sum).await?;
    ///     }
    ///     Ok(sum)
    /// }
    /// ```
    ///
    /// The error is to be returned: it says that the step is another worker's by now, or, once the checkpoint is saved, that the
    /// handler should stop; the step then goes on elsewhere. With [`SaveCheckpoint::on`] the checkpoint is part of the caller's
    /// transaction, together with the rows written in it.
    pub fn checkpoint(&self, cursor: impl Serialize) -> SaveCheckpoint<'_> {
        SaveCheckpoint::new(&self.0, cursor)
    }

    /// Reads results of a map or of a batch's ranges that this step depends on, in their order, where there are more than can be delivered
    /// at once (4 MiB): `ctx.result("pack", 0..1000)`. Fewer come where the list ends or 4 MiB are reached: go on after them.
    pub async fn result<T: DeserializeOwned>(
        &self,
        step: &str,
        places: std::ops::Range<u32>,
    ) -> Result<Vec<T>, StepError> {
        let page = self.0.result(step, places).await?;
        page.iter().map(|result| result.to().map_err(StepError::from)).collect()
    }

    /// Reads where the last checkpoint was; nothing where there was none yet. Fails where it is of another type.
    pub fn cursor<T: DeserializeOwned>(&self) -> Result<Option<T>, StepError> {
        let saved = self.0.last_checkpoint();
        saved.map(|saved| saved.cursor.to()).transpose().map_err(StepError::from)
    }

    /// Reads what the last checkpoint had gathered; nothing where it gave nothing.
    pub fn accumulated<T: DeserializeOwned>(&self) -> Result<Option<T>, StepError> {
        let saved = self.0.last_checkpoint().and_then(|saved| saved.accumulated);
        saved.map(|saved| saved.to()).transpose().map_err(StepError::from)
    }
}
