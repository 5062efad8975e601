//! What the groups share: the durable server, what was chosen, and the report that grows.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::config::Config;
use crate::database::Database;
use crate::machine::Machine;
use crate::report::Report;
use crate::server::{Kind, Server};

/// A run of the benchmarks.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) config: Config,
    pub(crate) server: Server,
    pub(crate) report: Report,
    /// Of all databases so far.
    deadlocks: i64,
}

impl Bench {
    /// Starts the server, and prints what it and the machine say of themselves.
    pub(crate) async fn start(config: Config) -> Result<Self> {
        let server = Server::start(Kind::Durable)?;
        let machine = Machine::look(server.version());
        let settings = server.settings().await?;
        println!("{machine}");
        for (name, value) in &settings {
            println!("  {name} = {value}");
        }
        if config.is_quick {
            println!("BENCH_QUICK: the sizes are too small; these figures are no results");
        }
        let report = Report::new(machine, settings, config.is_quick);
        Ok(Self { config, server, report, deadlocks: 0 })
    }

    /// Deletes a database of the durable server and counts its deadlocks.
    pub(crate) async fn drop(&mut self, database: Database) -> Result<()> {
        self.deadlocks += self.server.drop(database).await?;
        Ok(())
    }

    /// The same for a database of another server.
    pub(crate) async fn drop_of(&mut self, server: &Server, database: Database) -> Result<()> {
        self.deadlocks += server.drop(database).await?;
        Ok(())
    }

    /// Prints the table and writes the file; fails where a benchmark did.
    pub(crate) fn finish(mut self, failed: &[&str]) -> Result<()> {
        self.report.figure("deadlocks", self.deadlocks as f64);
        println!("\n{}", self.report);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("out/latest.json");
        self.report.write(&file)?;
        println!("written to {}", file.display());
        ensure!(failed.is_empty(), "these failed, and have no figures: {}", failed.join(", "));
        Ok(())
    }
}
