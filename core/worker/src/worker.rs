//! The handle to a running worker: its start, what it is asked to do, and its end.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tasker_engine::{Engine, NewWorker, Root, Submission, Submitted, clock, retrying};
use tasker_model::{Error, ErrorKind, Result, Revision, TaskId, TaskState, WorkflowRef};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::process::Process;
use crate::relay::Relay;
use crate::revisions::Revisions;
use crate::{Handler, Handlers, Options};

/// Handlers that were told to stop at the end of the grace have this long to do so.
const LAST_CALL: Duration = Duration::from_secs(2);
/// An aborted handler ends at its next await; one that has none is not waited for.
const ABORT: Duration = Duration::from_millis(100);
/// How long the last outcomes may take to reach the database.
const LAST_SETTLE: Duration = Duration::from_secs(5);

/// Why a worker stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// It was drained.
    Drained,
    /// More than half of its slots were held by handlers that did not end after their timeout: start a new process.
    Zombies,
}

impl StopReason {
    /// Returns the exit code of a worker process: 0, or 75 (try again) where its supervisor should start it anew.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Drained => 0,
            Self::Zombies => 75,
        }
    }
}

/// What a drain left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Steps that did not finish in time and went back.
    pub released: usize,
}

/// A running worker. Cheap to clone; it runs until [`Worker::drain`].
#[derive(Debug, Clone)]
pub struct Worker {
    process: Arc<Process>,
}

impl Worker {
    /// Starts a worker: registers the revisions, announces the handlers, and begins to claim.
    ///
    /// Fails with `unavailable` where the schema is not up to date, `conflict` where a live worker of another kind serves one of the
    /// handlers.
    pub async fn start(
        engine: Engine,
        revisions: Vec<Arc<Revision>>,
        handlers: Handlers,
        options: Options,
    ) -> Result<Self> {
        options.check()?;
        engine.check_installed().await?;
        let known = Revisions::new(engine.clone());
        let mut registered = BTreeMap::new();
        for revision in revisions {
            let done = engine.register(&revision).await?;
            registered.insert(revision.definition.reference(), done.revision_id);
            known.add(done.revision_id, revision);
        }
        let relay = Relay::start(&engine, &handlers).await?;
        let worker_id = engine.start_worker(&describe(&options)).await?;
        let announced = engine.announce(worker_id, &options.kind, &handlers.names()).await;
        let announced = match announced {
            Ok(announced) => announced,
            Err(error) => {
                // Its row must not look like a worker that lives; the first error is the one to tell.
                let _ = engine.stop_worker(worker_id).await;
                return Err(error);
            }
        };
        let by_id: HashMap<i32, Arc<dyn Handler>> = announced
            .iter()
            .filter_map(|one| Some((one.handler_id, Arc::clone(handlers.get(&one.namespace, &one.name)?))))
            .collect();
        let ids: Vec<i32> = by_id.keys().copied().collect();
        let queues = engine.serve_queues(worker_id, &options.kind, &ids, &options.queues).await?;
        tracing::info!(
            worker.id = worker_id,
            handlers = ids.len(),
            queues = queues.len(),
            concurrency = options.concurrency,
            "worker started"
        );
        let process = Arc::new(Process::new(
            engine,
            worker_id,
            options,
            by_id,
            relay,
            registered,
            queues,
            known,
            CancellationToken::new(),
        ));
        let worker = Self { process };
        worker.run()?;
        Ok(worker)
    }

    /// Starts the loops. Each is tracked and ends with `stopping`.
    fn run(&self) -> Result<()> {
        let process = &self.process;
        crate::heartbeat::start(process)?;
        for _ in 0..process.options.committers {
            process.loops.spawn(crate::committer::run(Arc::clone(process)));
        }
        process.loops.spawn(crate::claimer::run(Arc::clone(process)));
        process.loops.spawn(crate::listener::run(Arc::clone(process)));
        process.loops.spawn(crate::notifier::run(Arc::clone(process)));
        process.loops.spawn(crate::sweeper::run(Arc::clone(process)));
        process.loops.spawn(crate::relay::run(Arc::clone(process)));
        // Not tracked: the drain that it begins waits for all that is. It ends when the worker has stopped.
        let worker = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = worker.process.overrun.cancelled() => {
                    worker.drain(worker.process.options.drain).await;
                }
                () = worker.process.stopped.cancelled() => {}
            }
        });
        Ok(())
    }

    /// Returns the worker's id in the database.
    pub fn id(&self) -> i32 {
        self.process.worker_id
    }

    /// Returns the engine.
    pub fn engine(&self) -> &Engine {
        &self.process.engine
    }

    /// Returns the id of a revision that this worker registered at its start.
    pub fn revision_id(&self, reference: &WorkflowRef) -> Option<i32> {
        self.process.registered.get(reference).copied()
    }

    /// Makes tasks, all or none; those whose first steps this process serves and has slots for begin at once.
    ///
    /// The submissions must have been checked ([`Submission::check`]). Fails with `conflict` where a key was used with another input.
    pub async fn submit(&self, tasks: &[Submission]) -> Result<Vec<Submitted>> {
        let process = Arc::clone(&self.process);
        let tasks = tasks.to_vec();
        // In a task of its own: a caller that gives up must not leave leased steps that nobody runs.
        let submitted = self.process.loops.spawn(async move { submit(&process, &tasks).await });
        submitted
            .await
            .unwrap_or_else(|error| Err(Error::new(ErrorKind::Internal, format!("the submit did not end: {error}"))))
    }

    /// Waits until a task ends by a call of this process; one that has just ended is remembered. It may end by another's call: poll the
    /// database as well. At most 65,536 tasks are waited for at once; a further wait never ends by itself.
    pub fn finished(&self, task: TaskId) -> impl Future<Output = TaskState> + Send + 'static {
        self.process.finishes.wait(task)
    }

    /// Stops claiming, gives running handlers `grace` to end, settles what they report and gives the rest back. Idempotent: a further
    /// call waits for the first one, and with a grace of zero also ends its grace.
    pub async fn drain(&self, grace: Duration) -> Drained {
        let process = &self.process;
        if process.is_drained.swap(true, std::sync::atomic::Ordering::AcqRel) {
            if grace.is_zero() {
                process.hurry.cancel();
            }
            process.stopped.cancelled().await;
        } else {
            // In a task of its own: a drain that its caller gives up goes on.
            let worker = self.clone();
            let drain = tokio::spawn(async move { worker.drain_now(grace).await });
            // It does not panic; if it did, the leases would run out by themselves.
            let _ = drain.await;
        }
        Drained { released: process.released.load(std::sync::atomic::Ordering::Acquire) }
    }

    async fn drain_now(&self, grace: Duration) {
        let process = &self.process;
        process.draining.cancel();
        process.steps.close();
        tracing::info!(
            worker.id = process.worker_id,
            grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
            "draining"
        );
        tokio::select! {
            () = process.steps.wait() => {}
            () = tokio::time::sleep(grace) => {}
            () = process.hurry.cancelled() => {}
        }
        if !process.steps.is_empty() {
            process.leases.stop_all();
            let last_call = LAST_CALL.min(grace.max(Duration::from_millis(200)));
            let _ = tokio::time::timeout(last_call, process.steps.wait()).await;
            process.abandoning.cancel();
            let _ = tokio::time::timeout(ABORT, process.steps.wait()).await;
        }
        // A call in flight may yet bring steps: it holds places until it has given them back.
        let end = Instant::now() + LAST_SETTLE;
        while !process.slots.are_all_free() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // What has an outcome is in the outbox; the others go back.
        let rest: Vec<_> =
            process.leases.take_rest().into_iter().filter(|lease| !process.outbox.holds(lease)).collect();
        process.released.store(rest.len(), std::sync::atomic::Ordering::Release);
        for lease in rest {
            process.release(lease, "drain");
        }
        let end = Instant::now() + LAST_SETTLE;
        while !process.outbox.is_at_rest() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        process.stopping.cancel();
        process.loops.close();
        if tokio::time::timeout(LAST_SETTLE, process.loops.wait()).await.is_err() {
            tracing::warn!(worker.id = process.worker_id, "a part of the worker did not end in time");
        }
        if let Err(error) = process.engine.stop_worker(process.worker_id).await {
            tracing::warn!(%error, worker.id = process.worker_id, "cannot say that the worker stopped; its heartbeat will be missed");
        }
        let released = process.released.load(std::sync::atomic::Ordering::Acquire);
        tracing::info!(worker.id = process.worker_id, released, "worker stopped");
        process.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(StopReason::Drained);
        process.stopped.cancel();
    }

    /// Returns how many slots are free.
    pub fn free_slots(&self) -> usize {
        self.process.slots.free()
    }

    /// Returns how many handlers run on after their timeout; each holds a slot.
    pub fn zombies(&self) -> usize {
        self.process.slots.zombies()
    }

    /// Waits until the worker has stopped, by a drain or for a reason of its own.
    pub async fn stopped(&self) {
        self.process.stopped.cancelled().await;
    }

    /// Says why the worker stopped or stops; nothing while it runs.
    pub fn stop_reason(&self) -> Option<StopReason> {
        *self.process.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn submit(process: &Arc<Process>, tasks: &[Submission]) -> Result<Vec<Submitted>> {
    let roots = |task: &Submission| {
        process.revisions.known(task.revision_id).map_or(1, |r| r.steps.iter().filter(|s| s.parents.is_empty()).count())
    };
    let permits = process.reserve(tasks.iter().map(roots).sum());
    let caller = process.caller(permits.as_ref(), false);
    let since = Instant::now();
    let mut conn = process.engine.acquire().await?;
    let mut reply = retrying!(process.engine.submit(&mut conn, tasks, None, Root::HandOff(&caller)).await)?;
    if let Some(first) = tasks.iter().filter_map(|task| task.run_at).min() {
        // A task for later is a timer, or a message that is not visible yet: by the database's clock, which is not this machine's.
        let now = clock::now(&mut conn, process.engine.schema()).await?;
        let delay = (first - now).to_std().unwrap_or_default();
        process.pace.timer_in(delay);
        process.pace.message_in(delay);
    }
    drop(conn);
    let submitted = std::mem::take(&mut reply.submitted);
    if !reply.leased.is_empty() {
        process.pace.worked(false);
    }
    process.absorb(reply, permits, since).await;
    Ok(submitted)
}

fn describe(options: &Options) -> NewWorker {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |text| text.trim().to_owned());
    let pid = std::process::id();
    NewWorker {
        name: options.name.clone().unwrap_or_else(|| format!("{host}:{pid}")),
        kind: options.kind.clone(),
        host,
        pid: i32::try_from(pid).unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        concurrency: i32::try_from(options.concurrency).unwrap_or(i32::MAX),
        lease: options.lease,
    }
}
