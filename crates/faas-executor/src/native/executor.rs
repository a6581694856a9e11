//! `NativeExecutor`: the native runtime behind the seam.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use faas_types::{LimitSupport, LimitsSupport, Network, Runtime, RuntimeCapabilities, SandboxId};
use rustix::process::Signal;

use super::cgroup::{CgroupFileError, CgroupHost, CgroupPlan, SlotCgroup};
use super::disk::{DiskError, Disks, MIN_BYTES, Promise};
use super::launcher::message::{ImageOrder, LauncherSetup, SandboxOrder, SlotReply};
use super::launcher::{self, Failure};
use super::launcher_process::LauncherConfig;
use super::layout::{self, IdMode};
use super::slots::{Slot, SlotError, Slots};
use super::subordinate::Subordinate;
use super::watchdog::{Watchdog, Watched};
use super::{host_image, socket};
use crate::agent_binary;
use crate::data_dir::DataDir;
use crate::error::StartError;
use crate::guest::{AgentStream, connect};
use crate::images::ImageLease;
use crate::sandbox::{
    Account, BackendHandle, Ended, Found, HOST_IMAGE, ImageDefaults, Leak, Limits, Measures, SandboxError,
    SandboxExecutor, SandboxHandle, SandboxRecord, SandboxSpec, Unsupported,
};

/// The part of a sandbox's handle that is this backend's.
#[derive(Debug)]
pub struct NativeHandle {
    slot: Slot,
    /// PID of the sandbox's `init` as this host sees it, and the pidfd that makes it unmistakable.
    init_pid: u32,
    pidfd: OwnedFd,
    /// The room of its disk, where it has one.
    _disk: Option<Arc<Promise>>,
    watched: Arc<Watched>,
    /// Keeps its image where it is.
    _image: Option<ImageLease>,
}

/// Makes native sandboxes.
#[derive(Debug)]
pub struct NativeExecutor {
    slots: Arc<Slots>,
    /// Without them there is a reason why.
    cgroups: Result<Arc<CgroupHost>, String>,
    /// What a sandbox has for ids.
    ids: IdSupport,
    disks: DiskSupport,
    watchdog: Watchdog,
}

/// Which ids sandboxes have, for capabilities.
#[derive(Debug)]
enum IdSupport {
    OwnRanges,
    Range(u32),
    /// One alone, for this reason.
    One(String),
}

/// Where a sandbox with a disk limit has its file system.
#[derive(Debug)]
enum DiskSupport {
    Loop(Disks),
    /// In a tmpfs of that size.
    Memory,
    None(String),
}

/// What an executor is started with.
#[derive(Clone, Debug)]
pub(crate) struct NativeConfig {
    pub(crate) launcher_exe: PathBuf,
    pub(crate) spare_slots: usize,
    /// The directory that holds the root file systems of images, one below it each.
    pub(crate) images_dir: Option<PathBuf>,
    /// Lasting sandboxes of an earlier server, which are to be left alone.
    pub(crate) lasting: Vec<(SandboxId, Option<SandboxRecord>)>,
}

/// Why there is no native runtime.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NativeStartError {
    /// This host or user cannot have it; the text is for capabilities.
    #[error("{0}")]
    Unavailable(String),
    /// It should work and does not.
    #[error(transparent)]
    Start(#[from] StartError),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StartError + '_ {
    move |source| StartError::Io { path: path.to_owned(), source }
}

impl NativeExecutor {
    /// Clears up after an earlier gateway of this data directory, and starts the launcher.
    pub(crate) async fn start(data_dir: &DataDir, config: NativeConfig) -> Result<Self, NativeStartError> {
        let root = rustix::process::geteuid().is_root();
        let native = data_dir.private("native")?;
        let plan = cgroups(root, &layout::mark(data_dir.gateway_id().as_str())).await?;
        let subordinate = (!root).then(|| {
            let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            (uid, gid, Subordinate::find(uid, gid))
        });
        let ids = match &subordinate {
            None => IdMode::OwnRanges,
            Some((uid, gid, further)) => {
                let further = further.as_ref().map_or(0, |range| range.count);
                IdMode::OfUser { uid: *uid, gid: *gid, further }
            }
        };
        let setup = LauncherSetup {
            mount_point: data_dir.private("native/mnt")?,
            agent_dir: agent_binary::install(&native)?,
            images_dir: config.images_dir,
            ids,
            cgroups: plan.as_ref().ok().map(|(plan, _)| plan.clone()),
        };
        let (ids, subordinate) = match subordinate {
            None => (IdSupport::OwnRanges, None),
            Some((_, _, Ok(range))) => (IdSupport::Range(range.count), Some(range)),
            Some((_, _, Err(reason))) => (IdSupport::One(reason), None),
        };
        let launcher = LauncherConfig { exe: config.launcher_exe, setup, subordinate };
        let cgroups = plan.map(|(_, host)| host);
        let reserved = if root { reserved_ids()? } else { Vec::new() };
        let started =
            Slots::start(launcher, cgroups.as_ref().ok().cloned(), config.spare_slots, &reserved).await;
        let slots = match started {
            Ok(slots) => slots,
            Err(error) => {
                cgroups.iter().for_each(|cgroups| remove_roots(cgroups));
                return Err(NativeStartError::Unavailable(error.to_string()));
            }
        };
        let disks = match root {
            false => DiskSupport::Memory,
            true => match Disks::probe(native.join("disks")) {
                Ok(disks) => DiskSupport::Loop(disks),
                Err(reason) => DiskSupport::None(reason),
            },
        };
        let watchdog = Watchdog::default();
        tokio::spawn(watchdog.clone().run());
        Ok(Self { slots, cgroups, ids, disks, watchdog })
    }

    /// Ends the launcher and all slots, and removes what the gateway has on the host.
    pub(crate) async fn stop(&self) {
        self.slots.stop().await;
        // A launcher that died left its slots' cgroups.
        if let Ok(cgroups) = &self.cgroups {
            if let Err(error) = sweep(Arc::clone(cgroups)).await {
                tracing::error!(%error, "cgroups could not be cleared");
            }
            remove_roots(cgroups);
        }
    }

    fn refuse(operation: &str, reason: impl Into<String>) -> SandboxError {
        Unsupported { runtime: Runtime::Native, operation: operation.to_owned(), reason: reason.into() }
            .into()
    }

    fn limits(&self) -> LimitsSupport {
        let disk = match &self.disks {
            DiskSupport::Loop(_) => LimitSupport::yes(
                "ext4 on a loop device; a tmpfs within the memory limit where none is asked for",
            ),
            DiskSupport::Memory => LimitSupport::yes("a tmpfs of that size, which takes memory"),
            DiskSupport::None(reason) => LimitSupport::no(reason.clone()),
        };
        match &self.cgroups {
            Ok(cgroups) => {
                let how = || LimitSupport::yes(cgroups.describe());
                LimitsSupport { memory: how(), cpu: how(), pids: how(), disk }
            }
            Err(reason) => LimitsSupport {
                memory: LimitSupport::no(format!("each process is limited alone (RLIMIT_DATA): {reason}")),
                cpu: LimitSupport::no(reason.clone()),
                pids: match self.ids {
                    IdSupport::One(_) => LimitSupport::yes("RLIMIT_NPROC in a user namespace with one id"),
                    IdSupport::OwnRanges | IdSupport::Range(_) => LimitSupport::no(format!(
                        "each user of the sandbox is limited alone (RLIMIT_NPROC): {reason}"
                    )),
                },
                disk,
            },
        }
    }

    /// The most bytes of a sandbox's memory that its files may take where it has no disk of its own: half, so that a
    /// full file system is an ENOSPC and not an OOM kill.
    fn tmpfs_bytes(memory_bytes: u64) -> u64 {
        memory_bytes / 2 / 4096 * 4096
    }

    /// Why this backend cannot make the sandbox, if so; its image, should it be one of the store's, aside.
    async fn refusal(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        if spec.network == Network::Egress {
            return Err(Self::refuse("network egress", NO_EGRESS));
        }
        if let (Some(_), DiskSupport::None(reason)) = (spec.limits.disk_bytes, &self.disks) {
            return Err(Self::refuse("disk_mb", reason.clone()));
        }
        if spec.image != HOST_IMAGE
            && let Some(reason) = self.slots.no_images().await
        {
            return Err(Self::refuse("OCI images", reason));
        }
        Ok(())
    }

    async fn create_in_slot(
        &self,
        spec: &SandboxSpec,
        image: &ImageUse,
    ) -> Result<SandboxHandle, SandboxError> {
        let slot = self.slots.claim().await.map_err(|error| match error {
            SlotError::Park(failure) => create_error(failure),
            // All of them may be over in a moment.
            SlotError::Exhausted
            | SlotError::Launcher(_)
            | SlotError::Cgroup(_)
            | SlotError::Ended
            | SlotError::Closed => {
                tracing::warn!(%error, "no slot");
                SandboxError::Exhausted { reason: error.to_string() }
            }
        })?;
        let sockets = || {
            let (here, there) = UnixStream::pair()?;
            Ok((AgentStream::from_socket(here)?, there))
        };
        let (agent, there) = sockets()
            .map_err(|source| SandboxError::Create { step: "make a socket pair".to_owned(), source })?;
        let made = self.order(&slot, spec, image, there).await.and_then(|(init_pid, pidfd, disk)| {
            let again = pidfd
                .try_clone()
                .map_err(|source| SandboxError::Create { step: "watch a sandbox".to_owned(), source })?;
            let watched = self.watchdog.watch(init_pid, again, spec.limits.memory_bytes);
            Ok((init_pid, pidfd, disk, watched))
        });
        match made {
            Ok((init_pid, pidfd, disk, watched)) => Ok(SandboxHandle {
                id: spec.id.clone(),
                image: image.defaults.clone(),
                agent: Some(agent),
                backend: BackendHandle::Native(NativeHandle {
                    slot,
                    init_pid,
                    pidfd,
                    _disk: disk,
                    watched,
                    _image: spec.stored.clone(),
                }),
            }),
            Err(error) => {
                // Nothing is known of what the slot holds now.
                self.slots.forget(slot);
                Err(error)
            }
        }
    }

    async fn order(
        &self,
        slot: &Slot,
        spec: &SandboxSpec,
        image: &ImageUse,
        agent: UnixStream,
    ) -> Result<(u32, OwnedFd, Option<Arc<Promise>>), SandboxError> {
        if let Some(cgroup) = &slot.cgroup {
            cgroup.begin().map_err(|error| match error.source.raw_os_error() {
                // Its directory is gone, perhaps between opening a file and reading it (ENODEV): so is the slot.
                Some(libc::ENOENT | libc::ENODEV) => SandboxError::Create {
                    step: "begin with a slot".to_owned(),
                    source: io::Error::new(io::ErrorKind::UnexpectedEof, error.to_string()),
                },
                _ => cgroup_error(error),
            })?;
        }
        let memory_bytes = spec.limits.memory_bytes;
        let (disk, tmpfs_bytes) = match (spec.limits.disk_bytes, &self.disks) {
            (None, _) => (None, Some(Self::tmpfs_bytes(memory_bytes))),
            (Some(bytes), DiskSupport::Memory) => (None, Some(bytes)),
            (Some(bytes), DiskSupport::Loop(disks)) => {
                (Some(make_disk(disks, bytes, IdMode::OwnRanges.of_slot(slot.number).base).await?), None)
            }
            (Some(_), DiskSupport::None(reason)) => return Err(Self::refuse("disk_mb", reason.clone())),
        };
        let order = SandboxOrder {
            hostname: spec.id.as_str().to_owned(),
            machine_id: uuid::Uuid::new_v4().simple().to_string(),
            memory_bytes,
            cpu_millicores: spec.limits.cpu_millicores,
            pids: spec.limits.pids,
            tmpfs_bytes,
            shm_bytes: (64 << 20).min(Self::tmpfs_bytes(memory_bytes)),
            keep_sockets_small: slot.cgroup.as_ref().is_none_or(|cgroup| cgroup.birth_place().is_none()),
            image: image.order.clone(),
        };
        let (mount, promise) = disk.map_or((None, None), |(mount, promise)| (Some(mount), Some(promise)));
        let fds: Vec<_> = std::iter::once(agent.as_fd()).chain(mount.as_ref().map(|d| d.as_fd())).collect();
        let talk = |source| SandboxError::Create { step: "talk to a slot".to_owned(), source };
        slot.socket.send(&order, &fds).await.map_err(talk)?;
        match slot.socket.receive::<SlotReply>().await.map_err(talk)? {
            Some((SlotReply::Created { pid }, mut fds)) => match fds.pop() {
                Some(pidfd) => Ok((pid, pidfd, promise)),
                None => Err(talk(io::Error::new(io::ErrorKind::InvalidData, "no pidfd came with a sandbox"))),
            },
            Some((SlotReply::Failed(failure), _)) => Err(create_error(failure)),
            Some((SlotReply::Parked, _)) => Err(talk(io::ErrorKind::InvalidData.into())),
            None => Err(talk(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

async fn make_disk(disks: &Disks, bytes: u64, owner: u32) -> Result<(OwnedFd, Arc<Promise>), SandboxError> {
    if bytes < MIN_BYTES {
        let reason = format!("the smallest disk has {} MiB", MIN_BYTES >> 20);
        return Err(NativeExecutor::refuse("disk_mb", reason));
    }
    let failed = |error: DiskError| match error.source.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            tracing::warn!(%error, "no room for a disk");
            SandboxError::NoSpace { reason: format!("the host has no {} MiB left for disk_mb", bytes >> 20) }
        }
        _ => SandboxError::Create { step: format!("make a disk: {error}"), source: error.source },
    };
    let disks = disks.clone();
    match tokio::task::spawn_blocking(move || disks.make(bytes, owner)).await {
        Ok(made) => made.map_err(failed),
        Err(error) => {
            Err(SandboxError::Create { step: "make a disk".to_owned(), source: io::Error::other(error) })
        }
    }
}

fn cgroup_error(error: CgroupFileError) -> SandboxError {
    let source = io::Error::new(error.source.kind(), error.to_string());
    SandboxError::Io { path: PathBuf::from("/sys/fs/cgroup"), source }
}

/// The gateway's cgroups, with what an earlier gateway left in them removed; or why there are none. Root has no excuse.
async fn cgroups(
    root: bool,
    mark: &str,
) -> Result<Result<(CgroupPlan, Arc<CgroupHost>), String>, NativeStartError> {
    let opened = CgroupPlan::find(root, mark).and_then(|plan| Ok((CgroupHost::open(&plan)?, plan)));
    match opened {
        Ok((host, plan)) => {
            let host = Arc::new(host);
            sweep(Arc::clone(&host)).await?;
            Ok(Ok((plan, host)))
        }
        Err(error) if root => {
            Err(NativeStartError::Unavailable(format!("limits cannot be enforced: {error}")))
        }
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// Ids that the host has given to its users.
fn reserved_ids() -> Result<Vec<(u64, u64)>, StartError> {
    let mut reserved = Vec::new();
    for path in ["/etc/subuid", "/etc/subgid"] {
        match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => {
                let text = other.map_err(at(Path::new(path)))?;
                reserved.extend(layout::subordinate_ranges(&text).map(|range| (range.start, range.count)));
            }
        }
    }
    Ok(reserved)
}

/// How often a sandbox that is being paused is looked at, and for how long.
const FREEZE_STEP: Duration = Duration::from_millis(1);
const FREEZE_WITHIN: Duration = Duration::from_secs(10);

fn handle(sandbox: &SandboxHandle) -> Result<&NativeHandle, SandboxError> {
    match &sandbox.backend {
        BackendHandle::Native(handle) => Ok(handle),
        #[cfg(feature = "docker")]
        BackendHandle::Docker(_) => Err(foreign()),
    }
}

#[cfg(feature = "docker")]
fn foreign() -> SandboxError {
    SandboxError::Lost { reason: "it is a sandbox of another runtime".to_owned() }
}

/// What can pause the sandbox.
fn freezer(sandbox: &SandboxHandle) -> Result<&SlotCgroup, SandboxError> {
    let none = "it takes cgroup v2, or cgroup v1 with a v2 tree beside it, and the gateway has none";
    handle(sandbox)?.slot.cgroup.as_ref().ok_or_else(|| NativeExecutor::refuse("pause", none))
}

fn freezer_error(error: CgroupFileError) -> SandboxError {
    match error.source.kind() {
        io::ErrorKind::NotFound => NativeExecutor::refuse("pause", "this host has no cgroup v2 tree"),
        _ => cgroup_error(error),
    }
}

/// How many slots are asked for one sandbox: more than ever stand ready.
const MAX_TRIES: u32 = 1024;

/// Whether an error says that a slot is of no use: its process is gone, or its memory limit cannot be lowered.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ResourceBusy
    )
}

fn create_error(failure: Failure) -> SandboxError {
    SandboxError::Create { source: io::Error::from_raw_os_error(failure.errno), step: failure.step }
}

fn remove_roots(cgroups: &CgroupHost) {
    if let Err(error) = cgroups.remove_roots() {
        tracing::error!(%error, "the gateway's cgroups could not be removed");
    }
}

/// Kills and removes what an earlier gateway of this data directory left in its cgroups.
async fn sweep(cgroups: Arc<CgroupHost>) -> Result<(), StartError> {
    let swept = tokio::task::spawn_blocking(move || {
        let slots = cgroups.slots()?;
        slots.iter().try_for_each(|slot| cgroups.destroy_slot(*slot))?;
        Ok::<_, io::Error>(slots.len())
    })
    .await;
    let path = Path::new("/sys/fs/cgroup");
    match swept.map_err(|error| at(path)(io::Error::other(error)))?.map_err(at(path))? {
        0 => {}
        count => tracing::warn!(count, "removed what an earlier gateway left in its slots"),
    }
    Ok(())
}

/// What an image says of programs, and what of it a slot has to know.
struct ImageUse {
    defaults: ImageDefaults,
    order: Option<ImageOrder>,
}

/// The image of a sandbox.
fn image_of(spec: &SandboxSpec) -> Result<ImageUse, SandboxError> {
    let unavailable = |reason: String| SandboxError::ImageUnavailable { image: spec.image.clone(), reason };
    if spec.image == HOST_IMAGE {
        let path = ("PATH".to_owned(), host_image::PATH.to_owned());
        let defaults = ImageDefaults { env: vec![path], ..ImageDefaults::default() };
        return Ok(ImageUse { defaults, order: None });
    }
    let lease = spec.stored.as_ref().ok_or_else(|| unavailable("it is not in the image store".to_owned()))?;
    // The directory of an image is named for it, and all are in the directory that the launcher has.
    let rootfs = lease.rootfs().components().rev().take(2).collect::<Vec<_>>();
    let rootfs: PathBuf = rootfs.into_iter().rev().collect();
    let rootfs =
        rootfs.into_os_string().into_string().map_err(|_| unavailable("its path is not text".to_owned()))?;
    let config = lease.config();
    let working_dir = Some(config.working_dir.clone());
    let defaults = ImageDefaults {
        env: config.env.clone(),
        working_dir: working_dir.clone(),
        user: Some(config.user.clone()).filter(|user| !user.is_empty()),
    };
    let order = Some(ImageOrder { rootfs, working_dir });
    Ok(ImageUse { defaults, order })
}

impl SandboxExecutor for NativeExecutor {
    fn runtime(&self) -> Runtime {
        Runtime::Native
    }

    async fn capabilities(&self) -> RuntimeCapabilities {
        let landlock = match launcher::landlock::abi_version() {
            0 => {
                LimitSupport::no("the kernel has no landlock, or it is not among its active security modules")
            }
            abi => LimitSupport::yes(format!("ABI {abi}")),
        };
        let rootless = match self.ids {
            IdSupport::OwnRanges => LimitSupport::no("the server runs as root"),
            IdSupport::Range(_) | IdSupport::One(_) => {
                LimitSupport::yes("the server runs as an ordinary user")
            }
        };
        let ids = match &self.ids {
            IdSupport::OwnRanges => LimitSupport::yes("65536 ids, no other sandbox's"),
            IdSupport::Range(count) => LimitSupport::yes(format!("{count} ids, shared by the sandboxes")),
            IdSupport::One(reason) => LimitSupport::no(format!("root alone is there: {reason}")),
        };
        let images = match self.slots.no_images().await {
            Some(reason) => LimitSupport::no(reason),
            None => LimitSupport::yes("OCI images, and the image host"),
        };
        let broken = self.slots.broken();
        RuntimeCapabilities {
            available: broken.is_none(),
            reason: broken,
            features: BTreeMap::from([
                ("landlock".to_owned(), landlock),
                ("images".to_owned(), images),
                ("network_egress".to_owned(), LimitSupport::no(NO_EGRESS)),
                ("rootless".to_owned(), rootless),
                ("users".to_owned(), ids),
            ]),
            limits: self.limits(),
        }
    }

    async fn check(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        self.refusal(spec).await
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<SandboxHandle, SandboxError> {
        self.refusal(spec).await?;
        let image = image_of(spec)?;
        // A slot can have died since it was parked, or hold memory of the sandbox before: then another is asked.
        let mut tries = 0;
        loop {
            match self.create_in_slot(spec, &image).await {
                Err(SandboxError::Create { source, .. }) if is_gone(&source) && tries < MAX_TRIES => {
                    tries += 1
                }
                other => return other,
            }
        }
    }

    async fn connect(&self, sandbox: &SandboxHandle) -> Result<AgentStream, SandboxError> {
        let NativeHandle { init_pid: pid, pidfd, .. } = handle(sandbox)?;
        let pid = *pid;
        let connected = tokio::task::spawn_blocking(move || connect::connect(pid)).await;
        // Sent to the pidfd, so it fails when the PID may have been somebody else's.
        let lost = |reason: String| SandboxError::Lost { reason };
        let alive = rustix::event::poll(
            &mut [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)],
            Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }),
        );
        match alive {
            Ok(0) => {}
            Ok(_) => return Err(lost("its first process has ended".to_owned())),
            Err(error) => return Err(lost(error.to_string())),
        }
        match connected {
            Ok(Ok(socket)) => AgentStream::from_socket(socket)
                .map_err(|error| lost(format!("its agent cannot be reached: {error}"))),
            Ok(Err(error)) => Err(lost(format!("its agent cannot be reached: {error}"))),
            Err(error) => Err(lost(format!("its agent cannot be reached: {error}"))),
        }
    }

    async fn account(&self, sandbox: &SandboxHandle) -> Result<Account, SandboxError> {
        let handle = handle(sandbox)?;
        let killed = handle.watched.was_killed();
        match &handle.slot.cgroup {
            Some(cgroup) => {
                let kills = cgroup.oom_kills().map_err(cgroup_error)?;
                Ok(Account { oom_kills: Some(kills + u64::from(killed)), usage: cgroup.usage() })
            }
            None => Ok(Account { oom_kills: killed.then_some(1), ..Account::default() }),
        }
    }

    async fn pause(&self, sandbox: &SandboxHandle) -> Result<(), SandboxError> {
        let cgroup = freezer(sandbox)?;
        cgroup.freeze(true).map_err(freezer_error)?;
        let stopped = async {
            while !cgroup.is_frozen().map_err(freezer_error)? {
                tokio::time::sleep(FREEZE_STEP).await;
            }
            Ok(())
        };
        match tokio::time::timeout(FREEZE_WITHIN, stopped).await {
            Ok(stopped) => stopped,
            Err(_elapsed) => {
                cgroup.freeze(false).map_err(freezer_error)?;
                Err(Self::refuse("pause", "its processes do not come to a stop"))
            }
        }
    }

    async fn resume(&self, sandbox: &SandboxHandle) -> Result<(), SandboxError> {
        freezer(sandbox)?.freeze(false).map_err(freezer_error)
    }

    async fn destroy(&self, sandbox: SandboxHandle) -> Result<(), SandboxError> {
        let SandboxHandle { id, backend, .. } = sandbox;
        let NativeHandle { mut slot, pidfd, .. } = match backend {
            BackendHandle::Native(handle) => handle,
            #[cfg(feature = "docker")]
            BackendHandle::Docker(_) => return Err(foreign()),
        };
        let failed =
            |step: &str, source: io::Error| SandboxError::Create { step: format!("{step} {id}"), source };
        let ended = async {
            match rustix::process::pidfd_send_signal(&pidfd, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(failed("kill", error.into())),
            }
            // pidfd_open(2): readable when the process has ended; init ends after all others of its namespace.
            let pidfd = socket::watch(pidfd).map_err(|error| failed("watch", error))?;
            pidfd.readable().await.map(|_ready| ()).map_err(|error| failed("wait for", error))
        };
        match ended.await {
            Ok(()) => {
                if settle(&mut slot).await {
                    self.slots.release(slot);
                } else {
                    self.slots.forget(slot);
                }
                Ok(())
            }
            failed => {
                self.slots.forget(slot);
                failed
            }
        }
    }

    async fn lift_cpu_limit(&self, sandbox: &SandboxHandle) -> Result<(), SandboxError> {
        let handle = handle(sandbox)?;
        match &handle.slot.cgroup {
            Some(cgroup) => cgroup.lift_cpu_limit().map_err(cgroup_error),
            None => Ok(()),
        }
    }

    fn record(&self, _sandbox: &SandboxHandle) -> Result<SandboxRecord, SandboxError> {
        Err(Self::refuse("lasting sandboxes", "this version has none"))
    }

    async fn keep(&self, _sandbox: &SandboxHandle) -> Result<(), SandboxError> {
        Err(Self::refuse("lasting sandboxes", "this version has none"))
    }

    async fn adopt(&self, _spec: &SandboxSpec, _record: &SandboxRecord) -> Result<Found, SandboxError> {
        Err(Self::refuse("lasting sandboxes", "this version has none"))
    }

    async fn halt(&self, _sandbox: SandboxHandle) -> Result<SandboxRecord, SandboxError> {
        Err(Self::refuse("lasting sandboxes", "this version has none"))
    }

    async fn revive(
        &self,
        _spec: &SandboxSpec,
        _record: &SandboxRecord,
    ) -> Result<SandboxHandle, SandboxError> {
        Err(Self::refuse("lasting sandboxes", "this version has none"))
    }

    async fn remove(&self, _id: &SandboxId, _record: Option<&SandboxRecord>) -> Result<(), SandboxError> {
        Err(Self::refuse("lasting sandboxes", "this version has none"))
    }

    async fn set_limits(&self, _sandbox: &SandboxHandle, _limits: &Limits) -> Result<(), SandboxError> {
        Err(Self::refuse("lasting sandboxes", "this version has none"))
    }

    fn ended(&self, _sandbox: &SandboxHandle) -> Result<Ended, SandboxError> {
        Err(Self::refuse("lasting sandboxes", "this version has none"))
    }

    async fn measure(&self, _sandbox: &SandboxHandle) -> Result<Measures, SandboxError> {
        Err(Self::refuse("lasting sandboxes", "this version has none"))
    }

    async fn leaks(&self, _lasting: &BTreeSet<SandboxId>) -> Result<Vec<Leak>, SandboxError> {
        Err(Self::refuse("lasting sandboxes", "this version has none"))
    }
}

/// The most memory that may be charged to a slot when the next sandbox comes.
const SETTLED_BYTES: u64 = 16 << 20;

/// How often a slot is looked at while the kernel frees what its sandbox had, and how long apart.
const SETTLE_TRIES: u32 = 50;
const SETTLE_STEP: Duration = Duration::from_millis(20);

/// Waits until the memory of the sandbox that was in a slot is free again: the kernel does some of it later (shared
/// memory, mounts), and files that were read stay in its cache. Whether the slot is fit for another.
async fn settle(slot: &mut Slot) -> bool {
    for _ in 0..SETTLE_TRIES {
        let Some(cgroup) = &slot.cgroup else { return true };
        match cgroup.memory_now() {
            Ok(bytes) if bytes <= SETTLED_BYTES => return true,
            Ok(bytes) => {
                let Some(cgroup) = slot.cgroup.take() else { return true };
                let reclaimed = tokio::task::spawn_blocking(move || {
                    let reclaimed = cgroup.reclaim(bytes - SETTLED_BYTES);
                    (cgroup, reclaimed)
                });
                match reclaimed.await {
                    Ok((cgroup, reclaimed)) => {
                        slot.cgroup = Some(cgroup);
                        if reclaimed.is_err() {
                            return false;
                        }
                    }
                    Err(_) => return false,
                }
            }
            Err(_) => return false,
        }
        tokio::time::sleep(SETTLE_STEP).await;
    }
    false
}

/// Why there is no egress.
const NO_EGRESS: &str =
    "the native runtime of this version gives a sandbox loopback only; ask for network \"none\"";
