//! The outcomes that wait for a committer. It makes the batches: whoever is at rest takes all that gathered. No outcome waits for others
//! to come, but for those of handlers that started with it and are just being polled for the first time.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tasker_engine::{Change, Lease, Settlement};
use tasker_model::limits::{BATCH_BYTES, BATCH_OUTCOMES};
use tokio::sync::{Notify, Semaphore};

/// How many outcomes may wait; a handler that finishes after that keeps its slot until there is room.
const OUTBOX_SIZE: usize = 4096;
/// A further committer is worth its call once this many outcomes wait for each one that is busy.
const WORTH_A_COMMITTER: usize = 32;

/// How long outcomes wait for steps that started with them and whose handlers have not been polled yet: at once as a rule, and never if a
/// handler blocks its thread.
const BEFORE_FIRST_POLL: Duration = Duration::from_millis(1);

/// The waiting outcomes and how many committers are busy.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    changed: Notify,
    room: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Entry>,
    busy: usize,
    /// Steps that were started and whose handlers have not been polled yet.
    fresh: usize,
    /// How many steps the waiting outcomes and those in calls may make ready.
    expected: usize,
}

/// A step that has just been started, until its handler has been polled once. What ends at once then shares a settle call with what
/// started beside it: branches of equal length stay together.
#[derive(Debug)]
pub(crate) struct Fresh(Arc<Outbox>);

impl Drop for Fresh {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.fresh = state.fresh.saturating_sub(1);
        if state.fresh == 0 && state.is_worth_a_committer() {
            self.0.changed.notify_last();
        }
    }
}

/// An outcome and what a committer must know of its workflow.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) settlement: Settlement,
    /// Its workflow is `durability: relaxed`.
    pub(crate) is_relaxed: bool,
    /// How many steps it may make ready.
    pub(crate) children: usize,
}

impl Report {
    /// An outcome of the engine's own, or a release.
    pub(crate) fn of_engine(settlement: Settlement) -> Self {
        // One child: its own step, where that goes back.
        Self { settlement, is_relaxed: false, children: 1 }
    }
}

#[derive(Debug)]
struct Entry {
    report: Report,
    has_room: bool,
}

impl State {
    fn is_worth_a_committer(&self) -> bool {
        !self.waiting.is_empty() && self.waiting.len() > self.busy * WORTH_A_COMMITTER
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), room: Semaphore::new(OUTBOX_SIZE) }
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an outcome, once there is room.
    pub(crate) async fn push(&self, report: Report) {
        if let Ok(room) = self.room.acquire().await {
            room.forget();
        }
        self.add([Entry { report, has_room: true }]);
    }

    /// Adds outcomes of the engine's own at once: their number is bounded by what one claim answers, and a committer that waited for
    /// room would wait for itself.
    pub(crate) fn push_now(&self, reports: impl IntoIterator<Item = Report>) {
        self.add(reports.into_iter().map(|report| Entry { report, has_room: false }));
    }

    fn add(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut state = self.lock();
        for entry in entries {
            state.expected += entry.report.children;
            state.waiting.push_back(entry);
        }
        if state.is_worth_a_committer() {
            self.changed.notify_last();
        }
    }

    /// Counts a step that is about to be started.
    pub(crate) fn fresh(self: &Arc<Self>) -> Fresh {
        self.lock().fresh += 1;
        Fresh(Arc::clone(self))
    }

    /// Waits until a further committer is worth its call and gives it a batch. Cancel safe, once `ended` is counted. Every batch must be
    /// ended: by the next `take`, with the sum of its `children`, or by [`Outbox::put_back`]. Of several who wait the last one is woken: its connection's
    /// server process still has everything at hand.
    pub(crate) async fn take(&self, mut ended: Option<usize>) -> Vec<Report> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // First in line from here on: what is added at this moment wakes this committer and no other.
            changed.as_mut().enable();
            let has_fresh = {
                let mut state = self.lock();
                if let Some(children) = ended.take() {
                    state.busy = state.busy.saturating_sub(1);
                    state.expected = state.expected.saturating_sub(children);
                }
                // A busy process has enough to take, and always steps that have just begun.
                state.fresh > 0 && state.busy == 0 && (1..WORTH_A_COMMITTER).contains(&state.waiting.len())
            };
            if has_fresh {
                let all_polled = async {
                    while self.lock().fresh > 0 {
                        changed.as_mut().await;
                        changed.set(self.changed.notified());
                        changed.as_mut().enable();
                    }
                };
                // In time or not: what waits goes now.
                let _ = tokio::time::timeout(BEFORE_FIRST_POLL, all_polled).await;
            }
            if let Some(batch) = self.try_take() {
                return batch;
            }
            changed.await;
        }
    }

    fn try_take(&self) -> Option<Vec<Report>> {
        let mut state = self.lock();
        if !state.is_worth_a_committer() {
            return None;
        }
        state.busy += 1;
        let mut batch = Vec::with_capacity(state.waiting.len().min(BATCH_OUTCOMES));
        let (mut bytes, mut room) = (0, 0);
        while let Some(next) = state.waiting.front() {
            bytes += size(&next.report.settlement);
            if batch.len() == BATCH_OUTCOMES || (bytes > BATCH_BYTES && !batch.is_empty()) {
                break;
            }
            if let Some(entry) = state.waiting.pop_front() {
                room += usize::from(entry.has_room);
                batch.push(entry.report);
            }
        }
        self.room.add_permits(room);
        if state.is_worth_a_committer() {
            self.changed.notify_last();
        }
        Some(batch)
    }

    /// Puts a batch back in front, because the database cannot be reached, and ends it.
    pub(crate) fn put_back(&self, batch: Vec<Report>) {
        let mut state = self.lock();
        for report in batch.into_iter().rev() {
            state.waiting.push_front(Entry { report, has_room: false });
        }
        state.busy = state.busy.saturating_sub(1);
        // The committer that calls this rests; another one may have a connection.
        self.changed.notify_last();
    }

    /// Answers how many steps may soon be ready for this process: those that follow the outcomes which wait or are being settled.
    pub(crate) fn expected(&self) -> usize {
        self.lock().expected
    }

    /// Says whether an outcome of this lease waits.
    pub(crate) fn holds(&self, lease: &Lease) -> bool {
        self.lock().waiting.iter().any(|entry| entry.report.settlement.lease == *lease)
    }

    /// Says whether nothing waits and no committer is busy.
    pub(crate) fn is_at_rest(&self) -> bool {
        let state = self.lock();
        state.waiting.is_empty() && state.busy == 0
    }
}

fn size(settlement: &Settlement) -> usize {
    match &settlement.change {
        Change::Success { value, metadata } => value.get().len() + metadata.as_ref().map_or(0, |m| m.get().len()),
        Change::Decision { value, .. }
        | Change::Checkpoint { saved: value }
        | Change::Ranges { ranges: value, .. }
        | Change::MapItems { items: value, .. }
        | Change::Child { spec: value }
        | Change::Wait { spec: value, .. } => value.get().len(),
        Change::Retry { error, .. }
        | Change::Failure { error }
        | Change::ItemFailure { error }
        | Change::Cancelled { error }
        | Change::InputInvalid { error }
        | Change::Deadline { error } => {
            error.message.len()
                + error.backtrace.iter().map(String::len).sum::<usize>()
                + error.details.as_ref().map_or(0, |d| d.get().len())
        }
        Change::Release { .. } | Change::Validated | Change::Paused => 0,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tasker_model::{Payload, TaskId};

    use super::*;

    fn outcome(bytes: usize) -> Report {
        let value = Payload::from_value(&"x".repeat(bytes)).unwrap_or_default();
        Report::of_engine(Settlement {
            lease: Lease {
                queue_id: 1,
                band: 1,
                msg_id: 1,
                read_ct: 1,
                task_id: TaskId::generate(),
                idx: 0,
                generation: 0,
            },
            change: Change::Success { value, metadata: None },
            duration: None,
        })
    }

    #[tokio::test]
    async fn one_committer_takes_all_and_a_second_one_only_what_is_worth_it() {
        let outbox = Outbox::default();
        for _ in 0..3 {
            outbox.push(outcome(1)).await;
        }
        assert_eq!(outbox.take(None).await.len(), 3);
        outbox.push_now((0..WORTH_A_COMMITTER).map(|_| outcome(1)));
        assert!(outbox.try_take().is_none());
        outbox.push(outcome(1)).await;
        assert_eq!(outbox.take(None).await.len(), WORTH_A_COMMITTER + 1);
        for children in [3, WORTH_A_COMMITTER + 1] {
            assert!(!outbox.is_at_rest());
            assert!(outbox.take(Some(children)).now_or_never().is_none());
        }
        assert!(outbox.is_at_rest());
        assert_eq!(outbox.expected(), 0);
    }

    #[tokio::test]
    async fn outcomes_wait_for_the_first_poll_of_what_started_with_them() {
        let outbox = Arc::new(Outbox::default());
        let (quick, slower) = (outbox.fresh(), outbox.fresh());
        outbox.push(outcome(1)).await;
        drop(quick);
        let taken = tokio::spawn({
            let outbox = Arc::clone(&outbox);
            async move { outbox.take(None).await.len() }
        });
        tokio::task::yield_now().await;
        outbox.push(outcome(1)).await;
        drop(slower);
        assert_eq!(taken.await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_handler_that_blocks_its_thread_holds_up_no_other_outcome() {
        let outbox = Arc::new(Outbox::default());
        let blocked = outbox.fresh();
        outbox.push(outcome(1)).await;
        let begun = tokio::time::Instant::now();
        assert_eq!(outbox.take(None).await.len(), 1);
        assert!(begun.elapsed() >= BEFORE_FIRST_POLL);
        drop(blocked);
    }

    #[tokio::test]
    async fn batches_are_bounded_in_number_and_bytes() {
        let outbox = Outbox::default();
        outbox.push_now((0..300).map(|_| outcome(1)));
        let batch = outbox.take(None).await;
        assert_eq!(batch.len(), BATCH_OUTCOMES);
        outbox.put_back(batch);
        assert_eq!(outbox.take(None).await.len(), BATCH_OUTCOMES);
        let outbox = Outbox::default();
        outbox.push_now((0..3).map(|_| outcome(BATCH_BYTES / 2 + 1)));
        assert_eq!(outbox.take(None).await.len(), 1);
    }
}
