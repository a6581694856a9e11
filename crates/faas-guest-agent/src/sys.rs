//! The few calls that need `unsafe`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

/// fork(2): the child's PID, or `None` in the child.
///
/// # Safety
/// The process must have one thread.
pub(crate) unsafe fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: as the caller guarantees.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Gives every signal its default disposition and blocks none, except that SIGPIPE stays ignored: writing to a pipe
/// that nobody reads is an error here and not the end.
pub(crate) fn reset_signals() {
    // SAFETY: no handler is installed by this program; those of the Rust runtime only word a crash.
    unsafe {
        for signal in 1..=MAX_SIGNAL {
            // SIGKILL and SIGSTOP are refused, and need no reset.
            // The raw call: libc refuses 32 and 33, which it keeps for itself and which posix_spawn(3) leaves ignored
            // in what it starts, the launcher too.
            let action = [if signal == libc::SIGPIPE { libc::SIG_IGN } else { libc::SIG_DFL }, 0, 0, 0];
            libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), 0, size_of::<u64>());
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// The highest signal number (signal(7), `SIGRTMAX`).
const MAX_SIGNAL: i32 = 64;

/// Sends a signal, real-time ones too. A number that is none, or a process that is gone: nothing is done.
pub(crate) fn send_signal(pid: Pid, signal: i32) {
    if (1..=MAX_SIGNAL).contains(&signal) {
        // SAFETY: plain integers.
        unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) };
    }
}

/// Sends a signal to the process group that `leader` began. Whether it is a signal; a group that is gone is no matter.
pub(crate) fn signal_group(leader: Pid, signal: i32) -> bool {
    let is_one = (1..=MAX_SIGNAL).contains(&signal);
    if is_one {
        // SAFETY: plain integers.
        unsafe { libc::kill(-leader.as_raw_nonzero().get(), signal) };
    }
    is_one
}

/// A random number, not 0 (getrandom(2)).
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is as long as is said. So little is never given in part.
    match unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) } {
        8 => Ok(u64::from_ne_bytes(bytes).max(1)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends the process at once.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: callers own no descriptor above that they use again.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes descriptor `to` a copy of `from`.
pub(crate) fn dup_to(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: plain integers; what `to` was is nobody's: this happens before anything is opened.
    if unsafe { libc::dup2(from, to) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts `/dev/null` in the place of standard input, output and error.
pub(crate) fn null_stdio() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    (0..=2).try_for_each(|target| dup_to(null.as_raw_fd(), target))
}

/// Takes over a descriptor by number, if it is open, and lets no program inherit it.
pub(crate) fn take_fd(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: asks for the flags and fails when it is not open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return None;
    }
    // SAFETY: it is open, and it was given to this program to own.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Sleeps. For a process that has nothing else to do.
pub(crate) fn sleep_ms(ms: i64) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: ms * 1_000_000 };
    // SAFETY: `time` lives until the call returns; what is left of an interrupted sleep is not asked for.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}

/// The PID of a Unix socket's peer as this PID namespace sees it: 0 for a process outside (unix(7), `SO_PEERCRED`).
pub(crate) fn peer_pid(socket: impl AsFd) -> io::Result<i32> {
    let mut cred = libc::ucred { pid: -1, uid: 0, gid: 0 };
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: the buffer is a whole ucred and `len` its size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut cred).cast(),
            &raw mut len,
        )
    };
    if result == 0 { Ok(cred.pid) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor that is readable when a child has ended: a signalfd for SIGCHLD, which is blocked for that.
pub(crate) fn child_events() -> io::Result<OwnedFd> {
    // SAFETY: the set is made before it is read; the descriptor is new.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Gives free memory of the heap back to the kernel.
pub(crate) fn trim_heap() {
    // SAFETY: releases only what is free.
    unsafe { libc::malloc_trim(0) };
}

/// Text as C has it; a NUL within is an error.
pub(crate) fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "it holds a NUL byte"))
}
