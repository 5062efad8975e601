//! What the clones of a Tasker share at run time, and how a workflow finds the Tasker it was given to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tasker_engine::Engine;
use tasker_model::{Error, ErrorKind, Result, Revision, WorkflowRef};
use tasker_worker::Worker;

/// The database, the revisions registered in it, and the worker of this process, if one runs.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) engine: Engine,
    /// By workflow and content hash.
    registered: tokio::sync::Mutex<HashMap<(WorkflowRef, String), i32>>,
    /// Revisions that other programs registered, by id.
    foreign: Mutex<HashMap<i32, Arc<Revision>>>,
    worker: RwLock<Option<Worker>>,
}

impl Runtime {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, registered: tokio::sync::Mutex::default(), foreign: Mutex::default(), worker: RwLock::default() }
    }

    /// Returns the id of a revision, which is registered in its own transaction the first time.
    pub(crate) async fn register(&self, revision: &Revision) -> Result<i32> {
        let key = (revision.definition.reference(), revision.hash.clone());
        let mut registered = self.registered.lock().await;
        if let Some(id) = registered.get(&key) {
            return Ok(*id);
        }
        let id = self.engine.register(revision).await?.revision_id;
        registered.insert(key, id);
        Ok(id)
    }

    /// Returns the current revision of a workflow that this program does not define.
    pub(crate) async fn current(&self, workflow: &WorkflowRef) -> Result<(i32, Arc<Revision>)> {
        let mut conn = self.engine.acquire().await?;
        let id = self.engine.current_revision(&mut conn, workflow).await?;
        let known = self.foreign.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(revision) = known {
            return Ok((id, revision));
        }
        let revision = Arc::new(self.engine.revision(&mut conn, id).await?);
        self.foreign.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&revision));
        Ok((id, revision))
    }

    /// Returns the worker that runs in this process.
    pub(crate) fn worker(&self) -> Option<Worker> {
        self.worker.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_worker(&self, worker: Option<Worker>) {
        *self.worker.write().unwrap_or_else(PoisonError::into_inner) = worker;
    }
}

/// Where a workflow can submit to; shared by its clones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Home(Arc<Mutex<Place>>);

#[derive(Debug, Clone, Default)]
enum Place {
    #[default]
    None,
    One(Arc<Runtime>, Arc<Revision>),
    Many,
}

impl Home {
    pub(crate) fn set(&self, runtime: &Arc<Runtime>, revision: &Arc<Revision>) {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *place = match &*place {
            Place::One(other, _) if !Arc::ptr_eq(other, runtime) => Place::Many,
            Place::Many => Place::Many,
            Place::None | Place::One(..) => Place::One(Arc::clone(runtime), Arc::clone(revision)),
        };
    }

    pub(crate) fn get(&self, workflow: &WorkflowRef) -> Result<(Arc<Runtime>, Arc<Revision>)> {
        let place = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match place {
            Place::One(runtime, revision) => Ok((runtime, revision)),
            Place::None => Err(Error::new(
                ErrorKind::Invalid,
                format!("workflow {workflow} belongs to no Tasker yet; give it to one: `tasker.workflow(..)`"),
            )),
            Place::Many => Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "workflow {workflow} belongs to two Taskers; submit through one of them: `tasker.submit(..).within(..)`"
                ),
            )),
        }
    }
}
