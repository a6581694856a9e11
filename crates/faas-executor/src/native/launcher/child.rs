//! The way of a new sandbox's first process: from a copy of the slot, in new namespaces, to the guest agent.
//!
//! In order (each step needs those before it): ids mapped -> own file system -> overlay root and the host's trees ->
//! /dev, /run, /.faas -> /proc, while the old root is still there -> masked and read-only paths -> pivot_root ->
//! hostname, loopback, keyring -> rlimits -> descriptors -> what the image lacks -> landlock -> capabilities ->
//! no_new_privs -> seccomp -> exec.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::message::{Failure, ImageOrder, SandboxOrder, Step as _};
use super::template::{FILES, HostTree, IMAGES, pivot, read_only};
use crate::native::layout::{KEPT_CAPABILITIES, SlotIds};
use crate::native::seccomp::{self, Program};
use crate::native::sys;

/// What the child starts with.
pub(super) struct Child<'a> {
    pub(super) order: &'a SandboxOrder,
    /// The agent's connection, and the mount of the sandbox's own file system where that is a disk.
    pub(super) fds: Vec<OwnedFd>,
    /// The ids of the slot.
    pub(super) ids: SlotIds,
    /// Whether there are no cgroups: then it limits itself as far as a process can, and ends with the launcher.
    pub(super) limits_itself: bool,
    pub(super) trees: &'a [HostTree],
    pub(super) seccomp: &'a Program,
    /// Readable when the ids are mapped.
    pub(super) go: OwnedFd,
    /// Takes a [`Failure`]; closed by a successful exec.
    pub(super) status: OwnedFd,
}

/// Where the new root is while it is made.
const ROOT: &str = "/root";

/// Where something is mounted in every sandbox, with the modes of what is below.
const MOUNT_POINTS: [(&str, u32); 5] =
    [(".faas", 0o755), ("dev", 0o755), ("proc", 0o555), ("run", 0o755), ("sys", 0o555)];

/// Descriptors of the guest agent's `init`.
const AGENT_FD: RawFd = 3;
const STATUS_FD: RawFd = 4;

/// How many terminals a sandbox can open: all there are on the host count against one number (kernel.pty.max).
const MAX_PTYS: u32 = 64;

/// The group of terminals, as in the image's `/etc/group`.
const TTY_GROUP: u32 = 5;

/// What is laid over with nothing: files of /proc that tell of the host (OCI runtime specification, `maskedPaths`;
/// the list is that of common container engines).
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];

/// What is made read-only (`readonlyPaths`).
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Soft and hard limits of the sandbox's processes. The hard ones are lowered to the launcher's own.
///
/// A core limit of 1, and not 0: the kernel pipes a core to the host's handler (core(5), "Piping core dumps to a
/// program"), which runs as the host's root, whatever the limit, but for this one. It is too small for a file.
const RLIMITS: [(Resource, u64, u64); 6] = [
    // Whoever started the server may have these; CPU limits do not hold real-time processes.
    (Resource::Nice, 0, 0),
    (Resource::Rtprio, 0, 0),
    (Resource::Nofile, 1024, 524_288),
    (Resource::Core, 1, 1),
    (Resource::Memlock, 8 << 20, 8 << 20),
    (Resource::Msgqueue, 819_200, 819_200),
];

/// Becomes the sandbox's `init`, or reports what failed and ends.
pub(super) fn run(child: Child<'_>) -> ! {
    let mut status = child.status.as_raw_fd();
    let failure = match become_init(child, &mut status) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    let json = serde_json::to_vec(&failure).unwrap_or_default();
    // SAFETY: `json` lives until the call returns. When it cannot be written the slot sees the pipe close.
    unsafe { libc::write(status, json.as_ptr().cast(), json.len()) };
    sys::exit_now(1)
}

/// `status_at`: where the status pipe is at the moment.
fn become_init(child: Child<'_>, status_at: &mut RawFd) -> Result<std::convert::Infallible, Failure> {
    let Child { order, fds, ids, limits_itself, trees, seccomp, go, status } = child;
    // Not closed on the way out of here: the failure is still to be told.
    let status = std::mem::ManuallyDrop::new(status);
    if rustix::io::read(&go, &mut [0u8; 1]).step("wait for the id maps")? != 1 {
        return Err(Failure { step: "wait for the id maps".into(), errno: libc::EPIPE });
    }
    drop(go);
    sys::become_ids(0, 0).step("become root of the sandbox")?;
    if limits_itself {
        // After the change of ids, which takes it back.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .step("end with the launcher")?;
    }
    rustix::process::setsid().step("start a session")?;
    // SAFETY: the process is single-threaded. Only now, since the root of a cgroup namespace is where its maker is.
    unsafe { unshare_unsafe(UnshareFlags::NEWCGROUP) }.step("make a cgroup namespace")?;
    let mut fds = fds.into_iter();
    let agent =
        fds.next().ok_or_else(|| Failure { step: "an agent connection".into(), errno: libc::EBADF })?;
    mount_root(order, fds.next(), ids, trees)?;
    if order.keep_sockets_small {
        limit_sockets()?;
    }
    mask()?;
    pivot(Path::new(ROOT))?;
    rustix::system::sethostname(order.hostname.as_bytes()).step("set the hostname")?;
    sys::loopback_up().step("bring loopback up")?;
    if ids.creator.is_some() {
        sys::new_session_keyring().step("join a new keyring")?;
    }
    // Otherwise it is the user's, who may have 200 in all (keyrings(7), `maxkeys`): then it has the launcher's, which is
    // new and empty, and that no call which seccomp lets through leads to.
    limit_resources(limits_itself.then_some(order))?;
    lay_out_descriptors(agent, &status, status_at)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // The image says what a path in it leads to, and a link of /proc may lead to any descriptor: only now is none left
    // that has a directory.
    order.image.as_ref().map_or(Ok(()), complete_image)?;
    restrict()?;
    seccomp::install(seccomp).step("install the seccomp filter")?;
    Err(Failure::at("execute the guest agent", &sys::exec(c"/.faas/agent", [c"faas-guest-agent", c"init"])))
}

fn mount(kind: &str, target: &str, flags: MountFlags, options: &str) -> Result<(), Failure> {
    let options = std::ffi::CString::new(options)
        .map_err(|error| Failure::at(format!("mount {target}"), &io::Error::from(error)))?;
    rustix::mount::mount(kind, target, kind, flags, options.as_c_str()).step(format!("mount {target}"))
}

fn write(path: &str, text: &str) -> Result<(), Failure> {
    fs::write(path, text).step(format!("write {path}"))
}

fn make_dir(path: &str, mode: u32) -> Result<(), Failure> {
    fs::create_dir(path).step(format!("make {path}"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).step(format!("mode of {path}"))
}

fn mount_root(
    order: &SandboxOrder,
    disk: Option<OwnedFd>,
    ids: SlotIds,
    trees: &[HostTree],
) -> Result<(), Failure> {
    let safe = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step("make mounts private")?;
    let directory = order.lasting.as_ref().and_then(|lasting| lasting.directory.as_ref());
    match (order.tmpfs_bytes, disk, directory) {
        (Some(bytes), None, None) => {
            // An inode costs about as much kernel memory as a quarter of a page of content.
            let inodes = (bytes / 4096).clamp(4096, 1 << 20);
            mount("tmpfs", "/upper", safe, &format!("mode=0755,size={bytes},nr_inodes={inodes}"))?;
            make_dir("/upper/upper", 0o755)?;
            make_dir("/upper/work", 0o755)?;
        }
        (None, Some(disk), None) => {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(&disk, "", rustix::fs::CWD, "/upper", flags).step("mount the disk")?;
        }
        (None, None, Some(name)) => {
            rustix::mount::mount_bind(format!("{FILES}/{name}"), "/upper").step("bind the files")?;
        }
        _ => {
            let step = "one of a tmpfs, a disk and a directory".into();
            return Err(Failure { step, errno: libc::EINVAL });
        }
    }
    let again = order.lasting.as_ref().is_some_and(|lasting| lasting.again);
    if again {
        keep_mount_points(order.image.is_none().then_some(trees))?;
    } else {
        make_dir("/upper/upper/etc", 0o755)?;
        write("/upper/upper/etc/hostname", &format!("{}\n", order.hostname))?;
        write("/upper/upper/etc/machine-id", &format!("{}\n", order.machine_id))?;
        let hosts =
            format!("127.0.0.1\tlocalhost {}\n::1\tlocalhost ip6-localhost ip6-loopback\n", order.hostname);
        write("/upper/upper/etc/hosts", &hosts)?;
    }
    match &order.image {
        None => {
            mount_overlay("/lower")?;
            trees.iter().try_for_each(mount_host_tree)?;
        }
        Some(image) => {
            // Directories of the sandbox's own layer: an image may have none, or a link in their place that would
            // lead elsewhere what is mounted on it.
            if !again {
                for (dir, mode) in MOUNT_POINTS {
                    make_dir(&format!("/upper/upper/{dir}"), mode)?;
                }
            }
            mount_overlay(&format!("{IMAGES}/{}", image.rootfs))?;
        }
    }
    let bind = |from: &str, to: &str| {
        rustix::mount::mount_bind_recursive(from, format!("{ROOT}/{to}")).step(format!("bind {from}"))
    };
    bind("/dev", "dev")?;
    let no_exec = safe | MountFlags::NOEXEC;
    // The group tty, where there is one.
    let group = if ids.count > TTY_GROUP { format!(",gid={TTY_GROUP}") } else { String::new() };
    mount(
        "devpts",
        &format!("{ROOT}/dev/pts"),
        MountFlags::NOSUID | MountFlags::NOEXEC,
        &format!("newinstance,ptmxmode=0666,mode=0620,max={MAX_PTYS}{group}"),
    )?;
    mount("tmpfs", &format!("{ROOT}/dev/shm"), no_exec, &format!("mode=1777,size={}", order.shm_bytes))?;
    mount("tmpfs", &format!("{ROOT}/run"), safe, "mode=0755,size=16m")?;
    bind("/faas", ".faas")?;
    // Where the server is none of the sandbox's users it has to pass through; the agent serves nobody from inside.
    let mode = if ids.creator.is_none() && ids.base != 0 { "0711" } else { "0700" };
    mount("tmpfs", &format!("{ROOT}/.faas/run"), no_exec, &format!("mode={mode},size=64k"))?;
    mount("proc", &format!("{ROOT}/proc"), no_exec, "")
}

/// Sees to it that what is mounted in a sandbox is mounted on directories of its own, after a sandbox has run with the
/// same files. None of what its root has put there is followed: its names alone are looked at. With the image `host`,
/// whose `trees` are mounted too, all of the directories are in the layer below, unless something lies over them.
fn keep_mount_points(host: Option<&[HostTree]>) -> Result<(), Failure> {
    let upper = fs::File::open("/upper/upper").step("open the files")?;
    let first = |path: &Path| path.components().next().map(|first| first.as_os_str().to_owned());
    let tops = host.unwrap_or_default().iter().filter_map(|tree| Some((first(&tree.target)?, 0o755)));
    for (name, mode) in MOUNT_POINTS.iter().map(|(name, mode)| (name.into(), *mode)).chain(tops) {
        let step = || format!("look at /{}", name.display());
        match rustix::fs::statat(&upper, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) if host.is_some() => continue,
            Err(rustix::io::Errno::NOENT) => {}
            other if FileType::from_raw_mode(other.step(step())?.st_mode) == FileType::Directory => continue,
            _ => rustix::fs::unlinkat(&upper, &name, AtFlags::empty()).step(step())?,
        }
        rustix::fs::mkdirat(&upper, &name, Mode::from_raw_mode(mode)).step(step())?;
    }
    Ok(())
}

/// Mounts the sandbox's root on top of `lower`.
fn mount_overlay(lower: &str) -> Result<(), Failure> {
    // checkpointing.md, point 9: without xino CRIU cannot tell files of two layers apart.
    let layers = format!("lowerdir={lower},upperdir=/upper/upper,workdir=/upper/work,userxattr,xino=on");
    mount("overlay", ROOT, MountFlags::NOSUID | MountFlags::NODEV, &layers)
}

fn mount_host_tree(tree: &HostTree) -> Result<(), Failure> {
    // An overlay of its own, and not a bind mount: inotify and file locks are by inode, and through the host's own
    // inodes a sandbox could watch which programs the host runs.
    let target = format!("{ROOT}/{}", tree.target.display());
    if !tree.is_dir {
        return rustix::mount::mount_bind(&tree.at, &target).step(format!("bind {}", tree.at.display()));
    }
    let layers = format!("lowerdir={}:/empty,userxattr,xino=on", tree.at.display());
    mount("overlay", &target, MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY, &layers)
}

/// What every program expects and an image need not bring.
fn complete_image(image: &ImageOrder) -> Result<(), Failure> {
    match fs::create_dir("/tmp") {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => {
            made.step("make /tmp")?;
            fs::set_permissions("/tmp", fs::Permissions::from_mode(0o1777)).step("mode of /tmp")?;
        }
    }
    if let Some(dir) = &image.working_dir {
        match fs::create_dir_all(dir) {
            // Where it cannot be made the execution says so.
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn mask() -> Result<(), Failure> {
    for path in MASKED {
        let target = format!("{ROOT}{path}");
        match fs::symlink_metadata(&target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => match other.step(format!("look at {path}"))?.is_dir() {
                true => cover("/empty", path)?,
                false => rustix::mount::mount_bind("/dev/null", &target).step(format!("mask {path}"))?,
            },
        }
    }
    for path in READ_ONLY {
        match fs::symlink_metadata(format!("{ROOT}{path}")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => {
                other.step(format!("look at {path}"))?;
                cover(&format!("{ROOT}{path}"), path)?;
            }
        }
    }
    Ok(())
}

/// The least, the first and the most bytes that one TCP socket holds each way (tcp(7)), in the sandbox's own network
/// namespace. cgroup v1 counts them, and lets every socket have its least all the same.
const TCP_BUFFERS: &str = "4096 16384 65536";

fn limit_sockets() -> Result<(), Failure> {
    for file in ["tcp_rmem", "tcp_wmem"] {
        write(&format!("{ROOT}/proc/sys/net/ipv4/{file}"), TCP_BUFFERS)?;
    }
    Ok(())
}

/// Lays `source`, read-only, over `path` of the new root.
fn cover(source: &str, path: &str) -> Result<(), Failure> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, source, clone).step(format!("clone {source}"))?;
    let mut attr = read_only();
    attr.attr_set |= libc::MOUNT_ATTR_NOEXEC;
    attr.propagation = 0;
    sys::mount_setattr(&tree, false, &attr).step(format!("make {source} read-only"))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&tree, "", rustix::fs::CWD, format!("{ROOT}{path}"), flags)
        .step(format!("cover {path}"))
}

/// `alone` where no cgroup limits the sandbox as a whole: then processes are counted for each user of it, and the
/// memory of each process is (getrlimit(2)).
fn limit_resources(alone: Option<&SandboxOrder>) -> Result<(), Failure> {
    let of_cgroups = alone.map(|order| {
        let (pids, memory) = (u64::from(order.pids), order.memory_bytes);
        [(Resource::Nproc, pids, pids), (Resource::Data, memory, memory)]
    });
    for (resource, soft, hard) in RLIMITS.into_iter().chain(of_cgroups.into_iter().flatten()) {
        let own = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let hard = hard.min(own);
        let limit = Rlimit { current: Some(soft.min(hard)), maximum: Some(hard) };
        rustix::process::setrlimit(resource, limit).step(format!("limit {resource:?}"))?;
    }
    Ok(())
}

/// 0, 1, 2: /dev/null; 3: the agent's connection; 4: the status pipe, closed on exec. Nothing else is left open.
fn lay_out_descriptors(agent: OwnedFd, status: &OwnedFd, status_at: &mut RawFd) -> Result<(), Failure> {
    // Out of the way of the numbers that are about to be taken.
    let above = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 10).step("move a descriptor");
    let status = std::mem::ManuallyDrop::new(above(status)?);
    *status_at = status.as_raw_fd();
    let moved = above(&agent)?;
    drop(agent);
    let agent = moved;
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null").step("open /dev/null")?;
    let null = above(&null.into())?;
    for (from, to, flags) in [
        (&null, 0, 0),
        (&null, 1, 0),
        (&null, 2, 0),
        (&agent, AGENT_FD, 0),
        (&status, STATUS_FD, libc::O_CLOEXEC),
    ] {
        // SAFETY: the source is open; whatever the target was is not used any more. They are never equal.
        if unsafe { libc::dup3(from.as_fd().as_raw_fd(), to, flags) } < 0 {
            return Err(Failure::at("lay out descriptors", &io::Error::last_os_error()));
        }
    }
    // Closed by number below.
    for fd in [null, agent] {
        let _number = fd.into_raw_fd();
    }
    *status_at = STATUS_FD;
    // SAFETY: nothing above the status pipe is used after this; the slot's copies are its own.
    if unsafe { libc::syscall(libc::SYS_close_range, STATUS_FD + 1, u32::MAX, 0) } != 0 {
        return Err(Failure::at("close descriptors", &io::Error::last_os_error()));
    }
    Ok(())
}

/// Gives up what a container's root has no use for, in a way that cannot be undone.
fn restrict() -> Result<(), Failure> {
    use rustix::thread::{CapabilitySet, CapabilitySets};
    super::landlock::restrict()?;
    for number in 0..64u32 {
        if KEPT_CAPABILITIES >> number & 1 == 1 {
            continue;
        }
        // SAFETY: plain integers. EINVAL: the kernel has no capability of this number.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, u64::from(number), 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::EINVAL) {
                break;
            }
            return Err(Failure::at("drop capabilities", &error));
        }
    }
    let kept = CapabilitySet::from_bits_retain(KEPT_CAPABILITIES);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).step("drop capabilities")?;
    rustix::thread::set_no_new_privs(true).step("set no_new_privs")
}
