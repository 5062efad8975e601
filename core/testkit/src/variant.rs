//! The ways in which the tests' server can be met: by TLS, by a socket, by an ordinary role, through PgBouncer.

use std::fs;
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// The ordinary role: no superuser; it makes databases, which it then owns.
const ROLE: &str = "tasker_plain";
const READY: Duration = Duration::from_secs(20);

/// How the server is met; all of it may be combined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four ways, each alone or with the others")]
pub struct Variant {
    /// The server has a certificate and the URL says `sslmode=require`.
    pub tls: bool,
    /// The URL names a unix socket.
    pub socket: bool,
    /// The URL's role is no superuser.
    pub unprivileged: bool,
    /// Engines go through a PgBouncer in transaction mode (the program `pgbouncer` must be there); what the tests look at does not.
    pub pgbouncer: bool,
}

impl Variant {
    /// Takes one word of a command line; false where it is none of `--tls --socket --unprivileged --pgbouncer`.
    pub fn take(&mut self, word: &str) -> bool {
        match word {
            "--tls" => self.tls = true,
            "--socket" => self.socket = true,
            "--unprivileged" => self.unprivileged = true,
            "--pgbouncer" => self.pgbouncer = true,
            _ => return false,
        }
        true
    }
}

/// What a variant adds to a running server.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) url: String,
    pub(crate) pgbouncer: Option<PgBouncer>,
}

/// Surrounds the server at `url`, whose files are below `directory`; the server's account owns `data` there.
pub(crate) fn surround(
    url: &str,
    directory: &Path,
    socket: Option<&Path>,
    variant: Variant,
) -> io::Result<Surroundings> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut url = url.to_owned();
    let mut parameters = Vec::new();
    if variant.tls {
        let certificate = certify(directory)?;
        let file = |name: &str| certificate.join(name).display().to_string();
        let sql = format!(
            "alter system set ssl_cert_file = '{}'; alter system set ssl_key_file = '{}'; alter system set ssl = on; select pg_reload_conf()",
            file("server.crt"),
            file("server.key")
        );
        for one in sql.split("; ") {
            runtime.block_on(run(&url, one)).map_err(io::Error::other)?;
        }
        let begun = Instant::now();
        let secure = format!("{url}?sslmode=require");
        while let Err(error) = runtime.block_on(run(&secure, "select")) {
            if begun.elapsed() > READY {
                return Err(io::Error::other(error));
            }
            sleep(Duration::from_millis(20));
        }
        parameters.push("sslmode=require".to_owned());
    }
    if variant.unprivileged {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| io::Error::other("the URL has no scheme"))?;
        let (_, place) = rest.split_once('@').ok_or_else(|| io::Error::other("the URL has no role"))?;
        let plain = format!("{scheme}://{ROLE}:plain@{place}");
        let make = format!("create role {ROLE} login createdb password 'plain'");
        runtime.block_on(run(&url, &make)).map_err(io::Error::other)?;
        url = plain;
    }
    let pgbouncer = variant.pgbouncer.then(|| PgBouncer::start(&url, directory)).transpose()?;
    if let Some(socket) = socket {
        parameters.push(format!("host={}", socket.display()));
    }
    if !parameters.is_empty() {
        url = format!("{url}?{}", parameters.join("&"));
    }
    Ok(Surroundings { url, pgbouncer })
}

async fn run(url: &str, sql: &str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await?;
    connection.close().await
}

/// Makes a directory that the server's account owns, and a certificate of its own in it.
fn certify(directory: &Path) -> io::Result<PathBuf> {
    let place = directory.join("tls");
    fs::create_dir(&place)?;
    let output = Command::new("openssl")
        .args([
            "req",
            "-new",
            "-x509",
            "-days",
            "2",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-out",
            "server.crt",
            "-keyout",
        ])
        .arg("server.key")
        .current_dir(&place)
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("openssl: {}", String::from_utf8_lossy(&output.stderr))));
    }
    let owner = fs::metadata(directory.join("data"))?;
    for path in [place.clone(), place.join("server.crt"), place.join("server.key")] {
        chown(&path, Some(owner.uid()), Some(owner.gid()))?;
    }
    fs::set_permissions(place.join("server.key"), fs::Permissions::from_mode(0o600))?;
    Ok(place)
}

/// A PgBouncer in transaction mode, which ends with this value. Its server connections take turns, so that whoever relies on one is found
/// out.
#[derive(Debug)]
pub(crate) struct PgBouncer {
    child: Child,
    authority: String,
}

impl PgBouncer {
    fn start(url: &str, directory: &Path) -> io::Result<Self> {
        let owner = fs::metadata(directory.join("data"))?;
        let place = directory.join("pgbouncer");
        fs::create_dir(&place)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let wrong = || io::Error::other("the URL has not the form of the supervisor");
        let (_, rest) = url.split_once("://").ok_or_else(wrong)?;
        let (role, place_of_server) = rest.split_once('@').ok_or_else(wrong)?;
        let (user, password) = role.split_once(':').ok_or_else(wrong)?;
        let (host, port_of_server) =
            place_of_server.split_once('/').and_then(|(authority, _)| authority.split_once(':')).ok_or_else(wrong)?;
        let file = place.join("pgbouncer.ini");
        let mut written = fs::File::create(&file)?;
        write!(
            written,
            "[databases]\n* = host={host} port={port_of_server} user={user} password={password}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\nserver_round_robin = 1\ndefault_pool_size = 8\nmax_client_conn = 4000\n\
             server_idle_timeout = 3\nlogfile = {}\n",
            place.join("log").display()
        )?;
        for path in [&place, &file] {
            chown(path, Some(owner.uid()), Some(owner.gid()))?;
        }
        let mut command = Command::new("pgbouncer");
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if owner.uid() != fs::metadata("/proc/self").map_or(owner.uid(), |me| me.uid()) {
            // It refuses to run as root.
            command.uid(owner.uid()).gid(owner.gid());
        }
        let authority = format!("{user}:{password}@127.0.0.1:{port}");
        let mut started = Self { child: command.spawn()?, authority };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begun.elapsed() > READY || started.child.try_wait()?.is_some() {
                let log = fs::read_to_string(place.join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("pgbouncer does not start: {log}")));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(started)
    }

    /// Returns `user:password@host:port`.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // It holds nothing that matters.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
