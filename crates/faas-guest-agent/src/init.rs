//! PID 1 of the sandbox: starts the keeper and reaps what falls to it. When the keeper ends, the sandbox does.

use std::process::ExitCode;

use rustix::process::WaitOptions;

use crate::keeper::{self, Link};
use crate::{hosts, sys};

pub(crate) fn run(link: Link) -> ExitCode {
    // The launcher ignores some signals, and what is ignored stays so through exec: programs must not inherit it.
    sys::reset_signals();
    if link == Link::Stdio && keeper::move_stdio().is_err() {
        return ExitCode::FAILURE;
    }
    // A container's standard output and error are pipes to its engine, which are no program's business. Where there is
    // no /dev/null they stay.
    if sys::null_stdio().is_err() && link == Link::Stdio {
        return ExitCode::FAILURE;
    }
    hosts::fill();
    // SAFETY: the process has one thread.
    let keeper = match unsafe { sys::fork() } {
        Ok(Some(pid)) => pid,
        Ok(None) => keeper::run(link),
        Err(_) => return ExitCode::FAILURE,
    };
    if sys::close_from(3).is_err() {
        return ExitCode::FAILURE;
    }
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid == keeper => return ExitCode::FAILURE,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return ExitCode::FAILURE,
        }
    }
}
