//! `NativeExecutor`: the native runtime behind the seam.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use faas_types::{LimitSupport, LimitsSupport, Network, Runtime, RuntimeCapabilities};
use rustix::process::Signal;

use super::cgroup::CgroupHost;
use super::disk::{DiskError, Disks, MIN_BYTES};
use super::launcher::message::{LauncherSetup, SandboxOrder, SlotReply};
use super::launcher::{self, Failure};
use super::launcher_process::LauncherConfig;
use super::layout::{self, SlotIds};
use super::slots::{Slot, SlotError, Slots};
use super::{connect, host_image, socket};
use crate::agent_binary::{agent_binary, agent_digest};
use crate::data_dir::DataDir;
use crate::error::StartError;
use crate::sandbox::{BackendHandle, SandboxError, SandboxExecutor, SandboxHandle, SandboxSpec, Unsupported};

/// The part of a sandbox's handle that is this backend's.
#[derive(Debug)]
pub struct NativeHandle {
    slot: Slot,
    oom_kills_before: u64,
}

/// Makes native sandboxes.
#[derive(Debug)]
pub struct NativeExecutor {
    slots: Arc<Slots>,
    cgroups: Arc<CgroupHost>,
    disks: Result<Disks, String>,
}

/// What an executor is started with.
#[derive(Clone, Debug)]
pub(crate) struct NativeConfig {
    pub(crate) launcher_exe: PathBuf,
    pub(crate) spare_slots: usize,
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
        if !rustix::process::geteuid().is_root() {
            return Err(NativeStartError::Unavailable(
                "the server does not run as root; the native runtime needs that to make namespaces with id ranges \
                 of their own"
                    .to_owned(),
            ));
        }
        let mark = layout::mark(data_dir.gateway_id().as_str());
        let cgroups = CgroupHost::prepare(&mark)
            .map_err(|error| NativeStartError::Unavailable(format!("limits cannot be enforced: {error}")))?;
        let cgroups = Arc::new(cgroups);
        sweep(Arc::clone(&cgroups)).await?;
        let native = data_dir.private("native")?;
        let mount_point = data_dir.private("native/mnt")?;
        let agent_dir = install_agent(&native)?;
        let reserved = ["/etc/subuid", "/etc/subgid"]
            .into_iter()
            .map(|path| match std::fs::read_to_string(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                other => Ok(layout::subordinate_ranges(&other.map_err(at(Path::new(path)))?)),
            })
            .collect::<Result<Vec<_>, StartError>>()?
            .concat();
        let setup = LauncherSetup { mark, mount_point, agent_dir };
        let config_of_launcher = LauncherConfig { exe: config.launcher_exe, setup };
        let started =
            Slots::start(config_of_launcher, Arc::clone(&cgroups), config.spare_slots, &reserved).await;
        let slots = match started {
            Ok(slots) => slots,
            Err(error) => {
                remove_roots(&cgroups);
                return Err(NativeStartError::Unavailable(error.to_string()));
            }
        };
        let disks = Disks::probe(native.join("disks"));
        Ok(Self { slots, cgroups, disks })
    }

    /// Ends the launcher and all slots, and removes what the gateway has on the host.
    pub(crate) async fn stop(&self) {
        self.slots.stop().await;
        // A launcher that died left its slots' cgroups.
        if let Err(error) = sweep(Arc::clone(&self.cgroups)).await {
            tracing::error!(%error, "cgroups could not be cleared");
        }
        remove_roots(&self.cgroups);
    }

    fn refuse(operation: &str, reason: impl Into<String>) -> SandboxError {
        Unsupported { runtime: Runtime::Native, operation: operation.to_owned(), reason: reason.into() }
            .into()
    }

    /// The most bytes of a sandbox's memory that its files may take where it has no disk of its own: half, so that a
    /// full file system is an ENOSPC and not an OOM kill.
    fn tmpfs_bytes(memory_bytes: u64) -> u64 {
        memory_bytes / 2 / 4096 * 4096
    }

    async fn create_in_slot(&self, spec: &SandboxSpec) -> Result<SandboxHandle, SandboxError> {
        let slot = self.slots.claim().await.map_err(|error| match error {
            SlotError::Exhausted => SandboxError::Exhausted { reason: error.to_string() },
            SlotError::Park(failure) => create_error(failure),
            SlotError::Launcher(_) | SlotError::Cgroup(_) | SlotError::Ended | SlotError::Closed => {
                SandboxError::RuntimeUnavailable { runtime: Runtime::Native, reason: error.to_string() }
            }
        })?;
        let (agent, there) = UnixStream::pair()
            .map_err(|source| SandboxError::Create { step: "make a socket pair".to_owned(), source })?;
        match self.order(&slot, spec, there).await {
            Ok((init_pid, pidfd, oom_kills_before)) => Ok(SandboxHandle {
                id: spec.id.clone(),
                init_pid,
                pidfd,
                agent: Some(agent),
                backend: BackendHandle::Native(NativeHandle { slot, oom_kills_before }),
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
        agent: UnixStream,
    ) -> Result<(u32, std::os::fd::OwnedFd, u64), SandboxError> {
        let disk = match spec.limits.disk_bytes {
            None => None,
            Some(bytes) => Some(self.make_disk(bytes, SlotIds::of(slot.number).base).await?),
        };
        let memory_bytes = spec.limits.memory_bytes;
        let order = SandboxOrder {
            hostname: spec.id.as_str().to_owned(),
            machine_id: uuid::Uuid::new_v4().simple().to_string(),
            memory_bytes,
            cpu_millicores: spec.limits.cpu_millicores,
            pids: spec.limits.pids,
            tmpfs_bytes: disk.is_none().then(|| Self::tmpfs_bytes(memory_bytes)),
            shm_bytes: (64 << 20).min(Self::tmpfs_bytes(memory_bytes)),
        };
        let fds: Vec<_> = std::iter::once(agent.as_fd()).chain(disk.as_ref().map(|d| d.as_fd())).collect();
        let talk = |source| SandboxError::Create { step: "talk to a slot".to_owned(), source };
        slot.socket.send(&order, &fds).await.map_err(talk)?;
        match slot.socket.receive::<SlotReply>().await.map_err(talk)? {
            Some((SlotReply::Created { pid, oom_kills_before }, mut fds)) => match fds.pop() {
                Some(pidfd) => Ok((pid, pidfd, oom_kills_before)),
                None => Err(talk(io::Error::new(io::ErrorKind::InvalidData, "no pidfd came with a sandbox"))),
            },
            Some((SlotReply::Failed(failure), _)) => Err(create_error(failure)),
            Some((SlotReply::Parked, _)) => Err(talk(io::ErrorKind::InvalidData.into())),
            None => Err(talk(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    async fn make_disk(&self, bytes: u64, owner: u32) -> Result<std::os::fd::OwnedFd, SandboxError> {
        let disks = match &self.disks {
            Ok(disks) => disks.clone(),
            Err(reason) => return Err(Self::refuse("disk_mb", reason.clone())),
        };
        if bytes < MIN_BYTES {
            return Err(Self::refuse("disk_mb", format!("the smallest disk has {} MiB", MIN_BYTES >> 20)));
        }
        let failed = |error: DiskError| match error.source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => SandboxError::NoSpace { reason: error.to_string() },
            _ => SandboxError::Create { step: format!("make a disk: {error}"), source: error.source },
        };
        match tokio::task::spawn_blocking(move || disks.make(bytes, owner)).await {
            Ok(made) => made.map_err(failed),
            Err(error) => {
                Err(SandboxError::Create { step: "make a disk".to_owned(), source: io::Error::other(error) })
            }
        }
    }
}

/// Whether an error says that the process at the other end of a socket is gone.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
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

/// Puts the guest agent's program where sandboxes find it: a directory named for its digest, with an empty directory
/// `run` beside it. Programs of earlier servers are removed: no sandbox of theirs is left.
fn install_agent(native: &Path) -> Result<PathBuf, StartError> {
    let agents = native.join("agent");
    let dir = agents.join(agent_digest());
    std::fs::create_dir_all(&agents).map_err(at(&agents))?;
    for entry in std::fs::read_dir(&agents).map_err(at(&agents))? {
        let path = entry.map_err(at(&agents))?.path();
        if path != dir {
            std::fs::remove_dir_all(&path).map_err(at(&path))?;
        }
    }
    let (program, run) = (dir.join("agent"), dir.join("run"));
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&run).map_err(at(&run))?;
    let installed = match std::fs::read(&program) {
        Ok(bytes) => bytes == agent_binary(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(at(&program)(error)),
    };
    if !installed {
        let new = dir.join("agent.new");
        std::fs::write(&new, agent_binary()).map_err(at(&new))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o555);
        std::fs::set_permissions(&new, mode).map_err(at(&new))?;
        std::fs::rename(&new, &program).map_err(at(&program))?;
    }
    Ok(dir)
}

/// The image's environment, working directory and user.
pub(crate) fn image_env(image: &str) -> Option<Vec<(String, String)>> {
    (image == host_image::NAME).then(|| vec![("PATH".to_owned(), host_image::PATH.to_owned())])
}

impl SandboxExecutor for NativeExecutor {
    fn runtime(&self) -> Runtime {
        Runtime::Native
    }

    async fn capabilities(&self) -> RuntimeCapabilities {
        let how = self.cgroups.describe();
        let landlock = match launcher::landlock::abi_version() {
            0 => {
                LimitSupport::no("the kernel has no landlock, or it is not among its active security modules")
            }
            abi => LimitSupport::yes(format!("ABI {abi}")),
        };
        let disk = match &self.disks {
            Ok(_) => LimitSupport::yes(
                "ext4 on a loop device; a tmpfs within the memory limit where none is asked for",
            ),
            Err(reason) => LimitSupport::no(reason.clone()),
        };
        RuntimeCapabilities {
            available: true,
            reason: None,
            features: BTreeMap::from([
                ("landlock".to_owned(), landlock),
                ("network_egress".to_owned(), LimitSupport::no(NO_EGRESS)),
                ("rootless".to_owned(), LimitSupport::no("this version makes native sandboxes as root only")),
            ]),
            limits: LimitsSupport {
                memory: LimitSupport::yes(how),
                cpu: LimitSupport::yes(how),
                pids: LimitSupport::yes(how),
                disk,
            },
        }
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<SandboxHandle, SandboxError> {
        if spec.network == Network::Egress {
            return Err(Self::refuse("network egress", NO_EGRESS));
        }
        if image_env(&spec.image).is_none() {
            return Err(SandboxError::ImageUnavailable {
                image: spec.image.clone(),
                reason: format!(
                    "the native runtime of this version has one image, {:?}: the host's own programs",
                    host_image::NAME
                ),
            });
        }
        // A slot can have died since it was parked: then another is asked, once.
        match self.create_in_slot(spec).await {
            Err(SandboxError::Create { source, .. }) if is_gone(&source) => self.create_in_slot(spec).await,
            other => other,
        }
    }

    async fn connect(&self, sandbox: &SandboxHandle) -> Result<UnixStream, SandboxError> {
        let pid = sandbox.init_pid;
        let connected = tokio::task::spawn_blocking(move || connect::connect(pid)).await;
        // Sent to the pidfd, so it fails when the PID may have been somebody else's.
        let lost = |reason: String| SandboxError::Lost { reason };
        let alive = rustix::event::poll(
            &mut [rustix::event::PollFd::new(&sandbox.pidfd, rustix::event::PollFlags::IN)],
            Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }),
        );
        match alive {
            Ok(0) => {}
            Ok(_) => return Err(lost("its first process has ended".to_owned())),
            Err(error) => return Err(lost(error.to_string())),
        }
        match connected {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(lost(format!("its agent cannot be reached: {error}"))),
            Err(error) => Err(lost(format!("its agent cannot be reached: {error}"))),
        }
    }

    async fn oom_killed(&self, sandbox: &SandboxHandle) -> Result<bool, SandboxError> {
        let BackendHandle::Native(handle) = &sandbox.backend;
        match handle.slot.cgroup.oom_kills() {
            Ok(kills) => Ok(kills > handle.oom_kills_before),
            Err(error) => {
                let source = io::Error::new(error.source.kind(), error.to_string());
                Err(SandboxError::Io { path: PathBuf::from("/sys/fs/cgroup"), source })
            }
        }
    }

    async fn destroy(&self, sandbox: SandboxHandle) -> Result<(), SandboxError> {
        let SandboxHandle { id, pidfd, backend: BackendHandle::Native(NativeHandle { slot, .. }), .. } =
            sandbox;
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
            Ok(()) if self.slots.is_current(&slot).await => {
                self.slots.release(slot);
                Ok(())
            }
            other => {
                self.slots.forget(slot);
                other
            }
        }
    }
}

/// Why there is no egress.
const NO_EGRESS: &str =
    "the native runtime of this version gives a sandbox loopback only; ask for network \"none\"";
