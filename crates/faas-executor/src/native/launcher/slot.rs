//! A slot: a small process, parked in its cgroups ahead of need, that makes one sandbox after another.
//!
//! Moving a process into a cgroup waits for RCU grace periods, 7 to 20 ms for each hierarchy; a process born in one
//! costs nothing. So the slot moves itself once, and every sandbox is its child by clone3(2) - by parentage its
//! sibling (`CLONE_PARENT`), so that the launcher reaps it. On v2 the slot stays outside: there clone3 can put its child
//! into a cgroup (`CLONE_INTO_CGROUP`).
//!
//! The slot keeps root's capabilities, as root under ids of its own that create the sandboxes' user namespaces (see
//! [`IdMode`]). Nothing of a sandbox runs in it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Pid, Signal};
use rustix::thread::{CapabilitiesSecureBits, UnshareFlags, unshare_unsafe};

use super::message::{Failure, LastingOrder, SandboxOrder, SlotReply, Step as _, receive, send};
use super::template::{FILES, IMAGES, Template, copy_tree, devices_of_the_host, make_devices};
use super::{child, idmap};
use crate::native::cgroup::{CgroupFileError, SlotCgroup};
use crate::native::layout::{IdMode, SlotIds, store_map_line};
use crate::native::seccomp::Program;
use crate::native::sys::{self, Fork};
use crate::sandbox::Limits;

/// What a slot works with.
pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) socket: OwnedFd,
    pub(super) ids: IdMode,
    pub(super) cgroup: Option<SlotCgroup>,
    pub(super) template: Template,
    pub(super) seccomp: Program,
}

impl Slot {
    /// Parks and serves until the server closes the socket. Runs in the forked process.
    pub(super) fn run(self) -> ! {
        let code = match self.park() {
            Ok(()) => self.serve(),
            Err(failure) => {
                // When even this cannot be sent the server sees the socket close.
                match send(&self.socket, &SlotReply::Failed(failure), &[]) {
                    Ok(()) | Err(_) => 1,
                }
            }
        };
        sys::exit_now(code)
    }

    fn park(&self) -> Result<(), Failure> {
        sys::reset_signals().step("reset signals")?;
        if let Some(cgroup) = &self.cgroup {
            cgroup.enter().map_err(|error| Failure::at(format!("enter cgroup {error}"), &error.source))?;
        }
        // SAFETY: the process is single-threaded, and no code of it relies on the file system state it shared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.step("unshare the slot's mount namespace")?;
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .step("make mounts private")?;
        self.map_lower()?;
        self.map_images()?;
        separate_inodes(self.ids)?;
        self.evade_oom_killer()?;
        // SAFETY: as above; the time namespace is entered by children only (time_namespaces(7)).
        unsafe { unshare_unsafe(UnshareFlags::NEWTIME) }.step("unshare the time namespace")?;
        if let Some(creator) = self.own_ids().creator {
            rustix::thread::set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)
                .step("keep capabilities")?;
            sys::become_ids(creator, creator).step("take the slot's ids")?;
        }
        send(&self.socket, &SlotReply::Parked, &[]).step("say that the slot is parked")
    }

    fn own_ids(&self) -> SlotIds {
        self.ids.of_slot(self.number)
    }

    /// Mounts the skeleton at `/lower` so that what root owns there belongs to the root of this slot's sandboxes.
    fn map_lower(&self) -> Result<(), Failure> {
        if self.ids != IdMode::OwnRanges {
            // It belongs to them already.
            return rustix::mount::mount_bind("/skeleton", "/lower").step("mount the skeleton");
        }
        let namespace = idmap::namespace(&self.own_ids().map_line())?;
        match idmap::mapped("/skeleton", &namespace)? {
            Ok(tree) => idmap::attach(&tree, "/lower"),
            // A tmpfs can be idmapped from Linux 6.3 on.
            Err(_) => self.copy_lower(),
        }
    }

    /// Lays the directory of images over itself so that what the store's root owns there belongs to the root of this
    /// slot's sandboxes.
    fn map_images(&self) -> Result<(), Failure> {
        if self.ids != IdMode::OwnRanges || self.template.images.is_err() {
            return Ok(());
        }
        let namespace = idmap::namespace(&store_map_line(self.own_ids()))?;
        idmap::attach(&idmap::mapped(IMAGES, &namespace)??, IMAGES)
    }

    /// Puts a copy of the skeleton at `/lower` that belongs to the root of this slot's sandboxes.
    fn copy_lower(&self) -> Result<(), Failure> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
        rustix::mount::mount("lower", "/lower", "tmpfs", flags, c"mode=0755,size=64m")
            .step("mount the copy of the skeleton")?;
        copy_tree(Path::new("/skeleton"), Path::new("/lower"), self.own_ids().base)
            .step("copy the skeleton")?;
        let read_only = MountFlags::BIND | MountFlags::RDONLY | flags;
        rustix::mount::mount_remount("/lower", read_only, c"").step("make the copy read-only")
    }

    fn serve(&self) -> i32 {
        loop {
            let (order, fds) = match receive::<SandboxOrder>(&self.socket) {
                Ok(Some(order)) => order,
                Ok(None) => return 0,
                Err(_) => return 1,
            };
            let sent = match self.create(&order, fds) {
                Ok((pid, pidfd)) => {
                    let pid = pid.as_raw_nonzero().get().unsigned_abs();
                    send(&self.socket, &SlotReply::Created { pid }, &[pidfd.as_fd()])
                }
                Err(failure) => send(&self.socket, &SlotReply::Failed(failure), &[]),
            };
            if sent.is_err() {
                // The server is gone; the launcher clears up what runs here.
                return 1;
            }
        }
    }

    fn create(&self, order: &SandboxOrder, fds: Vec<OwnedFd>) -> Result<(Pid, OwnedFd), Failure> {
        let limits = Limits {
            memory_bytes: order.memory_bytes,
            cpu_millicores: order.cpu_millicores,
            pids: order.pids,
            disk_bytes: None,
        };
        let of_cgroup =
            |error: CgroupFileError| Failure::at(format!("set cgroup limits: {error}"), &error.source);
        self.cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.limit(&limits)).map_err(of_cgroup)?;
        order.lasting.as_ref().map_or(Ok(()), |lasting| self.prepare_files(lasting, fds.get(1)))?;
        let birth_place = self.cgroup.as_ref().and_then(SlotCgroup::birth_place);

        let cloexec = rustix::pipe::PipeFlags::CLOEXEC;
        let (go_read, go_write) = rustix::pipe::pipe_with(cloexec).step("make a pipe")?;
        let (status_read, status_write) = rustix::pipe::pipe_with(cloexec).step("make a pipe")?;
        // SAFETY: the process is single-threaded.
        let (fork, pidfd) = unsafe { sys::clone3(NAMESPACES, 0, birth_place) }.step("clone the sandbox")?;
        let Fork::Parent(pid) = fork else {
            drop((go_write, status_read));
            child::run(child::Child {
                order,
                fds,
                ids: self.own_ids(),
                limits_itself: self.cgroup.is_none(),
                trees: &self.template.trees,
                seccomp: &self.seccomp,
                go: go_read,
                status: status_write,
            })
        };
        drop((fds, go_read, status_write));
        let pidfd = pidfd.ok_or_else(|| Failure { step: "clone gave no pidfd".into(), errno: libc::EIO })?;
        let made = self.start(pid, go_write).and_then(|()| match read_failure(&status_read) {
            Some(failure) => Err(failure),
            None => Ok(()),
        });
        match made {
            Ok(()) => Ok((pid, pidfd)),
            Err(failure) => {
                // It ends by itself when its pipes close; this is for one that hangs. Gone already is as good.
                match rustix::process::pidfd_send_signal(&pidfd, Signal::KILL) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => Err(failure),
                    Err(error) => Err(Failure::at(format!("{failure}; and kill it"), &error.into())),
                }
            }
        }
    }

    /// Makes files that last the sandbox's own: on a disk by showing them with the slot's ids, otherwise they have the
    /// right ones.
    fn prepare_files(&self, lasting: &LastingOrder, disk: Option<&OwnedFd>) -> Result<(), Failure> {
        match (&lasting.directory, disk) {
            (None, Some(disk)) => {
                idmap::map_writable(disk, &idmap::namespace(&store_map_line(self.own_ids()))?)
            }
            (Some(_), None) if lasting.again => Ok(()),
            (Some(name), None) => {
                let base = self.own_ids().base;
                for below in ["upper", "work"] {
                    let dir = format!("{FILES}/{name}/{below}");
                    std::fs::create_dir(&dir).step(format!("make {dir}"))?;
                    std::os::unix::fs::lchown(&dir, Some(base), Some(base)).step(format!("chown {dir}"))?;
                }
                Ok(())
            }
            _ => Err(Failure { step: "either a directory or a disk".into(), errno: libc::EINVAL }),
        }
    }

    /// The slot is in its sandbox's memory cgroup on v1, and must not be what the kernel kills when that is full.
    fn evade_oom_killer(&self) -> Result<(), Failure> {
        match std::fs::write("/proc/self/oom_score_adj", "-1000") {
            // It takes CAP_SYS_RESOURCE, which the host's root may lack.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
            other => other.step("evade the OOM killer"),
        }
    }

    /// From outside, so that the sandbox cannot go below it again (proc_pid_oom_score_adj(5)).
    fn expose_to_oom_killer(pid: Pid) -> Result<(), Failure> {
        let path = format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero());
        std::fs::write(path, "0").step("expose the sandbox to the OOM killer")
    }

    fn start(&self, pid: Pid, go: OwnedFd) -> Result<(), Failure> {
        Self::expose_to_oom_killer(pid)?;
        idmap::write_maps(pid, &self.own_ids().map_line())?;
        rustix::io::write(&go, b"g").step("start the sandbox")?;
        Ok(())
    }
}

/// Gives the slot's sandboxes inodes of their own where several sandboxes would share those of the launcher: who shares
/// an inode can watch (inotify(7)) and lock (flock(2)) what the others use. An ordinary user cannot make device nodes:
/// there the host's own are shared, in a directory that is not.
fn separate_inodes(ids: IdMode) -> Result<(), Failure> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY;
    rustix::mount::mount("overlay", "/faas", "overlay", flags, c"lowerdir=/faas:/empty,userxattr")
        .step("mount the guest agent")?;
    let dev = Path::new("/dev");
    let devices = devices_of_the_host();
    if let IdMode::OfUser { .. } = ids {
        // Each device is a mount there, which every sandbox would copy along with its own.
        rustix::mount::unmount(dev, UnmountFlags::DETACH).step("unmount the launcher's dev")?;
    }
    make_devices(dev, &devices)
}

/// Every namespace that clone3(2) makes; the time namespace is the slot's, and the cgroup namespace is the child's to
/// make, once it is in its cgroup. Constants of libc are signed.
const NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_PARENT) as u64;

/// What the child says of itself: nothing when it became the guest agent, otherwise the step that failed.
fn read_failure(status: &OwnedFd) -> Option<Failure> {
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 512];
    loop {
        match rustix::io::read(status, &mut chunk) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Some(Failure::at("read the sandbox's status", &error.into())),
        }
    }
    if bytes.is_empty() {
        return None;
    }
    Some(serde_json::from_slice(&bytes).unwrap_or_else(|error| Failure {
        step: format!("read the sandbox's status: {error}"),
        errno: libc::EIO,
    }))
}
