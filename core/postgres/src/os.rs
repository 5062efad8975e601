//! The few system calls that the standard library does not offer, each behind a safe function.

use std::io;
use std::process::Command;

/// Asks PostgreSQL to roll back open transactions, write a checkpoint and end.
pub(crate) const FAST_SHUTDOWN: i32 = libc::SIGINT;
/// Asks PostgreSQL to end at once; the next start recovers from the log.
pub(crate) const IMMEDIATE_SHUTDOWN: i32 = libc::SIGQUIT;
pub(crate) const KILL: i32 = libc::SIGKILL;

#[expect(unsafe_code, reason = "std does not offer geteuid")]
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[expect(unsafe_code, reason = "std does not offer kill")]
pub(crate) fn signal(pid: u32, signal: i32) -> io::Result<()> {
    // Zero and negative numbers would address process groups.
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: kill touches no memory of this process.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns whether a process of that number exists; one of another account counts.
pub(crate) fn exists(pid: u32) -> bool {
    match signal(pid, 0) {
        Ok(()) => true,
        Err(error) => error.raw_os_error() == Some(libc::EPERM),
    }
}

/// Blocks until the child has ended and leaves it unreaped, so that its number cannot be reused yet.
#[expect(unsafe_code, reason = "std cannot wait without reaping")]
pub(crate) fn await_exit(pid: u32) {
    loop {
        // SAFETY: siginfo_t is plain data, for which all zeroes is a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is valid for writes and outlives the call.
        let result = unsafe { libc::waitid(libc::P_PID, pid, &raw mut info, libc::WEXITED | libc::WNOWAIT) };
        if result == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// Makes the child receive a fast shutdown request when the *thread* that spawns it ends, for
/// whatever reason, `kill -9` of the process included. Spawn from a thread that outlives the child.
///
/// The hook runs after the change of account: the kernel clears the request when credentials change.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "pre_exec and prctl")]
pub(crate) fn end_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;

    let parent = std::process::id();
    let hook = move || {
        // SAFETY: prctl with these arguments touches no memory.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, FAST_SHUTDOWN) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have died before the request was made.
        if std::os::unix::process::parent_id() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: the hook makes two system calls and allocates nothing, which is all that is allowed
    // between fork and exec.
    unsafe { command.pre_exec(hook) };
}

/// Does nothing: only Linux can tie a child to its parent. The next start ends an orphan.
#[cfg(not(target_os = "linux"))]
pub(crate) fn end_with_parent(_command: &mut Command) {}
