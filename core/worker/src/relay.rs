//! Brings published events to who wants them: webhooks, and subscribers in this process.
//!
//! A delivery is leased, made, and its end recorded; a process that dies in between leaves a lease that ends, and the delivery is made
//! again, by whoever looks next. So each is made at least once, and its id is the same every time. It looks when this process published
//! something, when another says so, when a delivery is due, and now and then.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use rand::Rng;
use tasker_engine::Engine;
use tasker_engine::deliveries::{Delivery, Room, Taken};
use tasker_engine::subscriptions::{SubscriptionKind, Target};
use tasker_model::{Result, StepFailure};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::answer::answer;
use crate::process::Process;
use crate::{Handlers, Published, Subscriber, webhook};

/// How long a delivery is this process's; longer than a webhook may take. A subscriber that takes longer keeps it.
const LEASE: Duration = Duration::from_secs(30);
const KEEP: Duration = Duration::from_secs(10);
/// Deliveries under way to one subscription: one that does not answer holds up itself only.
const EACH: i32 = 8;
/// Deliveries under way in all.
const LIMIT: usize = 256;
/// How often it looks by itself, and how often where nothing happens.
const BUSY: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_secs(30);
const QUIET_AFTER: Duration = Duration::from_mins(1);
/// Deliveries that become due one after the other are looked for together.
const SHORTEST: Duration = Duration::from_millis(20);
/// A delivery that failed so often is given up.
const ATTEMPTS: i32 = 12;
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_hours(1);
/// How often its end is recorded at most; after that the lease ends, and it is made again.
const RECORDS: u32 = 3;

/// What the relay's loop shares with those who have news for it.
pub(crate) struct Relay {
    subscribers: BTreeMap<String, Arc<dyn Subscriber>>,
    names: Vec<String>,
    woken: Notify,
    has_foreign: AtomicBool,
}

impl Relay {
    /// Makes the subscriptions of this process's subscribers; those that are there are kept.
    pub(crate) async fn start(engine: &Engine, handlers: &Handlers) -> Result<Self> {
        for (name, (event, _)) in handlers.subscribers() {
            if let Err(error) = engine.check_event(event).await {
                // It may be of a workflow that is registered later, by another process.
                tracing::warn!(subscription = name, %event, "{}", error.message);
            }
            if engine.subscribe(name, event, Target::Process).await? {
                tracing::info!(subscription = name, %event, "subscription added");
            }
        }
        let subscribers = handlers.subscribers().iter().map(|(name, (_, one))| (name.clone(), Arc::clone(one)));
        Ok(Self {
            subscribers: subscribers.collect(),
            names: handlers.subscribers().keys().cloned().collect(),
            woken: Notify::new(),
            has_foreign: AtomicBool::new(true),
        })
    }

    /// Something was published.
    pub(crate) fn wake(&self) {
        self.woken.notify_one();
    }

    /// Says whether subscribers exist that only other processes have.
    pub(crate) fn has_foreign(&self) -> bool {
        self.has_foreign.load(Ordering::Relaxed)
    }
}

/// The deliveries under way.
#[derive(Default)]
struct UnderWay {
    /// Each answers its subscription, and when the delivery is due again.
    tasks: JoinSet<(i32, Option<Duration>)>,
    busy: HashMap<i32, i32>,
}

impl UnderWay {
    fn is_full(&self) -> bool {
        self.tasks.len() >= LIMIT || self.busy.values().any(|busy| *busy >= EACH)
    }

    /// Says whether what was full has places for a call's worth again.
    fn ended(&mut self, subscription: i32, was_full: bool) -> bool {
        let Some(busy) = self.busy.get_mut(&subscription) else {
            return false;
        };
        *busy -= 1;
        let has_room = *busy <= EACH / 2;
        if *busy == 0 {
            self.busy.remove(&subscription);
        }
        was_full && has_room && self.tasks.len() <= LIMIT / 2
    }
}

/// Runs until the process stops. A drain waits for the deliveries under way as it does for steps.
pub(crate) async fn run(process: Arc<Process>) {
    let mut under_way = UnderWay::default();
    let mut was_full = false;
    let mut next = Instant::now();
    loop {
        // Cancel safe: a permit of `woken` is kept, and so is the end of a task.
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = process.relay.woken.notified() => {}
            Some(ended) = under_way.tasks.join_next() => {
                // Aborted ones have no answer; that is at the very end.
                let Ok((subscription, again_in)) = ended else { continue };
                if let Some(delay) = again_in {
                    next = next.min(Instant::now() + delay + SHORTEST);
                }
                if !under_way.ended(subscription, was_full) {
                    continue;
                }
            }
            () = process.draining.cancelled() => break,
        }
        let pause = if process.pace.quiet_for() >= QUIET_AFTER { QUIET } else { BUSY };
        let mut pause = pause.mul_f64(rand::rng().random_range(0.8..1.2));
        let since = Instant::now();
        match answer(look(&process, &under_way)).await {
            Ok(taken) => {
                process.relay.has_foreign.store(taken.has_foreign, Ordering::Relaxed);
                if let Some(due) = taken.next {
                    pause = pause.min(due.max(SHORTEST));
                }
                for delivery in taken.deliveries {
                    let subscription = delivery.subscription_id;
                    *under_way.busy.entry(subscription).or_default() += 1;
                    let deliver = deliver(Arc::clone(&process), delivery, since);
                    under_way
                        .tasks
                        .spawn(process.steps.track_future(deliver.map(move |again_in| (subscription, again_in))));
                }
                was_full = under_way.is_full();
            }
            Err(error) => tracing::warn!(%error, "cannot read what is to be delivered; the next look tries again"),
        }
        next = Instant::now() + pause;
    }
    tokio::select! {
        () = async { while under_way.tasks.join_next().await.is_some() {} } => {}
        () = process.stopping.cancelled() => {}
    }
}

async fn look(process: &Process, under_way: &UnderWay) -> Result<Taken> {
    let limit = i32::try_from(LIMIT.saturating_sub(under_way.tasks.len())).unwrap_or_default();
    let busy: Vec<(i32, i32)> = under_way.busy.iter().map(|(id, busy)| (*id, *busy)).collect();
    let mut conn = process.engine.acquire().await?;
    let room = Room { each: EACH, limit, lease: LEASE };
    process.engine.take_deliveries(&mut conn, &process.relay.names, &busy, room).await
}

/// Makes one delivery and records its end; answers when it is due again.
async fn deliver(process: Arc<Process>, delivery: Delivery, since: Instant) -> Option<Duration> {
    let done = match delivery.kind {
        SubscriptionKind::Webhook => webhook::send(&delivery, since).await.map_err(StepFailure::unexpected),
        SubscriptionKind::Process => tell(&process, &delivery).await,
        SubscriptionKind::Queue => Err(StepFailure::permanent("a queue's message is sent where it is published")),
    };
    let again_in = done.as_ref().err().and_then(|error| again_in(error, delivery.attempt));
    let error = done.err().map(|error| error.message);
    if let Some(error) = &error {
        let (subscription, attempt) = (&delivery.subscription, delivery.attempt);
        if again_in.is_some() {
            tracing::debug!(
                subscription,
                event = delivery.event,
                attempt,
                error,
                "a delivery failed; it is tried again"
            );
        } else {
            tracing::warn!(subscription, event = delivery.event, attempt, error, "a delivery was given up");
        }
    }
    for attempt in 1..=RECORDS {
        let recorded = answer(async {
            let mut conn = process.engine.acquire().await?;
            process.engine.end_delivery(&mut conn, &delivery, error.as_deref(), again_in).await
        });
        match recorded.await {
            Ok(()) => break,
            Err(error) if attempt == RECORDS => {
                tracing::warn!(%error, "cannot save what became of a delivery; it is made again");
            }
            Err(_) => tokio::time::sleep(FIRST_DELAY * attempt).await,
        }
    }
    again_in
}

/// Gives an event to a subscriber of this process, and keeps the lease while it runs.
async fn tell(process: &Arc<Process>, delivery: &Delivery) -> Result<(), StepFailure> {
    let Some(subscriber) = process.relay.subscribers.get(&delivery.subscription) else {
        return Err(StepFailure::unexpected("this process has no such subscriber"));
    };
    let event = Published::read(&delivery.payload, delivery.attempt)
        .map_err(|error| StepFailure::permanent(format!("the event cannot be read: {error}")))?;
    let call = AssertUnwindSafe(async move { subscriber.call(event).await }).catch_unwind();
    let mut keep = tokio::time::interval_at(Instant::now() + KEEP, KEEP);
    tokio::pin!(call);
    loop {
        tokio::select! {
            told = &mut call => return match told {
                Ok(told) => told,
                Err(panic) => Err(panicked(&*panic)),
            },
            _ = keep.tick() => {
                let kept = answer(async {
                    let mut conn = process.engine.acquire().await?;
                    process.engine.keep_deliveries(&mut conn, &[(delivery.delivery_id, delivery.attempt)], LEASE).await
                });
                if let Err(error) = kept.await {
                    tracing::warn!(%error, subscription = delivery.subscription, "cannot keep a delivery; another process may make it too");
                }
            }
        }
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> StepFailure {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    StepFailure::unexpected(format!("the subscriber panicked: {}", text.unwrap_or("without a message")))
}

/// When the next attempt may begin after this one failed; none where it is given up. Doubles from a second to an hour, and what failed
/// together does not come again together.
fn again_in(error: &StepFailure, attempt: i32) -> Option<Duration> {
    if !error.retryable || attempt >= ATTEMPTS {
        return None;
    }
    let doublings = u32::try_from(attempt - 1).unwrap_or_default().min(16);
    let delay = FIRST_DELAY.saturating_mul(1 << doublings).min(LONGEST_DELAY);
    let asked = error.retry_after_ms.map(Duration::from_millis).unwrap_or_default();
    Some(delay.mul_f64(rand::rng().random_range(0.75..1.0)).max(asked.min(LONGEST_DELAY)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_double_their_delay_up_to_an_hour_and_end() {
        let error = StepFailure::unexpected("busy");
        let delays: Vec<Duration> = (1..20).map_while(|attempt| again_in(&error, attempt)).collect();
        assert_eq!(delays.len(), 11, "the twelfth is the last");
        for (at, delay) in delays.iter().enumerate() {
            let longest = Duration::from_secs(1 << at);
            assert!(*delay <= longest.min(LONGEST_DELAY) && *delay >= longest.mul_f64(0.75).min(LONGEST_DELAY));
        }
        assert!(again_in(&error.clone().retry_after(Duration::from_mins(1)), 1).unwrap() >= Duration::from_mins(1));
        assert_eq!(again_in(&StepFailure::permanent("no such customer"), 1), None);
    }

    #[test]
    fn a_full_subscription_is_looked_at_again_when_half_of_its_places_are_free() {
        let mut under_way = UnderWay::default();
        under_way.busy.insert(7, EACH);
        assert!(under_way.is_full());
        let looks: Vec<bool> = (0..EACH).map(|_| under_way.ended(7, true)).collect();
        assert_eq!(looks.iter().position(|look| *look), Some(3));
        assert!(under_way.busy.is_empty());
    }
}
