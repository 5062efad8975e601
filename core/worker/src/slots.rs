//! The places in which handlers run. A place is reserved before a step is asked for and given back if none came.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One or more reserved places; dropping gives them back.
pub(crate) type Permits = OwnedSemaphorePermit;

/// All places of a process.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    size: usize,
    /// Handlers that outlived their timeout and still hold their place.
    zombies: AtomicUsize,
}

impl Slots {
    pub(crate) fn new(size: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(size)), size, zombies: AtomicUsize::new(0) }
    }

    /// Reserves up to `want` of the free places; nothing where none is free.
    pub(crate) fn reserve(&self, want: usize) -> Option<Permits> {
        loop {
            let take = self.free.available_permits().min(want);
            if take == 0 {
                return None;
            }
            let take = u32::try_from(take).unwrap_or(u32::MAX);
            // Fails only where another reservation came between; then there are fewer left.
            if let Ok(permits) = Arc::clone(&self.free).try_acquire_many_owned(take) {
                return Some(permits);
            }
        }
    }

    pub(crate) fn free(&self) -> usize {
        self.free.available_permits()
    }

    pub(crate) fn are_all_free(&self) -> bool {
        self.free() == self.size
    }

    /// Counts a zombie until the guard is dropped. Answers whether more than half of the places are taken by zombies now.
    pub(crate) fn zombie(self: &Arc<Self>) -> (Zombie, bool) {
        let count = self.zombies.fetch_add(1, Ordering::AcqRel) + 1;
        (Zombie(Arc::clone(self)), count * 2 > self.size)
    }

    pub(crate) fn zombies(&self) -> usize {
        self.zombies.load(Ordering::Acquire)
    }
}

/// A handler that outlived its timeout.
#[derive(Debug)]
pub(crate) struct Zombie(Arc<Slots>);

impl Drop for Zombie {
    fn drop(&mut self) {
        self.0.zombies.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_never_exceed_the_size_and_come_back() {
        let slots = Arc::new(Slots::new(3));
        let mut two = slots.reserve(2).unwrap();
        assert_eq!(slots.reserve(5).unwrap().num_permits(), 1);
        let one = two.split(1).unwrap();
        assert_eq!(slots.free(), 1);
        drop(two);
        assert_eq!(slots.free(), 2);
        drop(one);
        assert!(slots.are_all_free());
    }

    #[test]
    fn half_of_the_places_may_be_zombies() {
        let slots = Arc::new(Slots::new(2));
        let (first, too_many) = slots.zombie();
        assert!(!too_many);
        let (_second, too_many) = slots.zombie();
        assert!(too_many);
        drop(first);
        assert_eq!(slots.zombies(), 1);
    }
}
