//! The life of a claimed step in this process: its slot, its lease, its handler, its outcome.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tasker_engine::{Change, Claimed, Lease, Settlement};
use tasker_model::limits::NEAR_FUTURE;
use tasker_model::{Durability, Revision, RevisionStep};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::outbox::{Fresh, Report};
use crate::outcome::to_change;
use crate::process::Process;
use crate::slots::Permits;
use crate::step::{Ended, attempt, revision_step};
use crate::{StepContext, StopReason};

/// Heartbeats for a step go on for this long after its timeout.
const BEATS_AFTER_TIMEOUT: Duration = Duration::from_secs(10);

impl Process {
    /// Runs a step in its reserved place.
    pub(crate) fn start(self: &Arc<Self>, claimed: Claimed, permit: Permits, since: Instant) {
        let process = Arc::clone(self);
        let fresh = self.outbox.fresh();
        self.steps.spawn(async move {
            let revision = match process.revisions.get(claimed.revision_id).await {
                Ok(revision) => revision,
                Err(error) => {
                    tracing::error!(%error, task.id = %claimed.lease.task_id, "cannot read the workflow of a step");
                    process.exclude_handler(claimed.handler_id);
                    process.give_back(&claimed, "the workflow's revision could not be read");
                    return;
                }
            };
            process.run(&revision, claimed, permit, since, fresh).await;
        });
    }

    async fn run(
        self: &Arc<Self>,
        revision: &Arc<Revision>,
        claimed: Claimed,
        permit: Permits,
        since: Instant,
        fresh: Fresh,
    ) {
        let lease = claimed.lease;
        let token = CancellationToken::new();
        let made = StepContext::make(
            self.engine.clone(),
            Arc::clone(revision),
            &claimed,
            token.clone(),
            Some(Arc::clone(self)),
        );
        let (Some(handler), Ok(ctx), Ok(step)) =
            (self.handlers.get(&claimed.handler_id), made, revision_step(revision, &claimed))
        else {
            tracing::error!(task.id = %lease.task_id, step.idx = lease.idx, "cannot make the input of a step");
            self.exclude_handler(claimed.handler_id);
            self.give_back(&claimed, "the step's input could not be made");
            return;
        };
        let timeout = Duration::from_millis(step.timeout_ms);
        let started = Instant::now();
        self.leases.add(lease, token, started, since + self.options.lease, timeout + BEATS_AFTER_TIMEOUT);
        let attempt = tokio::select! {
            attempt = attempt(handler, &ctx, Some(fresh)) => attempt,
            // Dropping the attempt aborts the handler's task.
            () = self.abandoning.cancelled() => return,
        };
        if ctx.is_settled() {
            self.leases.remove(&lease);
        } else {
            let is_cancel_requested = self.leases.is_cancel_requested(&lease);
            let change = to_change(attempt.outcome, revision, step, &claimed, is_cancel_requested);
            if let Some(change) = change {
                self.report(revision, step, lease, change, started.elapsed()).await;
            } else {
                tracing::error!(task.id = %lease.task_id, step.name = %step.name, "the handler says that it settled its step and did not; it runs again when its lease ends");
                self.leases.remove(&lease);
            }
        }
        drop(attempt.fresh);
        if let Some(mut late) = attempt.late {
            self.outlive(&ctx, &mut late).await;
        }
        drop(permit);
        if ctx.is_settled() {
            // No settle call follows that would fill the place.
            self.pace.wake();
        }
    }

    /// Hands an outcome to the committers, unless the lease was lost meanwhile.
    async fn report(&self, revision: &Revision, step: &RevisionStep, lease: Lease, change: Change, duration: Duration) {
        if !self.leases.is_held(&lease) {
            tracing::warn!(task.id = %lease.task_id, step.idx = lease.idx, "the outcome of a step is dropped: its lease was lost");
            return;
        }
        if let Change::Retry { delay, .. } = &change {
            if *delay <= NEAR_FUTURE {
                self.pace.message_in(*delay);
            } else {
                self.pace.timer_in(*delay);
            }
        }
        if let Change::Wait { due_in: Some(delay), .. } = &change {
            self.pace.timer_in(*delay);
        }
        self.outbox
            .push(Report {
                settlement: Settlement { lease, change, duration: Some(duration) },
                is_relaxed: revision.definition.durability == Durability::Relaxed,
                children: step.children.len(),
            })
            .await;
    }

    /// A handler that outlived its timeout keeps its place until it returns. With more than half of the places lost the process drains.
    async fn outlive(self: &Arc<Self>, ctx: &StepContext, late: &mut AbortOnDropHandle<Ended>) {
        let (zombie, are_too_many) = self.slots.zombie();
        tracing::warn!(step.id = %ctx.input().step.id, zombies = self.slots.zombies(), "a handler runs on after its timeout; it keeps its slot");
        if are_too_many && !self.draining.is_cancelled() {
            tracing::error!("more than half of the slots are held by handlers that do not end; the worker stops");
            *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(StopReason::Zombies);
            self.draining.cancel();
            self.overrun.cancel();
        }
        tokio::select! {
            _ = &mut *late => {}
            () = self.abandoning.cancelled() => late.abort(),
        }
        drop(zombie);
        self.pace.wake();
    }
}
