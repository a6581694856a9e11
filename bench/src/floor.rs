//! The floors: what the kernel alone takes for each part of a sandbox, with nothing of ours around it.
//!
//! Runs in the helper process, which has one thread and little memory, so that copying it costs next to nothing.

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::cgroup::{Cgroups, Version};

/// What a floor does before it executes `true`. Each holds what the one before it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Floor {
    /// `posix_spawn`, nothing else.
    Spawn,
    /// `clone3` with a user, pid, mount, net, ipc, uts and cgroup namespace, and the id maps.
    Namespaces,
    /// And a tmpfs with an overlay over the host's `/usr` on it as the root, a new `/proc`, `pivot_root`.
    Overlay,
    /// And v1 cgroups for memory, pids and cpu with limits, into which the child is moved.
    CgroupV1,
    /// Instead of that, a v2 cgroup in which the child is born; limits where the controllers are there.
    CgroupV2,
}

const ALL_NAMESPACES: c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// From linux/sched.h; libc's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Text for the kernel, made before the clone: the child allocates nothing.
struct Prepared {
    base: CString,
    upper: CString,
    work: CString,
    merged: CString,
    merged_proc: CString,
    options: CString,
}

impl Prepared {
    fn new(scratch: &Path) -> Result<Self, String> {
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string());
        let (upper, work, merged) = (scratch.join("upper"), scratch.join("work"), scratch.join("merged"));
        let options =
            format!("lowerdir=/usr,upperdir={},workdir={},userxattr", upper.display(), work.display());
        Ok(Self {
            base: text(scratch)?,
            upper: text(&upper)?,
            work: text(&work)?,
            merged: text(&merged)?,
            merged_proc: text(&merged.join("proc"))?,
            options: CString::new(options).map_err(|e| e.to_string())?,
        })
    }
}

/// Carries one floor out and returns how long it took, in nanoseconds: from the first call until `true` has ended.
pub(crate) fn run(floor: Floor, scratch: &Path) -> Result<u64, String> {
    let prepared = Prepared::new(scratch)?;
    let name = format!("faas-bench-{}", std::process::id());
    let begin = Instant::now();
    let cgroups = match floor {
        Floor::CgroupV1 => Some(Cgroups::make(Version::V1, &name)?),
        Floor::CgroupV2 => Some(Cgroups::make(Version::V2, &name)?),
        Floor::Spawn | Floor::Namespaces | Floor::Overlay => None,
    };
    let unified = match (&cgroups, floor) {
        (Some(cgroups), Floor::CgroupV2) => Some(
            std::fs::File::open(cgroups.unified())
                .map_err(|e| format!("{}: {e}", cgroups.unified().display()))?,
        ),
        _ => None,
    };
    let gate = if floor == Floor::CgroupV1 { Some(pipe()?) } else { None };
    let mut args =
        CloneArgs { flags: ALL_NAMESPACES as u64, exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    if let Some(unified) = &unified {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = unified.as_raw_fd() as u64;
    }
    // SAFETY: args is a valid clone_args without CLONE_VM, so the child has memory of its own; this process has one
    // thread, and the child only makes system calls on text made before.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    if pid < 0 {
        return Err(format!("clone3: {}", std::io::Error::last_os_error()));
    }
    if pid == 0 {
        // SAFETY: this is the child of the clone above.
        unsafe {
            child(
                &prepared,
                floor,
                gate.as_ref().map(|(reader, writer)| (reader.as_raw_fd(), writer.as_raw_fd())),
            )
        }
    }
    let pid = pid as libc::pid_t;
    let placed = match (&cgroups, floor) {
        (Some(cgroups), Floor::CgroupV1) => cgroups.place(pid),
        _ => Ok(()),
    };
    drop(gate);
    let mut status = 0;
    // SAFETY: pid is a child of this process that nobody else waits for.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {
        return Err(format!("waitpid: {}", std::io::Error::last_os_error()));
    }
    let took = begin.elapsed().as_nanos() as u64;
    placed?;
    if status != 0 {
        return Err(format!("{floor:?}: child ended with wait status {status:#x}"));
    }
    Ok(took)
}

/// `struct clone_args` of clone3(2).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

fn pipe() -> Result<(OwnedFd, OwnedFd), String> {
    let (reader, writer) = std::io::pipe().map_err(|e| format!("pipe: {e}"))?;
    Ok((reader.into(), writer.into()))
}

/// Ends the child with a number that tells the step when `failed`.
unsafe fn check(failed: bool, step: c_int) {
    if failed {
        // SAFETY: _exit runs nothing of the parent's.
        unsafe { libc::_exit(step) }
    }
}

unsafe fn put(path: &std::ffi::CStr, value: &[u8], step: c_int) {
    // SAFETY: path is terminated, value is valid for its length.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        check(fd < 0, step);
        check(libc::write(fd, value.as_ptr().cast::<c_void>(), value.len()) < 0, step);
        libc::close(fd);
    }
}

unsafe fn mount(
    source: &std::ffi::CStr,
    target: *const c_char,
    kind: *const c_char,
    flags: u64,
    data: *const c_char,
    step: c_int,
) {
    // SAFETY: all pointers are terminated text or null.
    unsafe { check(libc::mount(source.as_ptr(), target, kind, flags, data.cast::<c_void>()) != 0, step) }
}

/// The child's whole life.
///
/// # Safety
/// Must be called in a process that clone3 made just now and that shares no memory.
unsafe fn child(prepared: &Prepared, floor: Floor, gate: Option<(c_int, c_int)>) -> ! {
    // SAFETY: only system calls, on text that lives in `prepared` or in the program.
    unsafe {
        if let Some((reader, writer)) = gate {
            // This process's own copy of the writer would keep the pipe open.
            libc::close(writer);
            let mut byte = 0_u8;
            check(libc::read(reader, (&raw mut byte).cast::<c_void>(), 1) < 0, 100);
        }
        put(c"/proc/self/setgroups", b"deny", 101);
        put(c"/proc/self/uid_map", b"0 0 1", 102);
        put(c"/proc/self/gid_map", b"0 0 1", 103);
        if floor >= Floor::Overlay {
            let null = std::ptr::null();
            mount(c"none", c"/".as_ptr(), null, libc::MS_REC | libc::MS_PRIVATE, null, 104);
            mount(c"tmpfs", prepared.base.as_ptr(), c"tmpfs".as_ptr(), 0, null, 105);
            for directory in [&prepared.upper, &prepared.work, &prepared.merged] {
                check(libc::mkdir(directory.as_ptr(), 0o755) != 0, 106);
            }
            mount(
                c"overlay",
                prepared.merged.as_ptr(),
                c"overlay".as_ptr(),
                0,
                prepared.options.as_ptr(),
                107,
            );
            check(libc::mkdir(prepared.merged_proc.as_ptr(), 0o755) != 0, 113);
            mount(c"proc", prepared.merged_proc.as_ptr(), c"proc".as_ptr(), 0, null, 108);
            check(libc::chdir(prepared.merged.as_ptr()) != 0, 109);
            check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) != 0, 110);
            check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH) != 0, 111);
            check(libc::chdir(c"/".as_ptr()) != 0, 112);
        }
        let argv = [c"true".as_ptr(), std::ptr::null()];
        let env = [std::ptr::null()];
        let program = if floor >= Floor::Overlay { c"/bin/true" } else { c"/usr/bin/true" };
        libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr());
        libc::_exit(127)
    }
}

#[cfg(test)]
mod tests {
    use faas_test_support::needs;

    use super::{Floor, run};

    #[test]
    fn every_floor_can_be_reached_and_leaves_no_cgroup() {
        needs!(Root, Cgroup1);
        let scratch = tempfile::tempdir().unwrap();
        for floor in [Floor::Namespaces, Floor::Overlay, Floor::CgroupV1] {
            run(floor, scratch.path()).unwrap();
        }
        let name = format!("faas-bench-{}", std::process::id());
        let memory = crate::cgroup::own_directory(crate::cgroup::Version::V1, "memory").unwrap();
        assert!(!memory.join(name).exists());
    }
}
