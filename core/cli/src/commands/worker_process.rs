//! The application's worker as a child of `tasker dev`: it ends when its parent does, for whatever reason.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tasker_model::{Error, ErrorKind};
use tokio::process::{Child, Command};

use crate::failure::{Outcome, invalid};

/// How long a worker may take to finish what it runs: a worker's drain of 25 seconds, and a little.
const DRAIN: Duration = Duration::from_secs(30);

/// A running worker with all processes that it started.
#[derive(Debug)]
pub(super) struct WorkerProcess {
    child: Child,
    group: libc::pid_t,
    guard: Option<Guard>,
}

/// A shell that kills the worker's whole group when this process is gone: the kernel's own tie holds the first process of it only.
#[derive(Debug)]
struct Guard {
    process: std::process::Child,
    pipe: std::process::ChildStdin,
}

impl WorkerProcess {
    /// Starts a command, written as in a shell but without its expansions. What it prints goes to stderr.
    ///
    /// Must be called on the main thread: the kernel ties the child to the thread that starts it.
    pub(super) fn start(command: &str, directory: &Path, variables: &[(&str, &str)]) -> Outcome<Self> {
        let words = split_words(command)
            .filter(|words| !words.is_empty())
            .ok_or_else(|| invalid(format!("`dev_worker` is no command: {command}")))?;
        let stderr = std::io::stderr().as_fd().try_clone_to_owned().map_err(|error| cannot_start(command, error))?;
        let mut start = Command::new(&words[0]);
        start
            .args(&words[1..])
            .current_dir(directory)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::from(stderr))
            // A group of its own: Ctrl-C reaches us alone, and we can reach all that it starts.
            .process_group(0)
            .kill_on_drop(true);
        die_with_parent(&mut start);
        let child = start.spawn().map_err(|error| cannot_start(command, error))?;
        let group = child
            .id()
            .and_then(|id| libc::pid_t::try_from(id).ok())
            .ok_or_else(|| invalid(format!("the worker `{command}` ended at once")))?;
        let guard = Guard::start(group).map_err(|error| cannot_start(command, error))?;
        Ok(Self { child, group, guard: Some(guard) })
    }

    /// Returns the number of its first process.
    pub(super) fn pid(&self) -> i32 {
        self.group
    }

    /// Waits for its end. Cancel safe.
    pub(super) async fn ended(&mut self) -> Outcome<ExitStatus> {
        self.child.wait().await.map_err(|error| invalid(format!("cannot wait for the worker: {error}")))
    }

    /// Asks it to finish what it runs and to end; kills it after its time, or at once when `hurry` completes.
    pub(super) async fn stop(&mut self, hurry: impl Future<Output = ()>) {
        self.signal(libc::SIGTERM);
        tokio::select! {
            _ = self.child.wait() => {}
            () = tokio::time::sleep(DRAIN) => {}
            () = hurry => {}
        }
        // What is left of the group, if anything.
        self.signal(libc::SIGKILL);
        // Nothing is left to be done if it cannot be reaped.
        let _ = self.child.wait().await;
    }

    #[expect(unsafe_code, reason = "std offers no signal to a group of processes")]
    fn signal(&self, signal: i32) {
        // SAFETY: kill touches no memory of this process. The group is that of our own child.
        unsafe { libc::kill(-self.group, signal) };
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // Also when the first process has ended by itself: what it started goes with it.
        if let Some(guard) = self.guard.take() {
            self.signal(libc::SIGKILL);
            guard.dismiss();
        }
    }
}

impl Guard {
    fn start(group: libc::pid_t) -> std::io::Result<Self> {
        use std::os::unix::process::CommandExt;

        let mut process = std::process::Command::new("/bin/sh")
            .args(["-c", "read done || kill -9 -\"$0\" 2>/dev/null", &group.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        let pipe = process.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok(Self { process, pipe })
    }

    /// Lets it go without killing anything.
    fn dismiss(mut self) {
        use std::io::Write;

        // If it is gone already there is nobody to dismiss.
        let _ = self.pipe.write_all(b"done\n");
        let _ = self.process.wait();
    }
}

fn cannot_start(command: &str, error: std::io::Error) -> crate::failure::Failure {
    let message = format!("cannot start the worker `{command}`: {error}; set dev_worker in tasker.toml");
    Error::new(ErrorKind::Invalid, message).caused_by(error).into()
}

/// Makes the kernel kill the child when the thread that starts it ends, `kill -9` included.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "pre_exec and prctl")]
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let hook = move || {
        // SAFETY: prctl with these arguments touches no memory.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        // The parent may have died before the request was made.
        if std::os::unix::process::parent_id() != parent {
            return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: the hook makes two system calls and allocates nothing, which is all that is allowed between fork and exec.
    unsafe { command.pre_exec(hook) };
}

/// Does nothing: only Linux can tie a child to its parent.
#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}

/// Splits a command at spaces, outside quotes; none where a quote is not closed.
fn split_words(command: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in command.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_a_shell_would() {
        let words = |command: &str| split_words(command).map(|words| words.join("|"));
        assert_eq!(words("cargo run  --release -- work").as_deref(), Some("cargo|run|--release|--|work"));
        assert_eq!(words(r#"sh -c "sleep 1; x" 'a b' """#).as_deref(), Some("sh|-c|sleep 1; x|a b|"));
        assert_eq!(words("sh -c \"x"), None);
        assert_eq!(words("  ").as_deref(), Some(""));
    }
}
