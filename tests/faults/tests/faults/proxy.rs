//! A TCP proxy between workers and PostgreSQL, which cuts connections and keeps bytes back at a chosen moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::seq::IteratorRandom as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::world::PATIENCE;

/// What is kept back once the bytes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The bytes themselves: the server never sees them.
    Request,
    /// The answer to them: the server acts, the client never hears of it.
    Answer,
}

/// Fires once, on the first connection that sends `needle`, having sent `before` at any time until then.
#[derive(Debug, Clone)]
struct Trap {
    before: &'static str,
    needle: &'static str,
    keep: Keep,
}

/// A running proxy; dropping it ends it and its connections.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    trap: Mutex<Option<Trap>>,
    has_fired: watch::Sender<bool>,
    /// Connections with a smaller number pass nothing any more.
    silent_before: watch::Sender<u64>,
    connections: Mutex<HashMap<u64, CancellationToken>>,
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, CancellationToken>> {
        self.connections.lock().unwrap()
    }

    /// Says what to keep back, if this is what the trap waits for.
    fn spring(&self, sent: &[u8], latest: &[u8]) -> Option<Keep> {
        let mut trap = self.trap.lock().unwrap();
        let fires = trap.as_ref().is_some_and(|t| contains(sent, t.before) && contains(latest, t.needle));
        if !fires {
            return None;
        }
        self.has_fired.send_replace(true);
        trap.take().map(|trap| trap.keep)
    }
}

fn contains(bytes: &[u8], needle: &str) -> bool {
    needle.is_empty() || bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

impl Proxy {
    /// Starts a proxy to an address.
    pub(crate) async fn start(server: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            trap: Mutex::default(),
            has_fired: watch::Sender::new(false),
            silent_before: watch::Sender::new(0),
            connections: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&shared))).abort_handle();
        Self { port, shared, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Keeps back what [`Keep`] says, on the connection that sends `needle` after `before`.
    pub(crate) fn trap(&self, before: &'static str, needle: &'static str, keep: Keep) {
        self.shared.has_fired.send_replace(false);
        *self.shared.trap.lock().unwrap() = Some(Trap { before, needle, keep });
    }

    /// Waits until the trap has closed.
    pub(crate) async fn has_fired(&self) {
        let mut fired = self.shared.has_fired.subscribe();
        let waited = timeout(PATIENCE, fired.wait_for(|fired| *fired)).await;
        assert!(waited.is_ok(), "nobody stepped into the trap");
    }

    /// Cuts every connection; what was kept back is gone.
    pub(crate) fn cut_all(&self) {
        for (_, token) in self.shared.connections().drain() {
            token.cancel();
        }
    }

    /// Lets every connection that is open fall silent, without closing it, as when a firewall forgets it; new ones work.
    pub(crate) fn silence_all(&self) {
        let next = self.shared.connections().keys().max().map_or(0, |last| last + 1);
        self.shared.silent_before.send_replace(next);
    }

    /// Cuts one connection.
    pub(crate) fn cut_one(&self) {
        let mut connections = self.shared.connections();
        let chosen = connections.keys().copied().choose(&mut rand::rng());
        if let Some(token) = chosen.and_then(|id| connections.remove(&id)) {
            token.cancel();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut_all();
    }
}

async fn accept(listener: TcpListener, server: String, shared: Arc<Shared>) {
    for id in 0.. {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        let Ok(server) = TcpStream::connect(&server).await else {
            // The client finds its connection closed, as from a server that is down.
            continue;
        };
        // Batches as they come: a delay would change what is tested.
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let token = CancellationToken::new();
        shared.connections().insert(id, token.clone());
        tokio::spawn(serve(client, server, token, Arc::clone(&shared), id));
    }
}

async fn serve(client: TcpStream, server: TcpStream, cut: CancellationToken, shared: Arc<Shared>, id: u64) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let keeps_answers = watch::Sender::new(false);
    let mut silent_before = shared.silent_before.subscribe();
    let silenced = async { drop(silent_before.wait_for(|before| id < *before).await) };
    // Whichever side ends first ends the other: a connection is one thing.
    tokio::select! {
        () = requests(&mut from_client, &mut to_server, &shared, &keeps_answers) => {}
        () = answers(&mut from_server, &mut to_client, keeps_answers.subscribe()) => {}
        // The sockets stay open.
        () = silenced => cut.cancelled().await,
        () = cut.cancelled() => {}
    }
    shared.connections().remove(&id);
}

async fn requests(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    shared: &Shared,
    keeps_answers: &watch::Sender<bool>,
) {
    let mut sent = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(size @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let latest = &buffer[..size];
        sent.extend_from_slice(latest);
        match shared.spring(&sent, latest) {
            // Until the connection is cut.
            Some(Keep::Request) => std::future::pending().await,
            Some(Keep::Answer) => {
                keeps_answers.send_replace(true);
            }
            None => {}
        }
        if to.write_all(latest).await.is_err() {
            return;
        }
    }
}

async fn answers(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, keeps: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(size @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if *keeps.borrow() {
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
}
