//! System calls that no library of ours has, each as one small function.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

/// Which side of a fork the caller is on.
pub(crate) enum Fork {
    Parent(Pid),
    Child,
}

fn pid_of(raw: libc::c_long) -> io::Result<Fork> {
    let raw = i32::try_from(raw).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(match Pid::from_raw(raw) {
        Some(pid) => Fork::Parent(pid),
        None => Fork::Child,
    })
}

/// fork(2).
///
/// # Safety
/// The calling process must be single-threaded: the child may then do whatever the parent might have.
pub(super) unsafe fn fork() -> io::Result<Fork> {
    // SAFETY: as the caller guarantees.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => pid_of(pid.into()),
    }
}

/// clone3(2) without a stack of its own: a fork into new namespaces. The parent gets a pidfd.
///
/// With `CLONE_PARENT` the child becomes a sibling, and the exit signal is the caller's own. With a `cgroup` of v2 it is
/// born there.
///
/// # Safety
/// As [`fork`].
pub(crate) unsafe fn clone3(
    flags: u64,
    exit_signal: i32,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<(Fork, Option<OwnedFd>)> {
    let mut pidfd: RawFd = -1;
    let mut args = libc::clone_args {
        flags: flags | libc::CLONE_PIDFD as u64 | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 },
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(exit_signal.unsigned_abs()),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs())),
    };
    // SAFETY: `args` is a whole clone_args whose pointers live until the call returns; no new stack is asked for, so
    // the child goes on with a copy of this one.
    let result = unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut args), size_of::<libc::clone_args>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let fork = pid_of(result)?;
    let pidfd = match fork {
        // SAFETY: the kernel has just put a new descriptor there, which nobody else owns.
        Fork::Parent(_) => Some(unsafe { OwnedFd::from_raw_fd(pidfd) }),
        Fork::Child => None,
    };
    Ok((fork, pidfd))
}

/// Of linux/sched.h.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Ends the process at once, without running anything that a parent registered.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: it does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets all uids and gids of the process and drops its supplementary groups. Single-threaded callers only: it does
/// what the raw calls do, for the calling thread. Where a user namespace denies setgroups(2) the groups stay.
pub(crate) fn become_ids(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: plain integers, and a null list of length 0.
    unsafe {
        match check(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>())) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && setgroups_is_denied() => {}
            other => other?,
        }
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))
    }
}

/// See user_namespaces(7), `/proc/PID/setgroups`.
fn setgroups_is_denied() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
}

/// mount_setattr(2) on the mount that `fd` is, or on its whole tree.
pub(crate) fn mount_setattr(fd: impl AsFd, recursive: bool, attr: &libc::mount_attr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attr` is a whole mount_attr that lives until the call returns.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    })
}

/// Joins a session keyring of its own (keyctl(2)), so that none of the starter's is inherited.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    // SAFETY: a null name asks for an anonymous keyring.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
    match result {
        -1 => match io::Error::last_os_error() {
            // A kernel without keyrings has none to be inherited.
            error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            error => Err(error),
        },
        _ => Ok(()),
    }
}

/// Gives every signal its default action again and unblocks all.
pub(super) fn reset_signals() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the default action runs no code of ours. SIGKILL, SIGSTOP and libc's own signals are refused, which
        // is no fault.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: a set is made before it is read; the old one is not asked for.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()).into())
    }
}

/// Ignores a signal.
pub(crate) fn ignore_signal(signal: i32) -> io::Result<()> {
    // SAFETY: ignoring runs no code.
    if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A descriptor that becomes readable when a child has ended: a signalfd for SIGCHLD, which is blocked for that.
pub(super) fn child_events() -> io::Result<OwnedFd> {
    // SAFETY: a set is made before it is read; the descriptor is new and nobody else's.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()).into())?;
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Brings the loopback interface of the network namespace up (netdevice(7)).
pub(super) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = from.cast_signed();
    }
    #[expect(clippy::cast_possible_truncation, reason = "interface flags are 16 bits wide")]
    let flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: SIOCSIFFLAGS reads the ifreq, which lives until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, std::ptr::from_ref(&request)) };
    check(result.into())
}

/// execve(2) with an empty environment. Returns only when it failed.
pub(super) fn exec(path: &CStr, args: [&CStr; 2]) -> io::Error {
    let argv = [args[0].as_ptr(), args[1].as_ptr(), std::ptr::null()];
    let envp: [*const libc::c_char; 1] = [std::ptr::null()];
    // SAFETY: both lists end in null and their strings live until the call returns, if it does.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}
