//! Shuts the unpack process up: after this it can reach one directory, the descriptors it was given, and nothing else.
//!
//! In order: ids -> ends with its parent -> its directory as the root of its own mount namespace -> a fresh keyring ->
//! rlimits -> landlock -> capabilities -> no_new_privs -> the seccomp filter of the sandboxes.

use std::io;
use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope,
};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit, Signal};

use super::Task;
use super::job::{Job, JobError};
use crate::native::{seccomp, sys};

/// The newest landlock interface that this code knows; an older kernel enforces what it has.
const LANDLOCK: ABI = ABI::V6;

/// What the process keeps in its own user namespace: CHOWN, DAC_OVERRIDE, FOWNER, FSETID.
const KEPT_CAPABILITIES: u64 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4;

/// Address space and data of the process. A zstd window takes at most 128 MiB, a layer's marks some tens of MiB; the
/// address space has the program itself in it.
const ADDRESS_SPACE_BYTES: u64 = 2 << 30;
const DATA_BYTES: u64 = 1 << 30;

/// Descriptors: every directory on the way down, and every layer of an image twice.
const DESCRIPTORS: u64 = 1024;

fn at<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> JobError {
    move |error| JobError::at(format!("confine the unpack process: {what}"), error)
}

/// Shuts the calling process up.
pub(super) fn enter(task: &Task, go: &OwnedFd) -> Result<(), JobError> {
    if rustix::io::read(go, &mut [0u8; 1]).map_err(at("wait for the id maps"))? != 1 {
        return Err(JobError::Failed("the ids could not be mapped".to_owned()));
    }
    sys::become_ids(0, 0).map_err(at("become root of the namespace"))?;
    end_with_parent(go)?;
    make_root()?;
    sys::new_session_keyring().map_err(at("join a new keyring"))?;
    rustix::process::umask(rustix::fs::Mode::empty());
    limit(task)?;
    restrict_files(task)?;
    drop_capabilities()?;
    rustix::thread::set_no_new_privs(true).map_err(at("set no_new_privs"))?;
    seccomp::install(&seccomp::default_program()).map_err(at("install the seccomp filter"))
}

/// Has the kernel end this process when its parent ends. A change of ids undoes that, so it comes after.
fn end_with_parent(go: &OwnedFd) -> Result<(), JobError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(at("watch the parent"))?;
    // The parent holds the other end for as long as it lives: it may be gone already.
    let mut fds = [PollFd::new(go, PollFlags::empty())];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).map_err(at("look for the parent"))?;
    if fds[0].revents().is_empty() { Ok(()) } else { Err(JobError::Failed("the server is gone".to_owned())) }
}

/// Makes the working directory the root, on which nothing can be executed, and lets go of everything else.
fn make_root() -> Result<(), JobError> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(at("make mounts private"))?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, ".", clone).map_err(at("clone the directory's mount"))?;
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    sys::mount_setattr(&tree, false, &attr).map_err(at("restrict the directory's mount"))?;
    rustix::mount::move_mount(&tree, "", CWD, ".", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(at("mount the directory"))?;
    rustix::process::fchdir(&tree).map_err(at("enter the directory"))?;
    // pivot_root(2): with "." twice the old root ends up on top of the new one, from where it is unmounted.
    rustix::process::pivot_root(".", ".").map_err(at("pivot_root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(at("unmount the old root"))?;
    rustix::process::chdir("/").map_err(at("enter the new root"))?;
    Ok(())
}

fn limit(task: &Task) -> Result<(), JobError> {
    let file = match task.order.job {
        Job::Unpack { max_bytes, .. } | Job::Decode { max_bytes } | Job::Pack { max_bytes } => max_bytes,
        Job::Merge { .. } => u64::MAX,
        Job::Remove { .. } => 0,
    };
    // A write beyond the limit fails with EFBIG instead of ending the process.
    sys::ignore_signal(libc::SIGXFSZ).map_err(at("ignore SIGXFSZ"))?;
    for (resource, value) in [
        (Resource::As, ADDRESS_SPACE_BYTES),
        (Resource::Data, DATA_BYTES),
        (Resource::Fsize, file),
        (Resource::Nofile, DESCRIPTORS),
        (Resource::Cpu, task.order.cpu_seconds),
        (Resource::Core, 0),
    ] {
        let own = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let value = Some(value.min(own)).filter(|value| *value != u64::MAX);
        rustix::process::setrlimit(resource, Rlimit { current: value, maximum: value })
            .map_err(at("set a resource limit"))?;
    }
    Ok(())
}

/// Puts the process under a landlock ruleset, where the kernel has it: only what the job does, only where it does it.
fn restrict_files(task: &Task) -> Result<(), JobError> {
    let list = AccessFs::ReadDir;
    let remove: BitFlags<AccessFs> = list | AccessFs::RemoveFile | AccessFs::RemoveDir;
    let make: BitFlags<AccessFs> = remove
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym
        | AccessFs::MakeFifo
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::Refer;
    let root = rustix::fs::openat(
        CWD,
        "/",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(at("open the root"))?;
    let rules: Vec<(&OwnedFd, BitFlags<AccessFs>)> = match task.order.job {
        Job::Unpack { .. } => vec![(&root, make)],
        Job::Pack { .. } => vec![(&root, list | AccessFs::ReadFile)],
        Job::Remove { .. } => {
            task.fds.iter().chain(task.more.iter().flatten()).map(|fd| (fd, remove)).collect()
        }
        Job::Decode { .. } => Vec::new(),
        // Linking moves a file to another directory in landlock's eyes: both sides must allow it, and the file must
        // not come to be more than it was. It is the same file, so that gives nothing away.
        Job::Merge { .. } => {
            let from = list | AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::Refer;
            let layers = task.more.iter().filter_map(|layer| Some((layer.first()?, from)));
            task.fds.first().map(|target| (target, make)).into_iter().chain(layers).collect()
        }
    };
    let apply = || {
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(Scope::from_all(LANDLOCK))?
            .create()?;
        for (fd, access) in rules {
            ruleset = ruleset.add_rule(PathBeneath::new(fd, access))?;
        }
        ruleset.restrict_self()
    };
    apply().map(|_status| ()).map_err(|error: RulesetError| JobError::Failed(format!("landlock: {error}")))
}

fn drop_capabilities() -> Result<(), JobError> {
    use rustix::thread::{CapabilitySet, CapabilitySets};
    for number in 0..64u32 {
        if KEPT_CAPABILITIES >> number & 1 == 1 {
            continue;
        }
        // SAFETY: plain integers. EINVAL: the kernel has no capability of this number.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, u64::from(number), 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) {
                break;
            }
            return Err(at("drop capabilities")(error));
        }
    }
    let kept = CapabilitySet::from_bits_retain(KEPT_CAPABILITIES);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(at("drop capabilities"))
}
