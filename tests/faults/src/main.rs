//! The worker that the fault tests kill: a lease of two seconds, the workflow `storm`, and points at which it stops itself.

use std::process::ExitCode;
use std::time::Duration;

use tasker::{Schema, Tasker};
use tasker_faults::{aside, slots, stop, storm, teller};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match work().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn work() -> tasker::Result<()> {
    let tasker = Tasker::builder()
        .env()?
        .schema(Schema::default().with_wait_points())
        .concurrency(slots())
        .lease(Duration::from_secs(2))
        .drain(Duration::from_secs(5))
        .connect()
        .await?;
    let pool = tasker.pool().clone();
    let told = pool.clone();
    let tasker = tasker
        .workflow(storm())
        .workflow(aside())
        .with_state(pool)
        .on("*", "teller", move |event| teller(told.clone(), event));
    let worker = tasker.start().await?;
    stop::say("ready");
    tokio::select! {
        () = tasker::wait_for_shutdown_signal() => {}
        () = worker.stopped() => {}
    }
    worker.drain(Duration::from_secs(5)).await;
    Ok(())
}
