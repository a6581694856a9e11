//! The launcher of an ordinary user: a user namespace in which it is root (user_namespaces(7)), so that it can make
//! mounts and further namespaces.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::message::{Failure, LauncherCommand, LauncherEvent, Step as _, receive, send};
use crate::native::sys;

/// Enters a user namespace in which `uid` and `gid`, the caller's own, are 0. With `further` ids the server is asked to
/// have them mapped, since that takes a set-user-ID program (newuidmap(1)), which has no power in here.
pub(super) fn enter(server: &OwnedFd, uid: u32, gid: u32, further: bool) -> Result<(), Failure> {
    // SAFETY: the launcher is single-threaded.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }.step("make a user namespace")?;
    if further {
        send(server, &LauncherEvent::WantsIds, &[]).step("ask for ids")?;
        match receive(server).step("wait for ids")? {
            Some((LauncherCommand::IdsMapped, _)) => {}
            _ => return Err(Failure { step: "wait for ids".into(), errno: libc::EPROTO }),
        }
    } else {
        // Without it the kernel lets nobody map a group for himself.
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
        write("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    }
    sys::become_ids(0, 0).step("become root of the user namespace")
}

fn write(path: &str, text: &str) -> Result<(), Failure> {
    fs::write(path, text)
        .map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => hint(error),
            _ => error,
        })
        .step(format!("write {path}"))
}

/// Some hosts let everybody make user namespaces and give no capabilities in them.
fn hint(error: io::Error) -> io::Error {
    match fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") {
        Ok(text) if text.trim() == "1" => io::Error::new(
            error.kind(),
            "the sysctl kernel.apparmor_restrict_unprivileged_userns keeps ordinary users from it",
        ),
        _ => error,
    }
}
