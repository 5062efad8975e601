//! The only place that reads the environment.
#![expect(clippy::disallowed_methods, reason = "configuration is read here and nowhere else")]

use std::net::SocketAddr;

/// Returns where to listen: `LISTEN`, or port 3000 of this machine.
pub fn address() -> anyhow::Result<SocketAddr> {
    match std::env::var("LISTEN") {
        Ok(text) => text.parse().map_err(|_| anyhow::anyhow!("LISTEN is `{text}`; write it like 127.0.0.1:3000")),
        Err(_) => Ok(SocketAddr::from(([127, 0, 0, 1], 3000))),
    }
}
