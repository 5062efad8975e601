//! What the figures were taken on.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// The machine, its load, and the versions.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory_mb: u64,
    kernel: String,
    /// Of one minute, before the first benchmark: above a few tenths, the machine was shared.
    load_before: String,
    rustc: String,
    pub(crate) postgres: String,
    tasker: &'static str,
}

impl Machine {
    pub(crate) fn look(postgres: &str) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let rustc = Command::new("rustc").arg("--version").output();
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mb: memory.trim_end_matches(" kB").parse().map_or(0, |kib: u64| kib / 1024),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            rustc: rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default(),
            postgres: postgres.to_owned(),
            tasker: env!("CARGO_PKG_VERSION"),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} cores of {}, {} MB, Linux {}, load before {}; PostgreSQL {}, tasker {}, {}",
            self.cores,
            self.processor,
            self.memory_mb,
            self.kernel,
            self.load_before,
            self.postgres,
            self.tasker,
            self.rustc
        )
    }
}
