//! The root of the process tree that a checkpoint holds: in a session of its own, subreaper for all below, so that a
//! daemon stays in the tree. It starts the agent, and starts it again when it dies.

use std::os::fd::RawFd;

use rustix::process::{Pid, WaitOptions};

use crate::{agent, sys};

/// The gateway's first connection, made together with the sandbox. May be absent.
pub(crate) const FIRST_CONNECTION: RawFd = 3;

pub(crate) fn run() -> ! {
    let prepared =
        rustix::process::setsid().and(rustix::process::set_child_subreaper(Some(rustix::process::getpid())));
    if prepared.is_err() {
        sys::exit(1);
    }
    let mut first = sys::take_fd(FIRST_CONNECTION);
    loop {
        // SAFETY: the process has one thread.
        let agent = match unsafe { sys::fork() } {
            Ok(Some(pid)) => pid,
            Ok(None) => agent::run(first),
            Err(_) => {
                // The sandbox is at its limit of processes; there may be room in a moment.
                sys::sleep_ms(20);
                continue;
            }
        };
        // A second agent listens; only the first has a connection from the start.
        first = None;
        reap_until(agent);
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
