//! One database of a benchmark.

use anyhow::Result;
use sqlx::{Connection, PgConnection};
use tasker::{Builder, Tasker};

/// A database with the engine installed in it.
#[derive(Debug)]
pub(crate) struct Database {
    name: String,
    url: String,
}

impl Database {
    pub(crate) fn new(name: String, url: String) -> Self {
        Self { name, url }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Starts a Tasker in it, with the settings of an application that says nothing.
    pub(crate) fn tasker(&self) -> Builder {
        Tasker::builder().database_url(&self.url)
    }

    /// Opens a connection beside those of Tasker.
    pub(crate) async fn connect(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.url).await?)
    }
}
