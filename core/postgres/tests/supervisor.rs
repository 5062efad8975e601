//! The supervisor against real server binaries.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tasker_postgres::{ErrorKind, Options, Postgres};
use uuid::Uuid;

/// A directory that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("tasker-supervisor-{}", Uuid::now_v7())))
    }

    fn options(&self) -> Options {
        Options { durable: false, ..Options::new(&self.0) }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs one statement and returns the first column of its only row.
fn ask(url: &str, sql: &'static str) -> String {
    run(async {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let answer: String = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        answer
    })
}

fn execute(url: &str, sql: &'static str) {
    run(async {
        let mut connection = PgConnection::connect(url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn has_ended(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // A zombie has ended; nobody may be left to reap it.
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
        Err(_) => true,
    }
}

fn wait_for(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if is_so() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

#[test]
fn a_restart_keeps_the_data_and_the_url() {
    let directory = Directory::new();
    let options = Options { database: "shop".to_owned(), ..directory.options() };
    let postgres = Postgres::start(&options).unwrap();
    let (url, pid) = (postgres.url().to_owned(), postgres.pid());
    assert_eq!(ask(&url, "select current_database()::text"), "shop");
    assert_eq!(ask(&url, "select current_setting('fsync')"), "off");
    execute(&url, "create table kept (word text); insert into kept values ('still here')");
    assert_eq!(Postgres::running(&directory.0).as_deref(), Some(url.as_str()));
    postgres.stop().unwrap();
    assert!(has_ended(pid));
    assert_eq!(Postgres::running(&directory.0), None);

    let durable = Options { durable: true, ..options };
    let postgres = Postgres::start(&durable).unwrap();
    assert_eq!(postgres.url(), url, "the port of the last start is free, so it is taken again");
    assert_eq!(ask(&url, "select word from kept"), "still here");
    assert_eq!(ask(&url, "select current_setting('fsync')"), "on");
}

#[test]
fn a_server_is_found_through_a_symbolic_link() {
    let directory = Directory::new();
    let link = Directory::new();
    fs::create_dir_all(&directory.0).unwrap();
    std::os::unix::fs::symlink(&directory.0, &link.0).unwrap();
    let options = Options { durable: false, ..Options::new(link.0.join("pg")) };
    let postgres = Postgres::start(&options).unwrap();
    for path in [&directory.0, &link.0] {
        assert_eq!(Postgres::running(&path.join("pg")).as_deref(), Some(postgres.url()));
    }
    fs::remove_file(&link.0).unwrap();
}

#[test]
fn settings_and_a_second_database_reach_the_server() {
    let directory = Directory::new();
    Postgres::start(&directory.options()).unwrap().stop().unwrap();
    let mut options = Options { database: "second".to_owned(), ..directory.options() };
    options.settings.push(("max_connections".to_owned(), "77".to_owned()));
    let postgres = Postgres::start(&options).unwrap();
    assert_eq!(ask(postgres.url(), "select current_database()::text"), "second");
    assert_eq!(ask(postgres.url(), "select current_setting('max_connections')"), "77");
}

#[test]
fn the_password_is_private_and_needed() {
    let directory = Directory::new();
    let postgres = Postgres::start(&directory.options()).unwrap();
    for file in ["password", "instance.json"] {
        let mode = fs::metadata(postgres.data_dir().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let (_, address) = postgres.url().split_once('@').unwrap();
    let without = format!("postgres://tasker:wrong@{address}");
    assert!(run(PgConnection::connect(&without)).is_err());
}

#[test]
fn a_second_start_on_the_same_directory_says_who_is_there() {
    let directory = Directory::new();
    let _first = Postgres::start(&directory.options()).unwrap();
    let error = Postgres::start(&directory.options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
}

#[test]
fn a_taken_port_is_refused_when_asked_for_and_avoided_otherwise() {
    let directory = Directory::new();
    let postgres = Postgres::start(&directory.options()).unwrap();
    let port = postgres.port();
    postgres.stop().unwrap();
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();

    let error = Postgres::start(&Options { port: Some(port), ..directory.options() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PortInUse);
    let postgres = Postgres::start(&directory.options()).unwrap();
    assert_ne!(postgres.port(), port);
}

#[test]
fn a_crash_of_the_server_is_recovered_from() {
    let directory = Directory::new();
    let options = Options { durable: true, ..directory.options() };
    let postgres = Postgres::start(&options).unwrap();
    execute(postgres.url(), "create table kept (word text); insert into kept values ('recovered')");
    kill(postgres.pid());
    assert!(wait_for(Duration::from_secs(3), || !postgres.is_running()));
    drop(postgres);
    assert!(Postgres::running(&directory.0).is_none());

    let postgres = Postgres::start(&options).unwrap();
    assert_eq!(ask(postgres.url(), "select word from kept"), "recovered");
}

#[test]
fn a_pid_file_that_names_another_living_process_does_not_block() {
    let directory = Directory::new();
    let postgres = Postgres::start(&directory.options()).unwrap();
    let pid_file = postgres.data_dir().join("data/postmaster.pid");
    let content = fs::read_to_string(&pid_file).unwrap();
    postgres.stop().unwrap();
    // As after a reboot: the file is left, and its number now belongs to somebody else. PostgreSQL
    // itself would refuse for a process of its own account.
    let elsewhere = Directory::new();
    let other = Postgres::start(&elsewhere.options()).unwrap();
    let (_, rest) = content.split_once('\n').unwrap();
    fs::write(&pid_file, format!("{}\n{rest}", other.pid())).unwrap();

    Postgres::start(&directory.options()).unwrap();
    assert!(other.is_running());
}

#[test]
fn an_initialisation_that_was_cut_off_is_done_again() {
    let directory = Directory::new();
    fs::create_dir_all(directory.0.join("data.partial/base")).unwrap();
    let postgres = Postgres::start(&directory.options()).unwrap();
    assert_eq!(ask(postgres.url(), "select 'up'"), "up");
}

#[test]
fn a_bad_setting_is_reported_with_the_words_of_the_server() {
    let directory = Directory::new();
    let mut options = directory.options();
    options.settings.push(("max_connections".to_owned(), "many".to_owned()));
    let error = Postgres::start(&options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Start);
    assert!(error.to_string().contains("invalid value for parameter \"max_connections\""), "{error}");
    let error = Postgres::start(&Options { database: "x\" y".to_owned(), ..directory.options() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOption);
}

#[test]
fn a_directory_that_the_servers_account_cannot_enter_is_replaced() {
    let parent = Directory::new();
    fs::create_dir_all(&parent.0).unwrap();
    fs::set_permissions(&parent.0, fs::Permissions::from_mode(0o700)).unwrap();
    let wanted = parent.0.join("project/.tasker/pg");
    let postgres = Postgres::start(&Options { durable: false, ..Options::new(&wanted) }).unwrap();

    assert_eq!(postgres.data_dir() != wanted, is_root(), "only root steps down, so only root has to move");
    assert_eq!(Postgres::running(&wanted).as_deref(), Some(postgres.url()));
    let used = postgres.data_dir().to_owned();
    postgres.stop().unwrap();
    fs::remove_dir_all(used).unwrap();
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Not a test of its own: the process that `killing_the_parent_ends_the_server` kills.
#[test]
#[ignore = "run by another test, which sets its working directory"]
fn hold_a_server_until_killed() {
    let directory = std::env::current_dir().unwrap();
    let postgres = Postgres::start(&Options { durable: false, ..Options::new(directory.join("pg")) }).unwrap();
    fs::write("ready.partial", postgres.pid().to_string()).unwrap();
    fs::rename("ready.partial", "ready").unwrap();
    thread::sleep(Duration::from_mins(2));
}

#[test]
#[cfg(target_os = "linux")]
fn killing_the_parent_ends_the_server() {
    let directory = Directory::new();
    fs::create_dir_all(&directory.0).unwrap();
    fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o755)).unwrap();
    let server = hold_and_kill(&directory.0);
    assert!(wait_for(Duration::from_secs(3), || has_ended(server)), "PostgreSQL {server} outlived its parent");

    // And at once again, without waiting for the server of the killed parent to end.
    let server = hold_and_kill(&directory.0);
    let options = Options { durable: false, ..Options::new(directory.0.join("pg")) };
    let postgres = Postgres::start(&options).unwrap();
    assert!(has_ended(server));
    assert_eq!(ask(postgres.url(), "select 'up'"), "up");
}

fn hold_and_kill(directory: &Path) -> u32 {
    let ready = directory.join("ready");
    let _ = fs::remove_file(&ready);
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hold_a_server_until_killed", "--ignored"])
        .current_dir(directory)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert!(wait_for(Duration::from_mins(1), || ready.exists()));
    let server = fs::read_to_string(&ready).unwrap().parse().unwrap();
    assert!(!has_ended(server));
    holder.kill().unwrap();
    holder.wait().unwrap();
    server
}
