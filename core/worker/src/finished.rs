//! Those in this process who wait for a task to end.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tasker_model::{TaskId, TaskState};
use tokio::sync::oneshot;

/// How many tasks may be waited for; a wait beyond that ends only by the caller's own polling.
const WAITS: usize = 65_536;
/// How many ended tasks are remembered: one may end between its submit and the wait for it.
const RECENT: usize = 4096;

/// The waits, by task.
#[derive(Debug, Default, Clone)]
pub(crate) struct Finishes {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    waits: HashMap<TaskId, Vec<(u64, oneshot::Sender<TaskState>)>>,
    /// The number of the last wait.
    number: u64,
    recent: HashMap<TaskId, TaskState>,
    order: VecDeque<TaskId>,
}

impl Finishes {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a task; registered when this is called, not when it is first polled.
    pub(crate) fn wait(&self, task: TaskId) -> impl Future<Output = TaskState> + Send + 'static {
        let (sender, receiver) = oneshot::channel();
        let number = {
            let mut state = self.lock();
            state.number += 1;
            let number = state.number;
            if let Some(ended) = state.recent.get(&task) {
                // The receiver is here.
                let _ = sender.send(*ended);
            } else if state.waits.len() < WAITS || state.waits.contains_key(&task) {
                state.waits.entry(task).or_default().push((number, sender));
            }
            number
        };
        let forget = Forget { finishes: self.clone(), task, number };
        async move {
            let state = receiver.await;
            drop(forget);
            match state {
                Ok(state) => state,
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Tells them.
    pub(crate) fn tell(&self, task: TaskId, ended: TaskState) {
        let waits = {
            let mut state = self.lock();
            if state.recent.insert(task, ended).is_none() {
                state.order.push_back(task);
            }
            if state.order.len() > RECENT
                && let Some(oldest) = state.order.pop_front()
            {
                state.recent.remove(&oldest);
            }
            state.waits.remove(&task).unwrap_or_default()
        };
        for (_, wait) in waits {
            // Whoever no longer listens does not mind.
            let _ = wait.send(ended);
        }
    }
}

/// Takes a wait out again that was given up.
struct Forget {
    finishes: Finishes,
    task: TaskId,
    number: u64,
}

impl Drop for Forget {
    fn drop(&mut self) {
        let mut state = self.finishes.lock();
        if let Some(senders) = state.waits.get_mut(&self.task) {
            senders.retain(|(number, _)| *number != self.number);
            if senders.is_empty() {
                state.waits.remove(&self.task);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_hears_of_its_task_before_and_after() {
        let finishes = Finishes::default();
        let task = TaskId::generate();
        let wait = finishes.wait(task);
        finishes.tell(task, TaskState::Complete);
        assert_eq!(wait.await, TaskState::Complete);
        assert_eq!(finishes.wait(task).await, TaskState::Complete);
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_leaves_nothing_behind() {
        let finishes = Finishes::default();
        let pause = std::time::Duration::from_millis(1);
        let given_up = tokio::time::timeout(pause, finishes.wait(TaskId::generate())).await;
        assert!(given_up.is_err());
        assert!(finishes.lock().waits.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let finishes = Finishes::default();
        for _ in 0..RECENT + 10 {
            finishes.tell(TaskId::generate(), TaskState::Failed);
        }
        assert_eq!(finishes.lock().recent.len(), RECENT);
    }
}
