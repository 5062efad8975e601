//! The steps that this process holds: what the heartbeat renews, what a cancellation reaches, and which outcomes still count.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tasker_engine::{Beat, Lease};
use tasker_model::TaskId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A running step is shown by a heartbeat once it is older than this.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// One held step.
#[derive(Debug)]
pub(crate) struct Held {
    token: CancellationToken,
    started: Instant,
    /// Without a heartbeat the lease ends here, counted from before the call that gave it.
    valid_until: Instant,
    /// No heartbeat after this: the timeout is over and the handler will not return.
    beats_until: Instant,
    /// Its outcome is on its way to the database.
    is_settling: bool,
    /// A heartbeat has told the database that it runs.
    is_shown: bool,
    is_cancel_requested: bool,
}

/// All steps that this process holds.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: Mutex<HashMap<Lease, Held>>,
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, HashMap<Lease, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(
        &self,
        lease: Lease,
        token: CancellationToken,
        started: Instant,
        valid_until: Instant,
        beats_for: Duration,
    ) {
        self.lock().insert(
            lease,
            Held {
                token,
                started,
                valid_until,
                beats_until: started + beats_for,
                is_settling: false,
                is_shown: false,
                is_cancel_requested: false,
            },
        );
    }

    /// Forgets a step; answers whether it was still held.
    pub(crate) fn remove(&self, lease: &Lease) -> bool {
        self.lock().remove(lease).is_some()
    }

    pub(crate) fn is_held(&self, lease: &Lease) -> bool {
        self.lock().contains_key(lease)
    }

    pub(crate) fn is_cancel_requested(&self, lease: &Lease) -> bool {
        self.lock().get(lease).is_some_and(|held| held.is_cancel_requested)
    }

    /// Marks outcomes as in flight, or as back again: heartbeats leave the first out.
    pub(crate) fn mark_settling<'l>(&self, leases: impl IntoIterator<Item = &'l Lease>, is_settling: bool) {
        let mut held = self.lock();
        for lease in leases {
            if let Some(held) = held.get_mut(lease) {
                held.is_settling = is_settling;
            }
        }
    }

    pub(crate) fn remove_all<'l>(&self, leases: impl IntoIterator<Item = &'l Lease>) {
        let mut held = self.lock();
        for lease in leases {
            held.remove(lease);
        }
    }

    /// Asks the handlers of a task to stop.
    pub(crate) fn cancel_task(&self, task: TaskId) {
        for (lease, held) in self.lock().iter_mut() {
            if lease.task_id == task {
                held.is_cancel_requested = true;
                held.token.cancel();
            }
        }
    }

    /// Asks one handler to stop.
    pub(crate) fn cancel(&self, lease: &Lease) {
        if let Some(held) = self.lock().get_mut(lease) {
            held.is_cancel_requested = true;
            held.token.cancel();
        }
    }

    /// Asks all handlers to stop, because the process must go.
    pub(crate) fn stop_all(&self) {
        for held in self.lock().values() {
            held.token.cancel();
        }
    }

    /// The step is another's: its handler is asked to stop and its outcome will not count. One in flight is for the database to judge.
    /// Answers whether it was held.
    pub(crate) fn lose(&self, lease: &Lease) -> bool {
        let mut held = self.lock();
        if held.get(lease).is_none_or(|held| held.is_settling) {
            return false;
        }
        if let Some(held) = held.remove(lease) {
            held.token.cancel();
        }
        true
    }

    /// Loses every lease that no heartbeat could renew in time; answers how many.
    pub(crate) fn lose_expired(&self, now: Instant) -> usize {
        let mut held = self.lock();
        let before = held.len();
        held.retain(|_, held| {
            // One in flight is for the database to judge: its guard knows.
            let keeps = held.is_settling || held.valid_until > now || held.beats_until <= now;
            if !keeps {
                held.token.cancel();
            }
            keeps
        });
        before - held.len()
    }

    /// Lists what a heartbeat renews.
    pub(crate) fn beats(&self, now: Instant) -> Vec<Beat> {
        self.lock()
            .iter()
            .filter(|(_, held)| !held.is_settling && held.beats_until > now)
            .map(|(lease, held)| Beat { lease: *lease, running: now.duration_since(held.started) })
            .collect()
    }

    /// Notes that a heartbeat renewed these.
    pub(crate) fn renewed(&self, beats: &[Beat], valid_until: Instant) {
        let mut held = self.lock();
        for beat in beats {
            if let Some(held) = held.get_mut(&beat.lease) {
                held.valid_until = valid_until;
                held.is_shown = true;
            }
        }
    }

    /// Says whether some step runs long enough to be shown and is not yet.
    pub(crate) fn has_unshown(&self, now: Instant) -> bool {
        self.lock().values().any(|held| {
            !held.is_shown
                && !held.is_settling
                && held.beats_until > now
                && now.duration_since(held.started) >= SHOWN_AFTER
        })
    }

    /// Takes all leases that are not in flight: the process goes and gives them back.
    pub(crate) fn take_rest(&self) -> Vec<Lease> {
        let mut rest = Vec::new();
        self.lock().retain(|lease, held| {
            if held.is_settling {
                return true;
            }
            held.token.cancel();
            rest.push(*lease);
            false
        });
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(msg_id: i64) -> Lease {
        Lease { queue_id: 1, band: 1, msg_id, read_ct: 1, task_id: TaskId::generate(), idx: 0, generation: 0 }
    }

    #[test]
    fn what_no_heartbeat_renewed_is_lost_unless_it_is_in_flight() {
        let leases = Leases::default();
        let (quiet, flying, renewed) = (lease(1), lease(2), lease(3));
        let start = Instant::now();
        let end = start + Duration::from_secs(2);
        let token = CancellationToken::new();
        for lease in [quiet, flying, renewed] {
            let token = token.child_token();
            leases.add(lease, token, start, end, Duration::from_mins(1));
        }
        leases.mark_settling([&flying], true);
        let now = start + Duration::from_secs(1);
        assert!(leases.has_unshown(now));
        let beats = leases.beats(now);
        assert_eq!(beats.len(), 2);
        let one: Vec<_> = beats.into_iter().filter(|b| b.lease == renewed).collect();
        leases.renewed(&one, now + Duration::from_secs(2));
        assert_eq!(leases.lose_expired(start + Duration::from_millis(2500)), 1);
        assert!(!leases.is_held(&quiet) && leases.is_held(&flying) && leases.is_held(&renewed));
        assert_eq!(leases.take_rest(), [renewed]);
    }

    #[test]
    fn a_handler_past_its_timeout_gets_no_heartbeat() {
        let leases = Leases::default();
        let start = Instant::now();
        let token = CancellationToken::new();
        let long = start + Duration::from_mins(1);
        leases.add(lease(1), token, start, long, Duration::from_secs(10));
        let later = start + Duration::from_secs(11);
        assert!(leases.beats(later).is_empty());
        assert!(!leases.has_unshown(later));
        assert_eq!(leases.lose_expired(later), 0);
    }

    #[test]
    fn a_cancelled_task_reaches_its_handlers_only() {
        let leases = Leases::default();
        let (one, other) = (lease(1), lease(2));
        let start = Instant::now();
        let (asked, spared) = (CancellationToken::new(), CancellationToken::new());
        let long = start + Duration::from_mins(1);
        leases.add(one, asked.clone(), start, long, Duration::from_mins(1));
        leases.add(other, spared.clone(), start, long, Duration::from_mins(1));
        leases.cancel_task(one.task_id);
        assert!(asked.is_cancelled() && leases.is_cancel_requested(&one));
        assert!(!spared.is_cancelled() && !leases.is_cancel_requested(&other));
        assert!(leases.lose(&other) && spared.is_cancelled() && !leases.lose(&other));
    }
}
