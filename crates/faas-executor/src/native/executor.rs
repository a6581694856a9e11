//! `NativeExecutor`: the native runtime behind the seam.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use faas_types::{LimitSupport, LimitsSupport, Network, Runtime, RuntimeCapabilities, SandboxId};

use super::cgroup::{CgroupFileError, CgroupHost, LimitsError, SlotCgroup};
use super::claimed::Claimed;
use super::disk::{DiskError, Disks, MIN_BYTES, Promise};
use super::host_image;
use super::lasting::files::Files;
use super::lasting::record;
use super::lasting::registry::Registry;
use super::lasting::{LastingPart, NO_LASTING_LIMIT, Prepared, ended, kill_and_wait};
use super::launcher::message::{ImageOrder, LastingOrder, MAX_PATH_BYTES, SandboxOrder, SlotReply};
use super::launcher::{self, Failure};
use super::layout::IdMode;
use super::settle::settle;
use super::slots::{Slot, SlotError, Slots};
use super::watchdog::{Watchdog, Watched};
use crate::guest::{AgentStream, connect};
use crate::images::{ImageConfig, ImageLease};
use crate::sandbox::{
    Account, BackendHandle, Ended, Found, HOST_IMAGE, ImageDefaults, Leak, Lifetime, Limits, Measures,
    SandboxError, SandboxExecutor, SandboxHandle, SandboxRecord, SandboxSpec, Unsupported,
};

/// The part of a sandbox's handle that is this backend's.
#[derive(Debug)]
pub struct NativeHandle {
    pub(super) slot: Slot,
    /// PID of the sandbox's `init` as this host sees it, and the pidfd that makes it unmistakable.
    pub(super) init_pid: u32,
    pub(super) pidfd: OwnedFd,
    /// The room of its disk, where it has one that ends with it.
    _disk: Option<Arc<Promise>>,
    watched: Arc<Watched>,
    /// Keeps its image where it is.
    pub(super) image: Option<ImageLease>,
    /// What it may use now.
    limits: Mutex<Limits>,
    /// Whether it was ever told to stop where it is: then its slot may be stopped still.
    was_paused: AtomicBool,
    /// What is to be known of it where it lasts.
    pub(super) lasting: Option<LastingPart>,
}

impl NativeHandle {
    /// One that an earlier server made.
    pub(super) fn adopted(
        slot: Slot,
        init_pid: u32,
        pidfd: OwnedFd,
        watched: Arc<Watched>,
        spec: &SandboxSpec,
        paused: bool,
        part: LastingPart,
    ) -> Self {
        Self {
            slot,
            init_pid,
            pidfd,
            _disk: None,
            watched,
            image: spec.stored.clone(),
            limits: Mutex::new(spec.limits),
            was_paused: AtomicBool::new(paused),
            lasting: Some(part),
        }
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        // No code panics while it holds the lock halfway through a change.
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle taken apart, to be ended.
pub(super) struct Parts {
    pub(super) id: SandboxId,
    pub(super) native: NativeHandle,
}

impl Parts {
    pub(super) fn of(sandbox: SandboxHandle) -> Result<Self, SandboxError> {
        match sandbox.backend {
            BackendHandle::Native(native) => Ok(Self { id: sandbox.id, native }),
            #[cfg(feature = "docker")]
            BackendHandle::Docker(_) => Err(foreign()),
        }
    }
}

/// Makes native sandboxes.
#[derive(Debug)]
pub struct NativeExecutor {
    pub(super) slots: Arc<Slots>,
    /// Without them there is a reason why.
    pub(super) cgroups: Result<Arc<CgroupHost>, String>,
    /// What a sandbox has for ids.
    pub(super) ids: IdSupport,
    pub(super) disks: DiskSupport,
    pub(super) watchdog: Watchdog,
    /// The files of lasting sandboxes, and what is known of these.
    pub(super) files: Arc<Files>,
    pub(super) lasting: Arc<Registry>,
    /// The host's boot.
    pub(super) boot_id: String,
}

/// Which ids sandboxes have, for capabilities.
#[derive(Debug)]
pub(super) enum IdSupport {
    OwnRanges,
    Range(u32),
    /// One alone, for this reason.
    One(String),
}

/// Where a sandbox with a disk limit has its file system.
#[derive(Debug)]
pub(super) enum DiskSupport {
    Loop(Disks),
    /// In a tmpfs of that size.
    Memory,
    None(String),
}

impl NativeExecutor {
    pub(super) fn refuse(operation: &str, reason: impl Into<String>) -> SandboxError {
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
    pub(super) async fn refusal(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        if spec.lifetime == Lifetime::Lasting {
            self.lasting_refusal(spec)?;
        }
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

    /// Makes a sandbox, with files that last or with none.
    pub(super) async fn create_with(
        &self,
        spec: &SandboxSpec,
        image: &ImageUse,
        files: Option<&Prepared>,
    ) -> Result<SandboxHandle, SandboxError> {
        // A slot can have died since it was parked, or hold memory of the sandbox before: then another is asked.
        let mut others = self.slots.at_hand() + NEW_SLOTS;
        loop {
            match self.create_in_slot(spec, image, files).await {
                Err(SandboxError::Create { source, .. }) if is_gone(&source) && others > 0 => others -= 1,
                other => return other,
            }
        }
    }

    async fn create_in_slot(
        &self,
        spec: &SandboxSpec,
        image: &ImageUse,
        files: Option<&Prepared>,
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
        let claimed = Claimed::new(&self.slots, slot);
        let ordered = self.order(&claimed, spec, image, files, there).await;
        // Nothing is waited for from here on.
        let Some(slot) = claimed.take() else { return Err(no_slot()) };
        let made = ordered.and_then(|(init_pid, pidfd, disk)| {
            let again = pidfd
                .try_clone()
                .map_err(|source| SandboxError::Create { step: "watch a sandbox".to_owned(), source })?;
            let watched = self.watchdog.watch(init_pid, again, spec.limits.memory_bytes, slot.cgroup.clone());
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
                    image: spec.stored.clone(),
                    limits: Mutex::new(spec.limits),
                    was_paused: AtomicBool::new(false),
                    lasting: None,
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
        claimed: &Claimed,
        spec: &SandboxSpec,
        image: &ImageUse,
        files: Option<&Prepared>,
        agent: UnixStream,
    ) -> Result<(u32, OwnedFd, Option<Arc<Promise>>), SandboxError> {
        let slot = claimed.slot().ok_or_else(no_slot)?;
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
        let (mount, promise, tmpfs_bytes) = match (files, spec.limits.disk_bytes, &self.disks) {
            (Some(files), _, _) => {
                let mount = files.mount().map_err(|error| disk_error(error, spec.limits.disk_bytes))?;
                (mount, None, None)
            }
            (None, None, _) => (None, None, Some(Self::tmpfs_bytes(memory_bytes))),
            (None, Some(bytes), DiskSupport::Memory) => (None, None, Some(bytes)),
            (None, Some(bytes), DiskSupport::Loop(disks)) => {
                let owner = IdMode::OwnRanges.of_slot(slot.number).base;
                let (mount, promise) = make_disk(disks, bytes, owner).await?;
                (Some(mount), Some(promise), None)
            }
            (None, Some(_), DiskSupport::None(reason)) => {
                return Err(Self::refuse("disk_mb", reason.clone()));
            }
        };
        let order = SandboxOrder {
            hostname: spec.id.as_str().to_owned(),
            machine_id: uuid::Uuid::new_v4().simple().to_string(),
            memory_bytes,
            cpu_millicores: spec.limits.cpu_millicores,
            pids: spec.limits.pids,
            tmpfs_bytes,
            lasting: files.map(|files| LastingOrder { directory: files.directory(), again: files.again }),
            shm_bytes: (64 << 20).min(Self::tmpfs_bytes(memory_bytes)),
            keep_sockets_small: slot.cgroup.as_ref().is_none_or(|cgroup| cgroup.birth_place().is_none()),
            image: image.order.clone(),
        };
        let fds: Vec<_> = std::iter::once(agent.as_fd()).chain(mount.as_ref().map(|d| d.as_fd())).collect();
        let talk = |source| SandboxError::Create { step: "talk to a slot".to_owned(), source };
        let socket = slot.socket().map_err(talk)?;
        claimed.is_asked();
        socket.send(&order, &fds).await.map_err(talk)?;
        match socket.receive::<SlotReply>().await.map_err(talk)? {
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

/// A slot that is given an order is there.
fn no_slot() -> SandboxError {
    SandboxError::Exhausted { reason: "the slot was given away".to_owned() }
}

async fn make_disk(disks: &Disks, bytes: u64, owner: u32) -> Result<(OwnedFd, Arc<Promise>), SandboxError> {
    if bytes < MIN_BYTES {
        let reason = format!("the smallest disk has {} MiB", MIN_BYTES >> 20);
        return Err(NativeExecutor::refuse("disk_mb", reason));
    }
    let failed = |error| disk_error(error, Some(bytes));
    let disks = disks.clone();
    match tokio::task::spawn_blocking(move || disks.make(bytes, owner)).await {
        Ok(made) => made.map_err(failed),
        Err(error) => {
            Err(SandboxError::Create { step: "make a disk".to_owned(), source: io::Error::other(error) })
        }
    }
}

/// A disk of so many bytes, if a size was asked for, could not be had.
pub(super) fn disk_error(error: DiskError, asked: Option<u64>) -> SandboxError {
    match (error.source.raw_os_error(), asked) {
        (Some(libc::ENOSPC | libc::EDQUOT), asked) => {
            tracing::warn!(%error, "no room for a disk");
            let reason = match asked {
                Some(bytes) => format!("the host has no {} MiB left for disk_mb", bytes >> 20),
                None => "the host's disk is full".to_owned(),
            };
            SandboxError::NoSpace { reason }
        }
        _ => SandboxError::Create { step: format!("make a disk: {error}"), source: error.source },
    }
}

pub(super) fn cgroup_error(error: CgroupFileError) -> SandboxError {
    let source = io::Error::new(error.source.kind(), error.to_string());
    SandboxError::Io { path: PathBuf::from("/sys/fs/cgroup"), source }
}

/// How often a sandbox that is being paused is looked at, and for how long.
const FREEZE_STEP: Duration = Duration::from_millis(1);

/// How long an agent may take until it listens, the first one or the one after one that was killed, and how often is looked.
const AGENT_WITHIN: Duration = Duration::from_secs(5);
const FREEZE_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn handle(sandbox: &SandboxHandle) -> Result<&NativeHandle, SandboxError> {
    match &sandbox.backend {
        BackendHandle::Native(handle) => Ok(handle),
        #[cfg(feature = "docker")]
        BackendHandle::Docker(_) => Err(foreign()),
    }
}

pub(super) fn foreign() -> SandboxError {
    SandboxError::Lost { reason: "it is a sandbox of another runtime".to_owned() }
}

/// What can pause the sandbox.
fn freezer(sandbox: &SandboxHandle) -> Result<&SlotCgroup, SandboxError> {
    let none = "it takes cgroup v2, or cgroup v1 with a v2 tree beside it, and the gateway has none";
    handle(sandbox)?.slot.cgroup.as_deref().ok_or_else(|| NativeExecutor::refuse("pause", none))
}

fn freezer_error(error: CgroupFileError) -> SandboxError {
    match error.source.kind() {
        io::ErrorKind::NotFound => NativeExecutor::refuse("pause", "this host has no cgroup v2 tree"),
        _ => cgroup_error(error),
    }
}

/// How many slots are asked for one sandbox besides those that may stand ready: what ends a slot that was just made is
/// the request, if it is not the host.
const NEW_SLOTS: usize = 8;

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

/// What an image says of programs, and what of it a slot has to know.
pub(super) struct ImageUse {
    pub(super) defaults: ImageDefaults,
    order: Option<ImageOrder>,
}

/// The longest user: two names (LOGIN_NAME_MAX of Linux, less its NUL byte) and what joins them.
const MAX_USER_BYTES: usize = 255 + 1 + 255;

/// The image of a sandbox.
pub(super) fn image_of(spec: &SandboxSpec) -> Result<ImageUse, SandboxError> {
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
    image_use(lease.config(), rootfs).map_err(unavailable)
}

/// The same by its configuration; the error says what no sandbox can have.
fn image_use(config: &ImageConfig, rootfs: String) -> Result<ImageUse, String> {
    let length = config.working_dir.len();
    if length > MAX_PATH_BYTES {
        return Err(format!("its working directory has {length} bytes; a path has at most {MAX_PATH_BYTES}"));
    }
    let length = config.user.len();
    if length > MAX_USER_BYTES {
        return Err(format!("its user has {length} bytes; a user and a group have at most {MAX_USER_BYTES}"));
    }
    let working_dir = Some(config.working_dir.clone());
    let defaults = ImageDefaults {
        env: config.env.clone(),
        working_dir: working_dir.clone(),
        user: Some(config.user.clone()).filter(|user| !user.is_empty()),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
    };
    let order = Some(ImageOrder { rootfs, working_dir });
    Ok(ImageUse { defaults, order })
}

impl NativeExecutor {
    /// Ends a sandbox, and gives its slot back or up.
    pub(super) async fn end(&self, id: &SandboxId, native: NativeHandle) -> Result<(), SandboxError> {
        let NativeHandle { slot, pidfd, was_paused, image, .. } = native;
        // It is killed at this very moment, and misses no file any more: who was answered can remove the image at once.
        drop(image);
        self.slots.release_kept(&slot).await;
        if let Err(source) = kill_and_wait(pidfd).await {
            self.slots.forget(slot);
            return Err(SandboxError::Create { step: format!("end {id}"), source });
        }
        if slot.is_adopted() {
            self.slots.end_slot(slot.number).await;
            return Ok(());
        }
        // What was stopped there stays so: the slot itself, and whoever comes next.
        let thawed = match (was_paused.into_inner(), &slot.cgroup) {
            (true, Some(cgroup)) => cgroup.freeze(false).is_ok(),
            _ => true,
        };
        if thawed && settle(&slot).await {
            self.slots.release(slot);
        } else {
            self.slots.forget(slot);
        }
        Ok(())
    }
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
        let lasting = match (self.no_lasting(), &self.cgroups) {
            (Err(reason), _) => LimitSupport::no(reason),
            (Ok(()), Ok(_)) => {
                LimitSupport::yes("until it is removed; on a new boot of the host its files are there")
            }
            (Ok(()), Err(_)) => LimitSupport::yes(
                "until it is removed, but it ends when the launcher is killed: there is no cgroup to find it in",
            ),
        };
        let lasting_disk = match &self.disks {
            DiskSupport::Memory => LimitSupport::no(NO_LASTING_LIMIT),
            DiskSupport::Loop(_) => LimitSupport::yes("ext4 on a loop device, with a journal"),
            DiskSupport::None(reason) => LimitSupport::no(reason.clone()),
        };
        let broken = self.slots.broken();
        RuntimeCapabilities {
            available: broken.is_none(),
            reason: broken,
            features: BTreeMap::from([
                ("landlock".to_owned(), landlock),
                ("images".to_owned(), images),
                ("instances".to_owned(), lasting),
                ("lasting_disk_limit".to_owned(), lasting_disk),
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
        match spec.lifetime {
            Lifetime::Server => self.create_with(spec, &image, None).await,
            Lifetime::Lasting => self.create_lasting(spec, &image).await,
        }
    }

    async fn connect(&self, sandbox: &SandboxHandle) -> Result<AgentStream, SandboxError> {
        let NativeHandle { init_pid, pidfd, .. } = handle(sandbox)?;
        connect::reach(*init_pid, AGENT_WITHIN, || record::has_ended(pidfd)).await
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
        handle(sandbox)?.was_paused.store(true, Ordering::Relaxed);
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
        let parts = Parts::of(sandbox)?;
        match &parts.native.lasting {
            None => self.end(&parts.id, parts.native).await,
            Some(_) => self.destroy_lasting(parts).await,
        }
    }

    async fn lift_cpu_limit(&self, sandbox: &SandboxHandle) -> Result<(), SandboxError> {
        let handle = handle(sandbox)?;
        match &handle.slot.cgroup {
            Some(cgroup) => cgroup.lift_cpu_limit().map_err(cgroup_error),
            None => Ok(()),
        }
    }

    fn record(&self, sandbox: &SandboxHandle) -> Result<SandboxRecord, SandboxError> {
        self.lasting_record(sandbox)
    }

    async fn keep(&self, sandbox: &SandboxHandle) -> Result<(), SandboxError> {
        self.keep_lasting(sandbox).await
    }

    async fn adopt(&self, spec: &SandboxSpec, record: &SandboxRecord) -> Result<Found, SandboxError> {
        self.adopt_lasting(spec, record).await
    }

    async fn halt(&self, sandbox: SandboxHandle) -> Result<SandboxRecord, SandboxError> {
        self.halt_lasting(sandbox).await
    }

    async fn revive(
        &self,
        spec: &SandboxSpec,
        record: &SandboxRecord,
    ) -> Result<SandboxHandle, SandboxError> {
        self.revive_lasting(spec, record).await
    }

    async fn remove(&self, id: &SandboxId, record: Option<&SandboxRecord>) -> Result<(), SandboxError> {
        self.remove_lasting(id, record).await
    }

    async fn set_limits(&self, sandbox: &SandboxHandle, limits: &Limits) -> Result<(), SandboxError> {
        let handle = handle(sandbox)?;
        let Some(cgroup) = handle.slot.cgroup.clone() else {
            let none = "without cgroups a sandbox's limits are set once, for each of its processes";
            return Err(Self::refuse("other limits", none));
        };
        let (old, new) = (*handle.limits(), *limits);
        if old.disk_bytes != new.disk_bytes {
            return Err(Self::refuse("another disk_mb", "a disk keeps its size"));
        }
        let changed = tokio::task::spawn_blocking(move || cgroup.change_limits(&old, &new)).await;
        let failed = |source| SandboxError::Create { step: "change limits".to_owned(), source };
        match changed.map_err(|error| failed(io::Error::other(error)))? {
            Ok(()) => {}
            Err(LimitsError::InUse(bytes)) => {
                let mib = bytes.div_ceil(1 << 20);
                let reason = format!("the sandbox holds {mib} MiB of memory");
                return Err(Self::refuse(&format!("a memory_mb of {}", new.memory_bytes >> 20), reason));
            }
            Err(LimitsError::File(error)) => return Err(cgroup_error(error)),
        }
        handle.watched.set_memory_limit(new.memory_bytes);
        *handle.limits() = new;
        Ok(())
    }

    fn ended(&self, sandbox: &SandboxHandle) -> Result<Ended, SandboxError> {
        let handle = handle(sandbox)?;
        ended(&handle.pidfd, &handle.watched)
    }

    async fn measure(&self, sandbox: &SandboxHandle) -> Result<Measures, SandboxError> {
        let handle = handle(sandbox)?;
        let mut measures = Measures::default();
        if let Some(cgroup) = &handle.slot.cgroup {
            let usage = cgroup.usage();
            (measures.cpu_us, measures.memory_peak_bytes) = (usage.cpu_us, usage.memory_peak_bytes);
            measures.memory_bytes = Some(cgroup.memory_now().map_err(cgroup_error)?);
            let own = u64::from(cgroup.counts_its_maker() && handle.slot.has_process());
            measures.pids = Some(cgroup.pids_now().map_err(cgroup_error)?.saturating_sub(own));
        }
        // A directory is on a file system that has others' files too.
        if handle.lasting.is_none() || self.files.on_disks() {
            measures.disk_bytes = disk_bytes(handle).await?;
        }
        Ok(measures)
    }

    async fn leaks(&self, lasting: &BTreeSet<SandboxId>) -> Result<Vec<Leak>, SandboxError> {
        self.find_leaks(lasting).await
    }
}

/// What the files of a sandbox take on a file system of its own: an overlay tells what its upper layer's does
/// (statfs(2)). None of one that has ended. The root of its first process is no path that the sandbox could change.
async fn disk_bytes(handle: &NativeHandle) -> Result<Option<u64>, SandboxError> {
    let path = PathBuf::from(format!("/proc/{}/root", handle.init_pid));
    let told = tokio::task::spawn_blocking({
        let path = path.clone();
        move || rustix::fs::statvfs(path)
    });
    let failed = |source| SandboxError::Io { path, source };
    let told = match told.await {
        Ok(told) => told,
        Err(error) => return Err(failed(io::Error::other(error))),
    };
    // By its pidfd, which tells when the PID may have been somebody else's.
    let ended = record::has_ended(&handle.pidfd);
    match (ended, told) {
        (Ok(true), _) => Ok(None),
        (Err(error), _) => Err(failed(error)),
        (Ok(false), Ok(told)) => {
            Ok(Some(told.f_blocks.saturating_sub(told.f_bfree).saturating_mul(told.f_frsize)))
        }
        (Ok(false), Err(error)) => Err(failed(error.into())),
    }
}

/// Why there is no egress.
const NO_EGRESS: &str =
    "the native runtime of this version gives a sandbox loopback only; ask for network \"none\"";

#[cfg(test)]
mod tests {
    use std::io;

    use super::{MAX_PATH_BYTES, MAX_USER_BYTES, image_use, is_gone};
    use crate::images::ImageConfig;

    #[test]
    fn a_working_directory_that_no_path_can_be_is_refused() {
        let of = |length: usize| {
            let config = ImageConfig { working_dir: "/".repeat(length), ..ImageConfig::default() };
            image_use(&config, "x/rootfs".to_owned()).map(|image| image.order.unwrap().working_dir.unwrap())
        };
        assert_eq!(of(MAX_PATH_BYTES).unwrap().len(), MAX_PATH_BYTES);
        for length in [MAX_PATH_BYTES + 1, 20 << 10, 128 << 10] {
            let said = of(length).unwrap_err();
            assert!(said.contains("working directory") && said.contains(&length.to_string()), "{said}");
        }
    }

    #[test]
    fn a_user_that_nobody_can_be_is_refused() {
        let of = |length: usize| {
            let config = ImageConfig { user: "u".repeat(length), ..ImageConfig::default() };
            image_use(&config, "x/rootfs".to_owned()).map(|image| image.defaults.user.unwrap())
        };
        assert_eq!(of(MAX_USER_BYTES).unwrap().len(), MAX_USER_BYTES);
        let said = of(128 << 10).unwrap_err();
        assert!(said.contains("user") && said.len() < 200, "{said}");
    }

    #[test]
    fn an_order_that_cannot_be_sent_says_nothing_of_the_slot() {
        assert!(!is_gone(&io::ErrorKind::InvalidInput.into()));
        assert!(is_gone(&io::ErrorKind::UnexpectedEof.into()));
    }
}
