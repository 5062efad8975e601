//! The compiled revisions that this process has met.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tasker_engine::Engine;
use tasker_engine::sweep::RetryPolicies;
use tasker_model::{Result, Retry, Revision};

/// Revisions by their id. They never change, so that none is ever read twice.
#[derive(Debug)]
pub(crate) struct Revisions {
    engine: Engine,
    known: Mutex<HashMap<i32, Arc<Revision>>>,
}

impl Revisions {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, known: Mutex::default() }
    }

    pub(crate) fn add(&self, revision_id: i32, revision: Arc<Revision>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(revision_id, revision);
    }

    pub(crate) fn known(&self, revision_id: i32) -> Option<Arc<Revision>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&revision_id).cloned()
    }

    /// Finds a revision; reads it from the database the first time.
    pub(crate) async fn get(&self, revision_id: i32) -> Result<Arc<Revision>> {
        if let Some(revision) = self.known(revision_id) {
            return Ok(revision);
        }
        let mut conn = self.engine.acquire().await?;
        let revision = Arc::new(self.engine.revision(&mut conn, revision_id).await?);
        self.add(revision_id, Arc::clone(&revision));
        Ok(revision)
    }
}

impl RetryPolicies for Revisions {
    async fn retry(&self, revision_id: i32, idx: i32) -> Result<Retry> {
        let revision = self.get(revision_id).await?;
        let step = usize::try_from(idx).ok().and_then(|at| revision.steps.get(at));
        Ok(step.map_or_else(Retry::default, |step| step.retry))
    }
}
