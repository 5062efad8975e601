//! Those in this process who wait for a task to end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tasker_model::{TaskId, TaskState};
use tokio::sync::oneshot;

/// How many tasks may be waited for; a wait beyond that ends only by the caller's own polling.
const WAITS: usize = 65_536;

/// The waits, by task.
#[derive(Debug, Default, Clone)]
pub(crate) struct Finishes {
    waits: Arc<Mutex<HashMap<TaskId, Vec<oneshot::Sender<TaskState>>>>>,
}

impl Finishes {
    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Vec<oneshot::Sender<TaskState>>>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a task; registered when this is called, not when it is first polled.
    pub(crate) fn wait(&self, task: TaskId) -> impl Future<Output = TaskState> + Send + 'static {
        let (sender, receiver) = oneshot::channel();
        {
            let mut waits = self.lock();
            if waits.len() < WAITS || waits.contains_key(&task) {
                waits.entry(task).or_default().push(sender);
            }
        }
        let forget = Forget {
            finishes: self.clone(),
            task,
        };
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
    pub(crate) fn tell(&self, task: TaskId, state: TaskState) {
        let Some(waits) = self.lock().remove(&task) else {
            return;
        };
        for wait in waits {
            // Whoever no longer listens does not mind.
            let _ = wait.send(state);
        }
    }
}

/// Takes a wait out again that was given up.
struct Forget {
    finishes: Finishes,
    task: TaskId,
}

impl Drop for Forget {
    fn drop(&mut self) {
        let mut waits = self.finishes.lock();
        if let Some(senders) = waits.get_mut(&self.task) {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                waits.remove(&self.task);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_hears_of_its_task_and_leaves_nothing_behind() {
        let finishes = Finishes::default();
        let task = TaskId::generate();
        let wait = finishes.wait(task);
        finishes.tell(task, TaskState::Complete);
        assert_eq!(wait.await, TaskState::Complete);
        drop(finishes.wait(task));
        let given_up =
            tokio::time::timeout(std::time::Duration::from_millis(1), finishes.wait(task)).await;
        assert!(given_up.is_err());
        assert!(
            finishes
                .lock()
                .values()
                .all(|senders| senders.iter().all(tokio::sync::oneshot::Sender::is_closed))
        );
    }
}
