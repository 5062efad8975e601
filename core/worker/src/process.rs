//! What the loops of one worker process share, and what becomes of every answer of the engine.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tasker_engine::deliveries::DELIVERIES;
use tasker_engine::{Caller, Change, Claimed, Engine, Lease, Refusal, Refused, Reply, Settlement};
use tasker_model::WorkflowRef;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::finished::Finishes;
use crate::leases::Leases;
use crate::notifier::Notes;
use crate::outbox::{Outbox, Report};
use crate::outcome::refused;
use crate::pace::Pace;
use crate::relay::Relay;
use crate::revisions::Revisions;
use crate::slots::{Permits, Slots};
use crate::{Handler, Options, StopReason};

/// How many steps one call asks for at most.
const CLAIM: usize = 256;
/// While the claimer finds no place, or what waits in the queue is old, half of the steps of every so many calls are read from it:
/// hand-off must not starve what waits there.
const FAIR_CALL: u32 = 8;
/// A message that had waited for this long when it was read is old.
const OLD: Duration = Duration::from_millis(250);
/// How long a handler's messages are left alone after one came that this process cannot run.
const EXCLUDED: Duration = Duration::from_mins(1);

/// One worker process.
pub(crate) struct Process {
    pub(crate) engine: Engine,
    pub(crate) worker_id: i32,
    pub(crate) options: Options,
    pub(crate) handlers: HashMap<i32, Arc<dyn Handler>>,
    pub(crate) handler_ids: Vec<i32>,
    pub(crate) registered: BTreeMap<WorkflowRef, i32>,
    pub(crate) queues: RwLock<Vec<i32>>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) leases: Leases,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) pace: Pace,
    pub(crate) notes: Notes,
    pub(crate) relay: Relay,
    pub(crate) revisions: Revisions,
    pub(crate) finishes: Finishes,
    pub(crate) excluded: Mutex<HashMap<i32, Instant>>,
    turn: AtomicI32,
    calls: AtomicU32,
    has_met_old: AtomicBool,
    /// Nothing more is claimed.
    pub(crate) draining: CancellationToken,
    /// Too many slots are lost: the process must be replaced.
    pub(crate) overrun: CancellationToken,
    /// A drain waits no longer for its handlers.
    pub(crate) hurry: CancellationToken,
    /// Handlers that still run are aborted.
    pub(crate) abandoning: CancellationToken,
    /// The loops end.
    pub(crate) stopping: CancellationToken,
    /// The process has let go of everything.
    pub(crate) stopped: CancellationToken,
    pub(crate) is_drained: AtomicBool,
    pub(crate) released: AtomicUsize,
    pub(crate) reason: Mutex<Option<StopReason>>,
    pub(crate) steps: TaskTracker,
    pub(crate) loops: TaskTracker,
}

impl Process {
    #[expect(clippy::too_many_arguments, reason = "called once, by Worker::start")]
    pub(crate) fn new(
        engine: Engine,
        worker_id: i32,
        options: Options,
        handlers: HashMap<i32, Arc<dyn Handler>>,
        relay: Relay,
        registered: BTreeMap<WorkflowRef, i32>,
        queues: Vec<i32>,
        revisions: Revisions,
        stopping: CancellationToken,
    ) -> Self {
        let mut handler_ids: Vec<i32> = handlers.keys().copied().collect();
        handler_ids.sort_unstable();
        Self {
            worker_id,
            handlers,
            handler_ids,
            registered,
            queues: RwLock::new(queues),
            slots: Arc::new(Slots::new(options.concurrency)),
            leases: Leases::default(),
            outbox: Arc::default(),
            pace: Pace::new(options.poll_max),
            notes: Notes::default(),
            relay,
            revisions,
            finishes: Finishes::default(),
            excluded: Mutex::default(),
            turn: AtomicI32::new(0),
            calls: AtomicU32::new(0),
            has_met_old: AtomicBool::new(false),
            draining: CancellationToken::new(),
            overrun: CancellationToken::new(),
            hurry: CancellationToken::new(),
            abandoning: CancellationToken::new(),
            stopping,
            stopped: CancellationToken::new(),
            is_drained: AtomicBool::new(false),
            released: AtomicUsize::new(0),
            reason: Mutex::default(),
            steps: TaskTracker::new(),
            loops: TaskTracker::new(),
            engine,
            options,
        }
    }

    pub(crate) fn queues(&self) -> Vec<i32> {
        self.queues.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reserves up to `want` places for one call; none while draining. A call that reserves more than it can use takes them from the
    /// hand-off of the calls beside it.
    pub(crate) fn reserve(&self, want: usize) -> Option<Permits> {
        let permits = self.slots.reserve(want.min(CLAIM));
        // Asked afterwards: a drain that begins now sees the places as taken and waits for the call.
        if self.draining.is_cancelled() { None } else { permits }
    }

    /// Answers how many places a read of the queue may fill: the free ones, but for some that the steps need which will follow the
    /// outcomes under way (half of what those might make ready, since a step with several parents counts for each). A task that has
    /// begun goes on before another begins: a step that finds no place is left in the queue and has to be read from it.
    pub(crate) fn free_for_claim(&self) -> usize {
        self.slots.free().saturating_sub(self.outbox.expected() / 2)
    }

    /// Says who calls and what it can take: the reserved places, of which most or half may be handed off.
    pub(crate) fn caller(&self, permits: Option<&Permits>, relaxed: bool) -> Caller {
        let want = permits.map_or(0, Permits::num_permits);
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let is_turn = call % FAIR_CALL == FAIR_CALL - 1;
        let is_fair = is_turn && (self.free_for_claim() == 0 || self.has_met_old.load(Ordering::Relaxed));
        Caller {
            worker_id: self.worker_id,
            queues: self.queues(),
            handlers: self.handler_ids.clone(),
            exclude: self.exclude(),
            want,
            handoff: if is_fair { want / 2 } else { want },
            turn: self.turn.fetch_add(1, Ordering::Relaxed),
            lease: self.options.lease,
            relaxed,
        }
    }

    fn exclude(&self) -> Vec<i32> {
        let mut excluded = self.excluded.lock().unwrap_or_else(PoisonError::into_inner);
        if excluded.is_empty() {
            return Vec::new();
        }
        excluded.retain(|_, since| since.elapsed() < EXCLUDED);
        excluded.keys().copied().collect()
    }

    pub(crate) fn exclude_handler(&self, handler_id: i32) {
        self.excluded.lock().unwrap_or_else(PoisonError::into_inner).insert(handler_id, Instant::now());
    }

    /// Acts on an answer: starts what was leased in the reserved places, answers what was refused, tells of what ended and what was
    /// left. `since` is from before the call: leases count from there. Unused places come free at the end.
    pub(crate) async fn absorb(self: &Arc<Self>, reply: Reply, mut permits: Option<Permits>, since: Instant) {
        let oldest = reply.leased.iter().map(|claimed| claimed.age).max();
        if let Some(oldest) = oldest {
            self.has_met_old.store(oldest > OLD, Ordering::Relaxed);
        }
        for claimed in reply.leased {
            if self.draining.is_cancelled() {
                self.give_back(&claimed, "drain");
                continue;
            }
            match permits.as_mut().and_then(|permits| permits.split(1)) {
                Some(permit) => self.start(claimed, permit, since),
                None => self.give_back(&claimed, "there was no slot for it"),
            }
        }
        drop(permits);
        for task in &reply.finished {
            self.finishes.tell(task.task_id, task.state);
        }
        self.tell_left(&reply.left);
        if let Some(next) = reply.next_timer {
            self.pace.timer_in(next);
        }
        if !reply.refused.is_empty() {
            self.answer(reply.refused).await;
        }
    }

    /// What a handler's own transaction committed.
    pub(crate) fn after_transaction(&self, reply: &Reply) {
        for task in &reply.finished {
            self.finishes.tell(task.task_id, task.state);
        }
        self.tell_left(&reply.left);
    }

    /// Messages were left in these queues: this process looks if it has places, the others are told unless it can run all of them.
    fn tell_left(&self, left: &[(i32, i64)]) {
        if left.is_empty() {
            return;
        }
        let queues = self.queues();
        let is_draining = self.draining.is_cancelled();
        let free = if is_draining { 0 } else { i64::try_from(self.slots.free()).unwrap_or(i64::MAX) };
        let mut is_ours = false;
        for (queue, amount) in left {
            if *queue == 0 && !is_draining {
                self.pace.internal();
                continue;
            }
            if *queue == DELIVERIES {
                // What no subscriber of another process waits for, this one brings alone.
                self.relay.wake();
                if is_draining || self.relay.has_foreign() {
                    self.notes.add(DELIVERIES);
                }
                continue;
            }
            let serves = queues.contains(queue);
            is_ours |= serves;
            if !serves || *amount > free {
                self.notes.add(*queue);
            }
        }
        if is_ours && !is_draining {
            self.pace.wake();
        }
    }

    async fn answer(&self, all: Vec<Refused>) {
        let mut settlements = Vec::with_capacity(all.len());
        for Refused { reason, claimed } in all {
            if reason == Refusal::NoHandler {
                self.exclude_handler(claimed.handler_id);
            }
            let revision = if reason == Refusal::Unvalidated {
                match self.revisions.get(claimed.revision_id).await {
                    Ok(revision) => Some(revision),
                    Err(error) => {
                        tracing::error!(%error, task.id = %claimed.lease.task_id, "cannot check the task's input");
                        self.exclude_handler(claimed.handler_id);
                        None
                    }
                }
            } else {
                None
            };
            tracing::debug!(task.id = %claimed.lease.task_id, step.idx = claimed.lease.idx, ?reason, "a step must not run");
            settlements.push(Report::of_engine(Settlement {
                lease: claimed.lease,
                change: refused(reason, &claimed, revision.as_deref()),
                duration: None,
            }));
        }
        self.outbox.push_now(settlements);
    }

    pub(crate) fn give_back(&self, claimed: &Claimed, reason: &'static str) {
        self.release(claimed.lease, reason);
    }

    pub(crate) fn release(&self, lease: Lease, reason: &'static str) {
        self.outbox.push_now([Report::of_engine(Settlement {
            lease,
            change: Change::Release { reason },
            duration: None,
        })]);
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("worker_id", &self.worker_id)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
