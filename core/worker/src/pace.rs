//! When the process looks into the database next. Shared by the claimer, which looks, and everybody who has news for it.
//!
//! The pause before a read is as long as it has been quiet: 2 ms after any work, doubling from read to read, up to a limit that grows
//! when it has been quiet for minutes. A read by a settle call counts too.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::sync::Notify;
use tokio::time::Instant;

const SHORTEST: Duration = Duration::from_millis(2);
/// After this much quiet the longest pause grows.
const QUIET: Duration = Duration::from_mins(2);
/// The longest pause after that: a timer made elsewhere is due two seconds later at the earliest.
const LONGEST_QUIET: Duration = Duration::from_secs(2);
/// A long pause may be longer by this factor: processes that fell silent together do not read together. With it a timer made elsewhere
/// is still met within 250 ms.
const LATEST: f64 = 1.1;
/// How often the internal queue is read while there is work, and while it is quiet.
const INTERNAL_BUSY: Duration = Duration::from_millis(500);
const INTERNAL_QUIET: Duration = Duration::from_secs(8);
/// How many moments at which a message becomes visible are remembered; the ordinary pauses find the others.
const MOMENTS: usize = 1024;
/// Where no wake-up is heard, the longest pause while a step of this process runs: what follows it may come by others.
const UNHEARD: Duration = Duration::from_millis(100);
/// A pause that ends within this is not cut short by work: its end finds the news.
const SOON: Duration = Duration::from_millis(20);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Due {
    pub(crate) claim: bool,
    pub(crate) pump: bool,
    pub(crate) internal: bool,
}

#[derive(Debug)]
pub(crate) struct Pace {
    state: Mutex<State>,
    news: Notify,
    poll_max: Duration,
}

#[derive(Debug)]
struct State {
    quiet_since: Instant,
    last_read: Instant,
    /// Somebody said that there is something to read.
    is_woken: bool,
    moments: BinaryHeap<Reverse<Instant>>,
    next_timer: Option<Instant>,
    last_pump: Instant,
    is_internal_due: bool,
    last_internal: Instant,
    /// Until when the claimer sleeps.
    planned: Instant,
    /// No wake-up is heard, and a step runs.
    is_unheard: bool,
}

impl State {
    fn cap(&self, poll_max: Duration, now: Instant) -> Duration {
        if self.is_unheard {
            return poll_max.min(UNHEARD);
        }
        if now.duration_since(self.quiet_since) >= QUIET { poll_max.max(LONGEST_QUIET) } else { poll_max }
    }

    fn next_read(&self, poll_max: Duration, now: Instant) -> Instant {
        if self.is_woken {
            return now;
        }
        let quiet = self.last_read.saturating_duration_since(self.quiet_since);
        let pause = quiet.clamp(SHORTEST, self.cap(poll_max, now).max(SHORTEST));
        let next = self.last_read + pause;
        self.moments.peek().map_or(next, |Reverse(moment)| next.min(*moment))
    }

    fn next_pump(&self, poll_max: Duration, now: Instant) -> Instant {
        // After the latest moment of a read, so that it joins one.
        let longest = self.last_pump + self.cap(poll_max, now).mul_f64(LATEST);
        self.next_timer.map_or(longest, |timer| timer.min(longest))
    }

    /// While it is quiet the internal queue joins a read, and is no cause to look by itself.
    fn next_internal(&self, now: Instant) -> Option<Instant> {
        if self.is_internal_due {
            return Some(now);
        }
        let is_quiet = now.duration_since(self.quiet_since) >= QUIET;
        (!is_quiet).then_some(self.last_internal + INTERNAL_BUSY)
    }
}

impl Pace {
    pub(crate) fn new(poll_max: Duration) -> Self {
        let now = Instant::now();
        Self {
            state: Mutex::new(State {
                quiet_since: now,
                last_read: now,
                is_woken: true,
                moments: BinaryHeap::new(),
                next_timer: None,
                last_pump: now,
                is_internal_due: true,
                last_internal: now,
                planned: now,
                is_unheard: false,
            }),
            news: Notify::new(),
            poll_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something to read: look at once.
    pub(crate) fn wake(&self) {
        let mut state = self.lock();
        state.is_woken = true;
        state.quiet_since = Instant::now();
        self.news.notify_one();
    }

    /// Says whether a step runs in a process that hears no wake-ups.
    pub(crate) fn unheard(&self, is_unheard: bool) {
        self.lock().is_unheard = is_unheard;
    }

    /// A call read the queues, or brought work: the pauses begin anew.
    pub(crate) fn worked(&self, has_read: bool) {
        self.worked_at(Instant::now(), has_read);
    }

    fn worked_at(&self, now: Instant, has_read: bool) {
        let mut state = self.lock();
        state.quiet_since = now;
        if has_read {
            state.last_read = now;
        }
        if state.planned > now + SOON {
            self.news.notify_one();
        }
    }

    /// A read found nothing.
    pub(crate) fn read_nothing(&self) {
        self.lock().last_read = Instant::now();
    }

    /// A message becomes visible after this long.
    pub(crate) fn message_in(&self, delay: Duration) {
        let mut state = self.lock();
        if state.moments.len() < MOMENTS {
            state.moments.push(Reverse(Instant::now() + delay));
            self.news.notify_one();
        }
    }

    /// A timer is due after this long.
    pub(crate) fn timer_in(&self, delay: Duration) {
        let due = Instant::now() + delay;
        let mut state = self.lock();
        if state.next_timer.is_none_or(|known| due < known) {
            state.next_timer = Some(due);
            self.news.notify_one();
        }
    }

    /// The internal queue may have something.
    pub(crate) fn internal(&self) {
        self.lock().is_internal_due = true;
        self.news.notify_one();
    }

    /// Says what is due now, and counts it as done. While the next read is at most this far away the rest joins it, so that an idle
    /// process makes one call where it could make three.
    pub(crate) fn take_due(&self, can_claim: bool) -> Due {
        self.take_due_at(Instant::now(), can_claim)
    }

    fn take_due_at(&self, now: Instant, can_claim: bool) -> Due {
        let mut state = self.lock();
        let max = self.poll_max;
        let is_quiet = now.duration_since(state.quiet_since) >= QUIET;
        let claim = can_claim && state.next_read(max, now) <= now;
        let pump = state.next_pump(max, now) <= now || (claim && is_quiet);
        let internal = state.next_internal(now).is_some_and(|at| at <= now)
            || (claim && now.duration_since(state.last_internal) >= INTERNAL_QUIET);
        if claim {
            state.is_woken = false;
            state.last_read = now;
            while state.moments.peek().is_some_and(|m| m.0 <= now) {
                state.moments.pop();
            }
        }
        if pump {
            // Deadlines and the end of a cancelled task's grace arrive by the internal queue.
            state.is_internal_due |= state.next_timer.is_some_and(|timer| timer <= now);
            state.last_pump = now;
            state.next_timer = None;
        }
        if internal {
            state.is_internal_due = false;
            state.last_internal = now;
        }
        Due { claim, pump, internal }
    }

    /// Waits for the next thing to do, or for news. Cancel safe. A process without free slots waits for other things than reads.
    pub(crate) async fn wait(&self, can_claim: bool) {
        let until = self.plan(Instant::now(), can_claim);
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = self.news.notified() => {}
        }
    }

    fn plan(&self, now: Instant, can_claim: bool) -> Instant {
        let mut state = self.lock();
        let pump = state.next_pump(self.poll_max, now);
        let mut until = state.next_internal(now).map_or(pump, |at| at.min(pump));
        if can_claim {
            let read = state.next_read(self.poll_max, now);
            let pause = read.saturating_duration_since(now);
            let is_moment = state.moments.peek().is_some_and(|m| m.0 <= read);
            let read = if pause > SOON && !is_moment {
                now + pause.mul_f64(rand::rng().random_range(1.0..LATEST))
            } else {
                read
            };
            until = until.min(read);
        }
        state.planned = until;
        until
    }

    /// Answers how long the process sleeps at most, and whether it is quiet.
    pub(crate) fn longest_pause(&self) -> Duration {
        self.lock().cap(self.poll_max, Instant::now())
    }

    /// Says for how long there has been no work.
    pub(crate) fn quiet_for(&self) -> Duration {
        self.lock().quiet_since.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a span without waiting; answers the reads and the transactions.
    fn play(pace: &Pace, now: &mut Instant, span: Duration) -> (usize, usize) {
        let end = *now + span;
        let (mut reads, mut looks) = (0, 0);
        while *now < end {
            let due = pace.take_due_at(*now, true);
            reads += usize::from(due.claim);
            looks += usize::from(due != Due::default());
            *now = pace.plan(*now, true).max(*now + Duration::from_micros(100));
        }
        (reads, looks)
    }

    #[test]
    fn pauses_double_up_to_the_limit_and_begin_anew_after_work() {
        let pace = Pace::new(Duration::from_millis(500));
        let mut now = Instant::now();
        let (first, _) = play(&pace, &mut now, Duration::from_secs(1));
        assert!((8..=13).contains(&first), "{first}");
        let (later, _) = play(&pace, &mut now, Duration::from_secs(10));
        assert!((16..=23).contains(&later), "{later}");
        pace.worked_at(now, true);
        let (again, _) = play(&pace, &mut now, Duration::from_millis(100));
        assert!((5..=8).contains(&again), "{again}");
    }

    #[test]
    fn an_idle_process_is_nearly_silent() {
        let pace = Pace::new(Duration::from_millis(500));
        let mut now = Instant::now();
        play(&pace, &mut now, Duration::from_mins(3));
        let (reads, looks) = play(&pace, &mut now, Duration::from_mins(1));
        assert!((24..=34).contains(&reads), "{reads}");
        assert!(looks <= 34, "{looks}");
    }

    #[test]
    fn a_process_that_hears_nothing_looks_ten_times_a_second_while_a_step_runs() {
        let pace = Pace::new(Duration::from_millis(500));
        let mut now = Instant::now();
        play(&pace, &mut now, Duration::from_mins(3));
        pace.unheard(true);
        let (reads, _) = play(&pace, &mut now, Duration::from_secs(10));
        assert!((90..=101).contains(&reads), "{reads}");
        pace.unheard(false);
        let (later, _) = play(&pace, &mut now, Duration::from_secs(10));
        assert!(later <= 8, "{later}");
    }

    #[test]
    fn a_timer_is_met_and_brings_the_internal_queue_with_it() {
        let pace = Pace::new(Duration::from_millis(500));
        let mut now = Instant::now();
        play(&pace, &mut now, Duration::from_mins(3));
        let due = now + Duration::from_millis(700);
        pace.lock().next_timer = Some(due);
        while now < due {
            now = pace.plan(now, true).max(now + Duration::from_micros(100));
            if now < due {
                pace.lock().next_timer = Some(due);
                pace.take_due_at(now, true);
                pace.lock().next_timer = Some(due);
            }
        }
        assert!(now < due + Duration::from_millis(20));
        assert!(pace.take_due_at(now, true).pump);
        assert!(pace.take_due_at(now, true).internal);
    }

    #[test]
    fn a_wake_up_stays_until_there_is_a_free_slot() {
        let pace = Pace::new(Duration::from_millis(500));
        let mut now = Instant::now();
        play(&pace, &mut now, Duration::from_secs(5));
        pace.wake();
        assert!(!pace.take_due_at(now, false).claim);
        assert!(pace.take_due_at(now, true).claim);
    }
}
