//! Drives the engine's own claim and settle over one connection, one step at a time, and moves the clock instead of waiting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tasker_engine::{Caller, Change, Claimed, Engine, Reply, Root, Settlement, Submission, clock, pgmq, to_error};
use tasker_model::{Error, ErrorKind, Payload, Result, Revision, TaskId, TaskState};
use tasker_worker::{SharedConnection, refused, revision_step, run_claimed};

use super::handlers::TestHandlers;
use super::lent::Lent;
use super::report::{TestRun, read};

/// Longer than any test.
pub(super) const LEASE: Duration = Duration::from_hours(1);
/// A retry that is due within two seconds is a message that is not visible yet, of which nothing tells: the clock goes on in
/// strides of this length.
const STRIDE: Duration = Duration::from_millis(250);
/// So many strides cover those two seconds.
const STRIDES: u32 = 9;

pub(super) struct Drive<'k> {
    pub(super) engine: &'k Engine,
    /// The workflow's own revision first, then those of its children.
    pub(super) revisions: Vec<(i32, Arc<Revision>)>,
    pub(super) caller: Caller,
    pub(super) handlers: &'k TestHandlers,
    /// What every task is sent.
    pub(super) signals: Vec<(String, Payload)>,
}

/// Steps in hand, and what is to be settled before them.
#[derive(Default)]
struct Hands {
    claimed: VecDeque<Claimed>,
    settlements: Vec<Settlement>,
}

impl Drive<'_> {
    pub(super) async fn run(&self, connection: &mut PgConnection, submission: Submission) -> Result<TestRun> {
        submission.check(&self.revisions[0].1)?;
        self.begin(connection).await?;
        let reply = self.engine.submit(connection, &[submission], Some("test"), Root::Anyone).await?;
        let task = reply.submitted.first().map(|submitted| submitted.task_id).ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "the database did not answer the submit; is its schema older than this program?",
            )
        })?;
        for (name, payload) in &self.signals {
            self.engine.signal_on(connection, task, name, payload, "test").await?;
        }
        let substitute = self.engine.open().await?;
        let lent = Lent::new(connection, substitute);
        let elapsed = self.finish(&lent.shared(), task).await?;
        drop(lent);
        read(self.engine, connection, task, elapsed).await
    }

    /// Begins a test session. Outside a transaction its settings would be gone with the statement, and the run committed.
    async fn begin(&self, connection: &mut PgConnection) -> Result<()> {
        clock::begin_test(connection, self.engine.schema()).await?;
        let is_on: bool = sqlx::query_scalar(self.engine.statement("select {schema}.is_test_session()"))
            .fetch_one(connection)
            .await
            .map_err(|error| to_error("beginning a test session", error))?;
        if is_on {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Invalid,
            "the connection is in no transaction; begin one, and roll it back after the test",
        ))
    }

    /// Runs steps until the task has ended; answers how much time passed by the test's clock.
    async fn finish(&self, shared: &SharedConnection, task: TaskId) -> Result<Duration> {
        let mut hands = Hands::default();
        let mut elapsed = Duration::ZERO;
        let mut strides = 0;
        loop {
            self.run_all(shared, &mut hands).await?;
            let mut connection = shared.lock().await;
            if self.look(&mut connection, &mut hands).await? {
                strides = 0;
                continue;
            }
            if self.state(&mut connection, task).await?.is_terminal() {
                return Ok(elapsed);
            }
            let timers = pgmq::publish(self.engine, &mut connection).await?;
            let due = timers.next_timer;
            if !timers.left.is_empty() {
                strides = 0;
                continue;
            }
            elapsed += match due {
                _ if strides < STRIDES => due.unwrap_or(STRIDE).clamp(Duration::from_millis(1), STRIDE),
                Some(due) => due.max(Duration::from_millis(1)),
                None => return Err(self.stuck(task)),
            };
            strides += 1;
            clock::shift(&mut connection, elapsed).await?;
        }
    }

    fn revision(&self, claimed: &Claimed) -> Result<&Arc<Revision>> {
        let found = self.revisions.iter().find(|(id, _)| *id == claimed.revision_id);
        found.map(|(_, revision)| revision).ok_or_else(|| {
            let message = format!(
                "task {} is of a workflow that the test does not know; add it with `.with_workflow(&workflow)`",
                claimed.lease.task_id
            );
            Error::new(ErrorKind::Invalid, message)
        })
    }

    async fn run_all(&self, shared: &SharedConnection, hands: &mut Hands) -> Result<()> {
        loop {
            if !hands.settlements.is_empty() {
                let settlements = std::mem::take(&mut hands.settlements);
                // All that it wants is handed off: what is left in the queues is read when nothing is in hand.
                let reply = pgmq::settle(self.engine, &mut *shared.lock().await, &self.caller, &settlements).await?;
                self.take(reply, hands);
            }
            let Some(claimed) = hands.claimed.pop_front() else {
                return Ok(());
            };
            let revision = self.revision(&claimed)?;
            let handler = self.handlers.of(revision_step(revision, &claimed)?, claimed.step_name.as_deref())?;
            let connection = Some(Arc::clone(shared));
            let started = tokio::time::Instant::now();
            let change = run_claimed(self.engine, revision, &claimed, &handler, connection).await?;
            if let Some(change) = change {
                let duration = Some(started.elapsed());
                hands.settlements.push(Settlement { lease: claimed.lease, change, duration });
            }
        }
    }

    /// Reads the queues and the engine's own; says whether there was anything.
    async fn look(&self, connection: &mut PgConnection, hands: &mut Hands) -> Result<bool> {
        let reply = pgmq::receive(self.engine, connection, &self.caller).await?;
        self.take(reply, hands);
        let internal = self.engine.take_internal(connection, 64).await?;
        for message in &internal {
            let reply = self.engine.apply_internal(connection, message).await?;
            self.take(reply, hands);
        }
        Ok(!internal.is_empty() || !hands.claimed.is_empty() || !hands.settlements.is_empty())
    }

    fn take(&self, reply: Reply, hands: &mut Hands) {
        hands.claimed.extend(reply.leased);
        hands.settlements.extend(reply.refused.into_iter().map(|refusal| {
            let change: Change =
                refused(refusal.reason, &refusal.claimed, self.revision(&refusal.claimed).ok().map(Arc::as_ref));
            Settlement { lease: refusal.claimed.lease, change, duration: None }
        }));
    }

    async fn state(&self, connection: &mut PgConnection, task: TaskId) -> Result<TaskState> {
        let text: String =
            sqlx::query_scalar(self.engine.statement("select state::text from {schema}.task where task_id = $1"))
                .bind(task.0)
                .fetch_one(connection)
                .await
                .map_err(|error| to_error("reading the task's state", error))?;
        text.parse()
    }

    fn stuck(&self, task: TaskId) -> Error {
        let workflow = self.revisions[0].1.definition.reference();
        Error::new(
            ErrorKind::Internal,
            format!(
                "task {task} of {workflow} does not go on: no step is ready and no timer will make one so; does it wait for a signal? (`.signal(..)`)"
            ),
        )
    }
}
