//! The disk is full: on a small tmpfs, filled up under load and emptied again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::server::{Server, directory, submit_surely};
use crate::world::{PATIENCE, World};

/// A file system of its own, unmounted at the end.
struct Volume(PathBuf);

impl Volume {
    /// Mounts it; none where that is not allowed.
    fn mount(path: &Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let arguments = ["-t", "tmpfs", "-o", "size=192m,mode=755", "tmpfs"];
        let mounted = Command::new("mount").args(arguments).arg(path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(path.to_owned()));
        }
        std::fs::remove_dir(path).unwrap();
        None
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").args(["-l"]).arg(&self.0).status();
        if unmounted.is_ok_and(|status| status.success()) {
            // An empty directory in the temporary one.
            let _ = std::fs::remove_dir(&self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_and_gets_room_again() {
    let path = directory();
    let Some(volume) = Volume::mount(&path) else {
        eprintln!("NOT RUN: full disk: this machine lets the test mount nothing");
        return;
    };
    let settings = [("max_wal_size", "32MB"), ("min_wal_size", "32MB")];
    let mut server = Server::start(volume.0.clone(), &settings).await;
    let mut world = World::at(&server.url()).await;
    sqlx::query("create table junk (text text)").execute(&world.pool).await.unwrap();
    let _workers = (world.worker().await, world.worker().await);
    let submitting = tokio::spawn(submit_surely(world.tasker.clone(), 0, 120));
    sleep(Duration::from_millis(300)).await;
    let ballast = volume.0.join("ballast");
    let refused = fill(&ballast);
    let table = crowd(&world, "insert into junk select repeat(n::text, 200) from generate_series(1, 20000) n").await;
    let log = crowd(&world, "select pg_logical_emit_message(false, 'junk', repeat('x', 1000000))").await;
    sleep(Duration::from_secs(1)).await;
    let state = if server.is_running() { "up" } else { "down" };
    eprintln!("full disk: {refused}; a table: {table}; the log: {log}; the server is {state}");
    std::fs::remove_file(&ballast).unwrap();
    let emptied = Instant::now();
    if !server.is_running() {
        server.crash().await;
        server.restart().await;
    }
    world.tasks = submitting.await.unwrap();
    world.wait_for_all().await;
    world.hold_promises("full disk", emptied.elapsed()).await;
    world.pool.close().await;
    drop(server);
}

/// Writes to the database until it refuses; answers what it said.
async fn crowd(world: &World, statement: &'static str) -> sqlx::Error {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Err(error) = sqlx::query(statement).execute(&world.pool).await {
            return error;
        }
        assert!(Instant::now() < end, "the full disk takes everything");
    }
}

/// Writes until the disk takes nothing more; answers what it said.
fn fill(path: &Path) -> std::io::Error {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    let mut block = vec![1; 1 << 20];
    loop {
        match file.write_all(&block) {
            Ok(()) => {}
            // Down to the last page.
            Err(_) if block.len() > 4096 => block.truncate(block.len() / 2),
            Err(error) => return error,
        }
    }
}
