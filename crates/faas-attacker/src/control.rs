//! The places where attempts must succeed.

use std::path::Path;

use crate::attempt::Control;
use crate::options::Options;
use crate::sys;

/// Takes the calling process to where an attempt with this control is made.
pub(crate) fn enter(control: Control, options: &Options) -> Result<(), String> {
    const HOST: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    match control {
        Control::Bare | Control::Started | Control::None(_) => Ok(()),
        Control::Host => {
            unshare(HOST)?;
            private_mounts()
        }
        Control::Apart => {
            unshare(HOST | libc::CLONE_NEWNET | libc::CLONE_NEWPID)?;
            private_mounts()?;
            into_pid_namespace()
        }
        Control::Chroot => {
            let jail = format!("{}/jail-{}", options.need("dir")?, sys::pid());
            std::fs::create_dir(&jail).map_err(|error| format!("{jail}: {error}"))?;
            std::os::unix::fs::chroot(&jail).map_err(|error| format!("chroot: {error}"))?;
            std::env::set_current_dir(Path::new("/")).map_err(|error| format!("chdir: {error}"))
        }
        Control::Unmapped => unshare(libc::CLONE_NEWUSER),
    }
}

fn unshare(flags: i32) -> Result<(), String> {
    // SAFETY: plain integers; the process has one thread.
    sys::check(unsafe { libc::unshare(flags) })
        .map(drop)
        .map_err(|errno| format!("unshare: {}", sys::errno_name(errno)))
}

fn private_mounts() -> Result<(), String> {
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the target is a C string; the rest may be null for a change of propagation.
    let made =
        unsafe { libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), flags, std::ptr::null()) };
    sys::check(made).map(drop).map_err(|errno| format!("make mounts private: {}", sys::errno_name(errno)))
}

/// Goes on as the first child of the new PID namespace. The process before it waits for it and ends as it does.
fn into_pid_namespace() -> Result<(), String> {
    // SAFETY: the process has one thread.
    match unsafe { libc::fork() } {
        -1 => Err(format!("fork: {}", sys::errno_name(sys::errno()))),
        0 => Ok(()),
        child => {
            let status = sys::wait(child).unwrap_or(1);
            // SAFETY: ends the process without running what was registered before the fork.
            unsafe { libc::_exit(i32::from(status != 0)) }
        }
    }
}
