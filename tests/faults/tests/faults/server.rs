//! The server itself dies under load: `pg_ctl -m immediate` is a SIGQUIT, after which it must recover from its log.

use std::path::PathBuf;
use std::time::Duration;

use tasker_faults::Order;
use tasker_postgres::{Options, Postgres};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::config::{rounds, scaled};
use crate::program::send_signal;
use crate::world::{PATIENCE, World, install};

/// A durable server of the test's own.
pub(crate) struct Server {
    options: Options,
    postgres: Option<Postgres>,
    root: PathBuf,
}

impl Server {
    /// Starts one in this directory, which is deleted at the end.
    pub(crate) async fn start(root: PathBuf, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let options = Options { settings, ..Options::new(root.join("server")) };
        let mut server = Self { options, postgres: None, root };
        server.restart().await;
        server.options.port = server.postgres.as_ref().map(Postgres::port);
        install(&server.url()).await;
        server
    }

    pub(crate) fn url(&self) -> String {
        self.postgres.as_ref().unwrap().url().to_owned()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.postgres.as_ref().is_some_and(Postgres::is_running)
    }

    /// Ends it without a checkpoint.
    pub(crate) async fn crash(&mut self) {
        let postgres = self.postgres.take().unwrap();
        if postgres.is_running() {
            send_signal(i32::try_from(postgres.pid()).unwrap(), libc::SIGQUIT);
        }
        let end = Instant::now() + PATIENCE;
        while postgres.is_running() {
            assert!(Instant::now() < end, "the server does not end");
            sleep(Duration::from_millis(5)).await;
        }
        spawn_blocking(move || drop(postgres)).await.unwrap();
    }

    /// Starts it again where it was.
    pub(crate) async fn restart(&mut self) {
        let options = self.options.clone();
        self.postgres = Some(spawn_blocking(move || Postgres::start(&options)).await.unwrap().unwrap());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.postgres.take());
        // What is left lies in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// Names a directory that no other test has.
pub(crate) fn directory() -> PathBuf {
    std::env::temp_dir().join(format!("tasker-faults-{}", uuid::Uuid::now_v7()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_at_once_and_comes_back_under_load() {
    let mut server = Server::start(directory(), &[]).await;
    let mut world = World::at(&server.url()).await;
    let _workers = (world.worker().await, world.worker().await);
    for round in 0..rounds() {
        let submitting = tokio::spawn(submit_surely(world.tasker.clone(), round, scaled(60)));
        sleep(Duration::from_millis(400)).await;
        server.crash().await;
        sleep(Duration::from_millis(300)).await;
        server.restart().await;
        let back = Instant::now();
        world.tasks.extend(submitting.await.unwrap());
        world.wait_for_all().await;
        world.hold_promises("server stopped with -m immediate", back.elapsed()).await;
    }
}

/// Submits each task under a key, again until it is there.
pub(crate) async fn submit_surely(tasker: tasker::Tasker, round: usize, count: usize) -> Vec<tasker::TaskId> {
    let mut tasks = Vec::new();
    let end = Instant::now() + PATIENCE;
    for n in 0..count {
        let submit = || {
            tasker.submit("storm", Order { slow_ms: 20, failures: 1, ..Order::default() }).key(format!("{round}/{n}"))
        };
        let task = loop {
            match submit().await {
                Ok(task) => break task,
                Err(error) => assert!(Instant::now() < end, "no task can be submitted: {error}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        tasks.push(task.id());
        sleep(Duration::from_millis(10)).await;
    }
    tasks
}
