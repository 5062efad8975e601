//! What a handler knows of its step and may do beside returning.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::PgConnection;
use tasker_engine::{Claimed, Engine, Lease};
use tasker_model::{Checkpoint, Error, ErrorKind, Payload, Result, Revision, RevisionStep, StepInput, binding};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::http::Http;
use crate::process::Process;
use crate::step::{revision_step, step_input};

/// A connection that a test kit lends to the handlers it runs.
pub type SharedConnection = Arc<tokio::sync::Mutex<PgConnection>>;

/// Where a step stands with respect to `ctx.transaction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// It has not begun one, or the one it began was rolled back.
    Open = 0,
    /// It is in one.
    InTransaction = 1,
    /// One committed with the step's result.
    Settled = 2,
    /// Its lease was lost or the answer to the commit was: whatever the handler says, nothing is reported.
    Forgotten = 3,
}

/// The context of one attempt. Cheap to clone.
#[derive(Clone)]
pub struct StepContext {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    revision: Arc<Revision>,
    /// The place of the step in the revision.
    at: usize,
    lease: Lease,
    input: StepInput,
    token: CancellationToken,
    started: Instant,
    phase: AtomicU8,
    progress: Mutex<Option<Progress>>,
    saved: Mutex<Option<Checkpoint>>,
    process: Option<Arc<Process>>,
    connection: Option<SharedConnection>,
}

/// How far a handler says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// 0 to 100.
    pub percent: u8,
    /// What it is doing.
    pub message: String,
}

impl StepContext {
    /// Makes the context of a claimed step that no worker process holds: for test kits.
    pub fn new(engine: Engine, revision: Arc<Revision>, claimed: &Claimed) -> Result<Self> {
        Self::make(engine, revision, claimed, CancellationToken::new(), None)
    }

    pub(crate) fn make(
        engine: Engine,
        revision: Arc<Revision>,
        claimed: &Claimed,
        token: CancellationToken,
        process: Option<Arc<Process>>,
    ) -> Result<Self> {
        let input = step_input(&revision, claimed)?;
        let at = usize::try_from(revision_step(&revision, claimed)?.idx).unwrap_or_default();
        let saved = input.checkpoint.as_ref().map(Payload::to).transpose()?;
        Ok(Self {
            inner: Arc::new(Inner {
                engine,
                at,
                revision,
                lease: claimed.lease,
                input,
                token,
                started: Instant::now(),
                phase: AtomicU8::new(Phase::Open as u8),
                progress: Mutex::new(None),
                saved: Mutex::new(saved),
                process,
                connection: None,
            }),
        })
    }

    /// Lends a connection: `transaction` runs in a savepoint on it. Call it before the context is cloned; later it has no effect.
    pub fn on_connection(mut self, connection: SharedConnection) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.connection = Some(connection);
        }
        self
    }

    /// Returns everything that was delivered with the step.
    pub fn input(&self) -> &StepInput {
        &self.inner.input
    }

    /// Returns the step of the revision.
    pub fn step(&self) -> &RevisionStep {
        &self.inner.revision.steps[self.inner.at]
    }

    /// Reads results of a map or of a batch's ranges, in their order: for those that are too many to be delivered
    /// (`input().paged`). At most 4 MiB. Fails with `invalid` for a step that is neither.
    pub async fn result(&self, step: &str, places: Range<u32>) -> Result<Vec<Payload>> {
        let inner = &self.inner;
        let Some(found) = inner.revision.step_by_name(step).filter(|found| found.fan.is_some()) else {
            let message = format!("step `{step}` is neither a map nor a batch; its result is delivered whole");
            return Err(Error::new(ErrorKind::Invalid, message));
        };
        let (task, from) = (inner.input.task.id, places.start);
        let count = places.end.saturating_sub(from);
        if let Some(lent) = &inner.connection {
            return inner.engine.page_results(&mut *lent.lock().await, task, found.idx, from, count).await;
        }
        let mut conn = inner.engine.acquire().await?;
        inner.engine.page_results(&mut conn, task, found.idx, from, count).await
    }

    /// Collects the arguments that the step's bindings name. Fails with `invalid` where a result lacks what a path names.
    pub fn arguments(&self) -> Result<BTreeMap<String, Payload>> {
        binding::arguments(self.step(), &[], &self.inner.input)
    }

    /// Returns which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.inner.input.step.attempt
    }

    /// Says whether a failure of this attempt is final.
    pub fn is_last_attempt(&self) -> bool {
        self.inner.input.is_last_attempt()
    }

    /// Returns the key to hand to other systems, the same for every attempt.
    pub fn idempotency_key(&self) -> &str {
        &self.inner.input.idempotency_key
    }

    /// Waits until the handler should stop: its task was cancelled or passed its deadline, the attempt its timeout, the lease was lost,
    /// or the process must go. Cancel safe.
    pub async fn cancelled(&self) {
        self.inner.token.cancelled().await;
    }

    /// Says whether the handler should stop.
    pub fn is_cancelled(&self) -> bool {
        self.inner.token.is_cancelled()
    }

    /// Says whether the handler should stop at the next good moment: it was asked to, or the process takes no more work and will end.
    pub fn must_stop(&self) -> bool {
        self.is_cancelled() || self.process().is_some_and(|process| process.draining.is_cancelled())
    }

    /// Returns the token behind [`StepContext::cancelled`], to hand on.
    pub fn token(&self) -> &CancellationToken {
        &self.inner.token
    }

    /// Says how far the step is. Kept in this process for display; not stored.
    pub fn progress(&self, percent: u8, message: impl Into<String>) {
        let progress = Progress { percent: percent.min(100), message: message.into() };
        tracing::debug!(percent = progress.percent, message = %progress.message, "progress");
        *self.progress_slot() = Some(progress);
    }

    /// Returns what [`StepContext::progress`] was told last.
    pub fn last_progress(&self) -> Option<Progress> {
        self.progress_slot().clone()
    }

    fn progress_slot(&self) -> std::sync::MutexGuard<'_, Option<Progress>> {
        self.inner.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an HTTP client whose failures are those of a step: see [`Http`].
    pub fn http(&self) -> Http {
        Http::new(self.idempotency_key())
    }

    /// Returns the engine.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Says whether `transaction` settled the step, so that what the handler returns is not reported.
    pub fn is_settled(&self) -> bool {
        matches!(self.phase(), Phase::Settled | Phase::Forgotten)
    }

    pub(crate) fn saved(&self) -> &Mutex<Option<Checkpoint>> {
        &self.inner.saved
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.inner.lease
    }

    pub(crate) fn started(&self) -> Instant {
        self.inner.started
    }

    pub(crate) fn process(&self) -> Option<&Arc<Process>> {
        self.inner.process.as_ref()
    }

    pub(crate) fn connection(&self) -> Option<&SharedConnection> {
        self.inner.connection.as_ref()
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.inner.phase.load(Ordering::Acquire) {
            0 => Phase::Open,
            1 => Phase::InTransaction,
            2 => Phase::Settled,
            _ => Phase::Forgotten,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.inner.phase.store(phase as u8, Ordering::Release);
    }

    /// Enters a transaction; answers the phase that forbids it.
    pub(crate) fn enter_transaction(&self) -> std::result::Result<(), Phase> {
        self.inner
            .phase
            .compare_exchange(Phase::Open as u8, Phase::InTransaction as u8, Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
            .map_err(|_| self.phase())
    }
}

impl fmt::Debug for StepContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepContext")
            .field("input", &self.inner.input)
            .field("phase", &self.phase())
            .finish_non_exhaustive()
    }
}
