//! Idmapped mounts (mount_setattr(2), `MOUNT_ATTR_IDMAP`): files that belong to one range of ids seen as another's.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{Pid, WaitOptions};

use super::message::{Failure, Step as _};
use super::template::{IMAGES, read_only};
use crate::native::sys::{self, Fork};

/// A user namespace with this mapping, which is how a mount's is given. The process must be single-threaded.
pub(super) fn namespace(map: &str) -> Result<OwnedFd, Failure> {
    let (gate, held) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step("make a pipe")?;
    // SAFETY: the process is single-threaded.
    let (fork, _pidfd) = unsafe { sys::clone3(libc::CLONE_NEWUSER as u64, libc::SIGCHLD, None) }
        .step("clone an id mapping")?;
    let Fork::Parent(pid) = fork else {
        drop(held);
        // Waits for the parent to close its end, or to be gone.
        match rustix::io::read(&gate, &mut [0u8; 1]) {
            Ok(_) => sys::exit_now(0),
            Err(_) => sys::exit_now(1),
        }
    };
    let result = write_maps(pid, map).and_then(|()| {
        let path = format!("/proc/{}/ns/user", pid.as_raw_nonzero());
        Ok(File::open(path).step("open the id mapping")?.into())
    });
    drop(held);
    rustix::process::waitpid(Some(pid), WaitOptions::empty()).step("reap")?;
    result
}

/// Maps the ids of the user namespace that `pid` is in (user_namespaces(7)).
pub(super) fn write_maps(pid: Pid, map: &str) -> Result<(), Failure> {
    for file in ["uid_map", "gid_map"] {
        let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
        std::fs::write(path, map).step(format!("write {file}"))?;
    }
    Ok(())
}

/// A mount of what is at `path`, read-only, with the ids of `namespace`; nowhere yet. The inner error: the kernel cannot
/// do this for the file system it is on.
pub(super) fn mapped(path: &str, namespace: &OwnedFd) -> Result<Result<OwnedFd, Failure>, Failure> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, path, clone).step(format!("clone {path}"))?;
    let mut attr = read_only();
    attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
    attr.userns_fd = u64::from(namespace.as_raw_fd().unsigned_abs());
    match sys::mount_setattr(&tree, false, &attr) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Ok(Err(Failure::at(format!("idmap {path}"), &error)))
        }
        other => other.step(format!("idmap {path}")).map(|()| Ok(tree)),
    }
}

/// Shows a mount that is nowhere yet with the ids of `namespace`, to be written to.
pub(super) fn map_writable(tree: &OwnedFd, namespace: &OwnedFd) -> Result<(), Failure> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: u64::from(namespace.as_raw_fd().unsigned_abs()),
    };
    sys::mount_setattr(tree, false, &attr).step("idmap the disk")
}

/// Puts such a mount somewhere.
pub(super) fn attach(tree: &OwnedFd, at: &str) -> Result<(), Failure> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", rustix::fs::CWD, at, flags).step(format!("mount {at}"))
}

/// Tries what a sandbox of an image takes: the images with the ids of `namespace`, and an overlay on that. The inner
/// error: this kernel cannot; on an idmapped mount an overlay is refused before Linux 5.19. In the template's root.
pub(super) fn try_overlay(namespace: &OwnedFd) -> Result<Result<(), Failure>, Failure> {
    let tree = match mapped(IMAGES, namespace)? {
        Ok(tree) => tree,
        Err(failure) => return Ok(Err(failure)),
    };
    attach(&tree, "/lower")?;
    // It would keep the mount busy.
    drop(tree);
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY;
    let layers = c"lowerdir=/lower:/empty,userxattr";
    let tried = match rustix::mount::mount("overlay", "/root", "overlay", flags, layers) {
        Ok(()) => Ok(rustix::mount::unmount("/root", UnmountFlags::empty()).step("unmount an overlay")?),
        Err(rustix::io::Errno::INVAL) => {
            let error = rustix::io::Errno::INVAL.into();
            Err(Failure::at("mount an overlay on an idmapped mount", &error))
        }
        Err(error) => return Err(error).step("mount an overlay on an idmapped mount"),
    };
    rustix::mount::unmount("/lower", UnmountFlags::empty()).step("unmount the images")?;
    Ok(tried)
}
