//! `tasker dev`: a database and the application's worker in one command. Both end with it, `kill -9` included.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tasker_engine::queries::WorkerState;
use tasker_engine::{Engine, clock};
use tasker_model::{Error, ErrorKind};
use tasker_postgres::Postgres;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Context;
use super::worker_process::WorkerProcess;
use crate::args::DevArgs;
use crate::failure::{Failure, Outcome, file_error, invalid};
use crate::output::talk;

/// How often the database and the worker are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// What runs the handlers of a Rust project that says nothing else.
const RUST_WORKER: &str = "cargo run --release -- work";

/// Why `tasker dev` ends.
enum End {
    Asked,
    Worker(std::process::ExitStatus),
    Database,
}

pub(super) async fn run(context: &Context, args: DevArgs) -> Outcome {
    let mut signals = Signals::new()?;
    if let Some(file) = &args.ready_file {
        // One that an earlier run left would say "ready" too early.
        let _ = std::fs::remove_file(file);
    }
    let (postgres, url) = database(context, &args).await?;
    let result = serve(context, &args, &mut signals, postgres.as_ref(), &url).await;
    if let Some(postgres) = postgres {
        talk("stopping PostgreSQL");
        stop(postgres).await?;
    }
    if let Some(file) = &args.ready_file {
        let _ = std::fs::remove_file(file);
    }
    result
}

async fn serve(
    context: &Context,
    args: &DevArgs,
    signals: &mut Signals,
    postgres: Option<&Postgres>,
    url: &str,
) -> Outcome {
    let engine = context.config.connect_to(url.to_owned()).await?;
    engine.migrate().await?;
    talk(format!("schema {} is up to date", engine.schema()));
    context.output.show(&json!({ "database_url": url }), |_| url.to_owned());
    let mut worker = start_worker(context, args, url)?;
    let end = supervise(args, signals, postgres, url, &engine, worker.as_mut()).await?;
    if let Some(worker) = &mut worker
        && !matches!(end, End::Worker(_))
    {
        talk("waiting for the worker to finish what it runs; once more to stop it now");
        worker.stop(signals.next()).await;
    }
    engine.pool().close().await;
    match end {
        End::Asked => Ok(()),
        End::Worker(status) => {
            talk(format!("the worker ended: {status}"));
            Err(Failure::Told(1))
        }
        End::Database => {
            let message = "PostgreSQL ended by itself; see its log in the data directory";
            Err(Error::new(ErrorKind::Unavailable, message).into())
        }
    }
}

/// Starts the development database, unless another one is configured.
async fn database(context: &Context, args: &DevArgs) -> Outcome<(Option<Postgres>, String)> {
    if let Some(url) = context.config.get("database_url") {
        if args.data_dir.is_some() || args.port.is_some() {
            return Err(invalid(
                "--data-dir and --port are for the development PostgreSQL, but another database is configured; see: tasker config show --origin",
            ));
        }
        talk(format!("database {}", crate::config::without_password(url)));
        return Ok((None, url.to_owned()));
    }
    let data_dir = args.data_dir.clone().unwrap_or_else(|| context.config.data_dir());
    let mut options = tasker_postgres::Options::new(&data_dir);
    options.port = args.port;
    talk(format!("starting PostgreSQL in {}", data_dir.display()));
    let started = tokio::task::spawn_blocking(move || Postgres::start(&options)).await;
    let postgres = started
        .map_err(|error| invalid(format!("starting PostgreSQL: {error}")))?
        .map_err(|error| refused(&data_dir, error))?;
    talk(format!("PostgreSQL {} on port {}", postgres.version(), postgres.port()));
    let url = postgres.url().to_owned();
    Ok((Some(postgres), url))
}

fn refused(data_dir: &Path, error: tasker_postgres::Error) -> Failure {
    use tasker_postgres::ErrorKind as Kind;
    let kind = match error.kind() {
        Kind::InUse | Kind::PortInUse => ErrorKind::Conflict,
        Kind::InvalidOption => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    };
    let hint = match Postgres::running(data_dir) {
        Some(_) if error.kind() == Kind::InUse => {
            "; another `tasker dev` runs here, its database is shown by: tasker db url"
        }
        _ => "",
    };
    Error::new(kind, format!("{error}{hint}")).caused_by(error).into()
}

/// Starts the worker that tasker.toml names, or that of a Rust project.
fn start_worker(context: &Context, args: &DevArgs, url: &str) -> Outcome<Option<WorkerProcess>> {
    if args.no_worker {
        return Ok(None);
    }
    let project = &context.config.project;
    let command = match context.config.get("dev_worker") {
        Some(command) => command,
        None if project.join("Cargo.toml").is_file() => RUST_WORKER,
        None => {
            talk("no worker: set dev_worker in tasker.toml to the command that runs your handlers");
            return Ok(None);
        }
    };
    let schema = context.config.schema()?;
    let variables = [("DATABASE_URL", url), ("TASKER_SCHEMA", schema.as_str())];
    let worker = WorkerProcess::start(command, project, &variables)?;
    talk(format!("worker {}: {command}", worker.pid()));
    Ok(Some(worker))
}

/// Looks after everything until somebody asks for the end, or something ends by itself.
async fn supervise(
    args: &DevArgs,
    signals: &mut Signals,
    postgres: Option<&Postgres>,
    url: &str,
    engine: &Engine,
    mut worker: Option<&mut WorkerProcess>,
) -> Outcome<End> {
    let begun = {
        let mut conn = engine.acquire().await?;
        clock::now(&mut conn, engine.schema()).await?
    };
    let mut is_ready = false;
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = signals.next() => return Ok(End::Asked),
            status = ended(&mut worker) => {
                let status = status?;
                if !status.success() {
                    return Ok(End::Worker(status));
                }
                talk("the worker ended; the database stays");
                worker = None;
            }
            _ = look.tick() => {
                if postgres.is_some_and(|postgres| !postgres.is_running()) {
                    return Ok(End::Database);
                }
                if !is_ready && (worker.is_none() || has_worker_since(engine, begun).await) {
                    is_ready = true;
                    announce(args.ready_file.as_ref(), url)?;
                }
            }
        }
    }
}

async fn ended(worker: &mut Option<&mut WorkerProcess>) -> Outcome<std::process::ExitStatus> {
    match worker {
        Some(worker) => worker.ended().await,
        None => std::future::pending().await,
    }
}

/// Says whether a worker has registered since then. One that cannot be asked about now is asked about again.
async fn has_worker_since(engine: &Engine, begun: chrono::DateTime<chrono::Utc>) -> bool {
    engine.workers(false).await.is_ok_and(|workers| {
        workers.iter().any(|worker| worker.state == WorkerState::Live && worker.started_at >= begun)
    })
}

fn announce(ready_file: Option<&PathBuf>, url: &str) -> Outcome {
    talk("ready");
    let Some(file) = ready_file else {
        return Ok(());
    };
    // Renamed into place: whoever waits for the file finds it whole.
    let unfinished = file.with_extension("new");
    std::fs::write(&unfinished, url)
        .and_then(|()| std::fs::rename(&unfinished, file))
        .map_err(|error| file_error("cannot write", file, error))
}

async fn stop(postgres: Postgres) -> Outcome {
    let stopped = tokio::task::spawn_blocking(move || postgres.stop()).await;
    stopped
        .map_err(|error| invalid(format!("stopping PostgreSQL: {error}")))?
        .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()).caused_by(error).into())
}

/// The signals that ask for the end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Outcome<Self> {
        let listen = |kind| signal(kind).map_err(|error| invalid(format!("cannot listen for signals: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
