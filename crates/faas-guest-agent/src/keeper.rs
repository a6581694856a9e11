//! The root of the process tree that a checkpoint holds: in a session of its own, subreaper for all below, so that a
//! daemon stays in the tree. It starts the agent, and starts it again when it dies.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions};

use crate::{agent, sys};

/// The gateway's first connection, made together with the sandbox. May be absent.
pub(crate) const FIRST_CONNECTION: RawFd = 3;

/// An agent that lived no longer than this could not begin: the next one is not started at once.
const SHORT_LIFE: Duration = Duration::from_millis(100);

/// The wait before another attempt, in milliseconds.
const RETRY_MS: i64 = 20;

pub(crate) fn run() -> ! {
    let prepared = rustix::process::setsid()
        .and_then(|_| rustix::process::set_child_subreaper(Some(rustix::process::getpid())));
    if prepared.is_err() {
        sys::exit(1);
    }
    let mut first = sys::take_fd(FIRST_CONNECTION);
    loop {
        let started = Instant::now();
        // SAFETY: the process has one thread.
        match unsafe { sys::fork() } {
            Ok(Some(agent)) => {
                // A second agent listens; only the first has a connection from the start.
                first = None;
                reap_until(agent);
            }
            Ok(None) => agent::run(first),
            // The sandbox is at its limit of processes.
            Err(_) => {}
        }
        if started.elapsed() < SHORT_LIFE {
            sys::sleep_ms(RETRY_MS);
            // What has ended counts against the limit until it is reaped.
            while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        }
    }
}

fn reap_until(agent: Pid) {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid == agent => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
