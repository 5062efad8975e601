//! One child process with a thread of its own.
//!
//! The thread spawns the child, waits for its end and reaps it. It has to live as long as the child:
//! the kernel ties the child to the thread that spawned it, not to the process (`os::end_with_parent`).

use std::io;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use crate::os;

#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    exit: Arc<Exit>,
}

#[derive(Debug, Default)]
struct Exit {
    /// Set under the lock at the moment the child is reaped: while it is false the number is the child's.
    reaped: Mutex<bool>,
    ended: Condvar,
}

impl Exit {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.reaped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    pub(crate) fn spawn(mut command: Command) -> io::Result<Self> {
        os::end_with_parent(&mut command);
        let exit = Arc::new(Exit::default());
        let (started, start) = mpsc::sync_channel(1);
        let owner = Arc::clone(&exit);
        thread::Builder::new().name("tasker-postgres".to_owned()).spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => {
                    // The receiver is waiting below; it cannot be gone.
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let _ = started.send(Ok(child.id()));
            os::await_exit(child.id());
            let mut reaped = owner.lock();
            // It fails only where SIGCHLD is ignored and the kernel has reaped the child itself.
            let _ = child.wait();
            *reaped = true;
            owner.ended.notify_all();
        })?;
        let pid = start.recv().map_err(io::Error::other)??;
        Ok(Self { pid, exit })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn has_ended(&self) -> bool {
        *self.exit.lock()
    }

    /// Sends a signal unless the child has ended; never to a process that took over its number.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        let reaped = self.exit.lock();
        if *reaped { Ok(()) } else { os::signal(self.pid, signal) }
    }

    /// Waits for the end of the child; false when it still runs after `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let waited = self.exit.ended.wait_timeout_while(self.exit.lock(), timeout, |reaped| !*reaped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
