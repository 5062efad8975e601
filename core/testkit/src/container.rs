//! A PostgreSQL in a container, where Docker answers.

use std::io;

use testcontainers_modules::postgres::Postgres;
use testcontainers_modules::testcontainers::runners::AsyncRunner;
use testcontainers_modules::testcontainers::{ContainerAsync, ImageExt, TestcontainersError};
use tokio::runtime::Runtime;

/// The module's own default is years old.
const TAG: &str = "18-alpine";

/// A PostgreSQL in a container. Dropping it removes the container.
#[derive(Debug)]
pub struct Container {
    runtime: Runtime,
    /// Present until the drop.
    container: Option<ContainerAsync<Postgres>>,
    url: String,
}

impl Container {
    /// Starts one and blocks until it is ready; none where no Docker answers. Fails where one does and the container does not start.
    pub fn start() -> io::Result<Option<Self>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let started = runtime.block_on(async {
            let container = Postgres::default().with_tag(TAG).start().await?;
            let (host, port) = (container.get_host().await?, container.get_host_port_ipv4(5432).await?);
            Ok((format!("postgres://postgres:postgres@{host}:{port}/postgres"), container))
        });
        match started {
            Ok((url, container)) => Ok(Some(Self { runtime, container: Some(container), url })),
            Err(TestcontainersError::Client(_)) => Ok(None),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Returns the URL of the server.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(container) = self.container.take() {
            // One that could not be removed is seen in `docker ps`; there is nobody to tell.
            let _ = self.runtime.block_on(container.rm());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_docker_there_is_none_and_with_it_a_server() {
        if let Some(container) = Container::start().unwrap() {
            assert!(container.url().starts_with("postgres://postgres:"));
        }
    }
}
