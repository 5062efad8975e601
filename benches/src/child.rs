//! Workers as processes of their own: this program, started again.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tasker::Tasker;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::database::Database;
use crate::groups::rescue;
use crate::load::GRACE;
use crate::workflows::{self, Runs};

/// The argument that makes this program a worker.
pub(crate) const COMMAND: &str = "worker";
const READY: &str = "ready";

/// What a worker process runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// The seven steps that do nothing.
    Noop,
    /// The steps that leave traces, to be killed.
    Rescue,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Rescue => "rescue",
        }
    }
}

/// A running worker process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: tokio::process::Child,
    pid: u32,
}

impl Child {
    /// Starts one and waits until it works. Nothing for concurrency or lease leaves them as they are by default.
    pub(crate) async fn start(
        database: &Database,
        work: Work,
        concurrency: Option<usize>,
        lease: Option<Duration>,
    ) -> Result<Self> {
        let number = |number: Option<u128>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let mut process = Command::new(std::env::current_exe()?)
            .args([COMMAND, work.name(), database.url()])
            .args([number(concurrency.map(|slots| slots as u128)), number(lease.map(|lease| lease.as_millis()))])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting a worker process")?;
        let pid = process.id().context("the worker process ended at once")?;
        let output = process.stdout.take().context("the worker process has no output")?;
        let line = BufReader::new(output).lines().next_line().await?;
        ensure!(line.as_deref() == Some(READY), "the worker process said {line:?}");
        Ok(Self { process, pid })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.process.kill().await?)
    }

    /// Lets it end by itself.
    pub(crate) async fn stop(mut self) -> Result<()> {
        drop(self.process.stdin.take());
        let status = self.process.wait().await?;
        ensure!(status.success(), "the worker process ended with {status}");
        Ok(())
    }
}

/// Is a worker until standard input ends: that is also how it ends with the process that started it.
pub(crate) async fn run(arguments: &[String]) -> Result<()> {
    let [work, url, concurrency, lease_ms] = arguments else {
        bail!("`{COMMAND}` is how the benchmarks start their own workers");
    };
    let mut builder = Tasker::builder().database_url(url);
    if let Ok(slots) = concurrency.parse() {
        builder = builder.concurrency(slots);
    }
    if let Ok(lease) = lease_ms.parse() {
        builder = builder.lease(Duration::from_millis(lease));
    }
    let tasker = builder.connect().await?;
    let tasker = match work.as_str() {
        "noop" => tasker.workflow(workflows::dag7()).with_state(Runs::default()),
        "rescue" => {
            let pool = tasker.pool().clone();
            tasker.workflow(rescue::workflow()).with_state(pool)
        }
        other => bail!("there is no work `{other}`"),
    };
    let worker = tasker.start().await?;
    println!("{READY}");
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    worker.drain(GRACE).await;
    Ok(())
}
