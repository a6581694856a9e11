//! The root of the process tree that a checkpoint holds: in a session of its own, subreaper for all below, so that a
//! daemon stays in the tree. It starts the agent, and starts it again when it dies.

use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions};

use crate::{agent, sys};

/// How the gateway reaches the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// By the agent's socket; the first connection may have been made together with the sandbox.
    Socket,
    /// By this program's own standard input and output alone: the sandbox ends with that one connection.
    Stdio,
}

/// The gateway's first connection, made together with the sandbox: a socket, or the end to read from. May be absent.
const FIRST_INPUT: RawFd = 3;

/// The end to write to, where it is not the same.
const FIRST_OUTPUT: RawFd = 4;

/// Takes standard input and output out of the way of programs, to where [`run`] expects the first connection.
pub(crate) fn move_stdio() -> io::Result<()> {
    sys::dup_to(0, FIRST_INPUT)?;
    sys::dup_to(1, FIRST_OUTPUT)
}

/// An agent that lived no longer than this could not begin: the next one is not started at once.
const SHORT_LIFE: Duration = Duration::from_millis(100);

/// The wait before another attempt, in milliseconds.
const RETRY_MS: i64 = 20;

pub(crate) fn run(link: Link) -> ! {
    let prepared = rustix::process::setsid()
        .and_then(|_| rustix::process::set_child_subreaper(Some(rustix::process::getpid())));
    if prepared.is_err() {
        sys::exit(1);
    }
    let output = match link {
        Link::Socket => None,
        Link::Stdio => sys::take_fd(FIRST_OUTPUT),
    };
    let mut first = sys::take_fd(FIRST_INPUT).map(|input| (input, output));
    loop {
        let started = Instant::now();
        // SAFETY: the process has one thread.
        match unsafe { sys::fork() } {
            Ok(Some(agent)) => {
                // A second agent listens; only the first has a connection from the start.
                first = None;
                reap_until(agent);
                if link == Link::Stdio {
                    // Nobody could reach another agent.
                    sys::exit(1);
                }
            }
            Ok(None) => agent::run(first, link),
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
