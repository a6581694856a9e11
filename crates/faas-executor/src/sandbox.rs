//! The seam: what every backend can be asked to do, and how it refuses what it cannot.

use std::collections::BTreeSet;
use std::path::PathBuf;

use faas_types::{Network, Runtime, RuntimeCapabilities, SandboxId, Usage};
use serde::{Deserialize, Serialize};

use crate::guest::AgentStream;

/// What a sandbox may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Memory in bytes, page cache and tmpfs included; swap is always 0.
    pub memory_bytes: u64,
    /// CPU time per wall time, in thousandths of a core.
    pub cpu_millicores: u32,
    /// Processes and threads at once, the guest agent's own included.
    pub pids: u32,
    /// Bytes that may be written to the sandbox's file system, where the caller asked for a limit. Without one a
    /// sandbox gets a tmpfs that its memory limit bounds.
    pub disk_bytes: Option<u64>,
}

/// The name of the image that is the host's own programs. The native runtime alone has it, and no registry does.
pub const HOST_IMAGE: &str = "host";

/// How long a sandbox and its files are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lifetime {
    /// Until it is destroyed, or the server ends.
    #[default]
    Server,
    /// From [`SandboxExecutor::keep`] on until it is removed, whatever becomes of the server. Its files stay when it is
    /// stopped.
    Lasting,
}

/// What a backend needs to find a lasting sandbox again. Kept by the caller, who does not look inside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SandboxRecord(pub serde_json::Value);

/// What became of a lasting sandbox while no server looked after it.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of it at a time, which is taken apart at once")]
pub enum Found {
    /// It runs, or is paused.
    Live {
        /// To be used from now on as if it had been made just now; without a connection to its agent.
        handle: SandboxHandle,
        /// Whether its processes are stopped where they are ([`SandboxExecutor::pause`]).
        paused: bool,
    },
    /// Its processes are gone, its files are there: [`SandboxExecutor::revive`] begins anew with them.
    Stopped {
        /// What ended it, as far as can be told.
        reason: String,
    },
    /// Nothing of it is there.
    Gone {
        /// What ended it, as far as can be told.
        reason: String,
    },
}

/// What a sandbox uses now, as far as its backend can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// CPU time of all of its processes since it was made or started.
    pub cpu_us: Option<u64>,
    /// Memory that is charged to it.
    pub memory_bytes: Option<u64>,
    /// The most there was.
    pub memory_peak_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// What its files take, those of its image aside.
    pub disk_bytes: Option<u64>,
    /// Bytes that came in over its network, loopback aside.
    pub network_received_bytes: Option<u64>,
    /// Bytes that went out.
    pub network_sent_bytes: Option<u64>,
}

/// Something on the host that bears this gateway's mark and that nobody owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// What it is: `cgroup`, `process`, `mount`, `directory`, `container`, ...
    pub kind: &'static str,
    /// Its path, number or name on the host.
    pub name: String,
}

/// Resolves when a sandbox has ended, whoever ended it; says how, as far as that can be told.
pub type Ended = std::pin::Pin<Box<dyn Future<Output = String> + Send>>;

/// A sandbox to be made.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    /// Its id; not in use by any other sandbox of this gateway.
    pub id: SandboxId,
    /// The image by name.
    pub image: String,
    /// The same from the image store, where it was resolved there.
    #[cfg(all(target_os = "linux", feature = "native"))]
    pub stored: Option<crate::images::ImageLease>,
    /// What it may use.
    pub limits: Limits,
    /// What it can reach.
    pub network: Network,
    /// How long it is there.
    pub lifetime: Lifetime,
}

impl SandboxSpec {
    /// A sandbox whose image has not been looked for yet.
    #[must_use]
    pub fn new(id: SandboxId, image: String, limits: Limits, network: Network) -> Self {
        Self {
            id,
            image,
            #[cfg(all(target_os = "linux", feature = "native"))]
            stored: None,
            limits,
            network,
            lifetime: Lifetime::Server,
        }
    }
}

/// Something a backend cannot do, with the probe's reason.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{runtime} does not support {operation}: {reason}")]
pub struct Unsupported {
    /// The backend that refuses.
    pub runtime: Runtime,
    /// What was asked of it.
    pub operation: String,
    /// Why it cannot.
    pub reason: String,
}

/// Why a sandbox could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The backend cannot do this at all.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The backend itself cannot be used now.
    #[error("runtime {runtime} is not available: {reason}")]
    RuntimeUnavailable {
        /// The backend.
        runtime: Runtime,
        /// What its probe says.
        reason: String,
    },
    /// The image is not there.
    #[error("image {image} is not available: {reason}")]
    ImageUnavailable {
        /// The image as it was asked for.
        image: String,
        /// Why not, and what can be done.
        reason: String,
    },
    /// The image cannot be had from the image store.
    #[cfg(all(target_os = "linux", feature = "native"))]
    #[error(transparent)]
    Image(#[from] crate::images::ImageError),
    /// More sandboxes than this backend can hold at once.
    #[error("no room for another sandbox: {reason}")]
    Exhausted {
        /// What ran out.
        reason: String,
    },
    /// The host has no disk space left for it.
    #[error("no space left for a sandbox: {reason}")]
    NoSpace {
        /// Where.
        reason: String,
    },
    /// The sandbox died.
    #[error("the sandbox was lost: {reason}")]
    Lost {
        /// How.
        reason: String,
    },
    /// Making it failed at one step.
    #[error("cannot make a sandbox: {step}: {source}")]
    Create {
        /// The step.
        step: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// An operation on a host path failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// What an image says of programs, where the caller says nothing (OCI image specification, "Properties").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageDefaults {
    /// `Env`.
    pub env: Vec<(String, String)>,
    /// `WorkingDir`.
    pub working_dir: Option<String>,
    /// `User`.
    pub user: Option<String>,
    /// `Entrypoint`: the main program, with the first of its arguments.
    pub entrypoint: Vec<String>,
    /// `Cmd`: its other arguments, or the main program where there is no entrypoint.
    pub cmd: Vec<String>,
}

/// A live sandbox, as its backend holds it.
///
/// Dropping a handle does not end the sandbox: the caller gives it to [`SandboxExecutor::destroy`].
#[derive(Debug)]
pub struct SandboxHandle {
    /// Its id.
    pub id: SandboxId,
    /// What its image says of programs that run in it.
    pub image: ImageDefaults,
    /// A connection to its guest agent that was made together with the sandbox. The agent's `Hello` is its first
    /// frame; requests may be written before that arrives.
    pub agent: Option<AgentStream>,
    /// What the backend itself needs to find it again.
    pub backend: BackendHandle,
}

/// What the kernel has counted in a sandbox since it was made, as far as its backend can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// How many processes of it the kernel has killed for want of memory, where that can be seen from outside the
    /// sandbox; 1 stands for any number where only that can be told.
    pub oom_kills: Option<u64>,
    /// What it has used.
    pub usage: Usage,
}

/// The part of a [`SandboxHandle`] that only its backend reads.
#[derive(Debug)]
pub enum BackendHandle {
    /// A container.
    #[cfg(feature = "docker")]
    Docker(crate::docker::DockerHandle),
    /// A native sandbox.
    #[cfg(all(target_os = "linux", feature = "native"))]
    Native(crate::native::NativeHandle),
}

/// What a backend does. Few and small: everything inside a sandbox is the guest agent's.
///
/// The caller guarantees that a spec's image was resolved and its limits lie within the host's; that a handle is
/// destroyed exactly once; and that no call is made on a handle after that. A callee whose future is dropped leaves
/// nothing behind: what it had begun to make is removed.
pub trait SandboxExecutor: Send + Sync {
    /// Which backend this is.
    fn runtime(&self) -> Runtime;

    /// What it can do on this host, probed. Cheap after the first call.
    fn capabilities(&self) -> impl Future<Output = RuntimeCapabilities> + Send;

    /// Whether it could make this sandbox, as far as that is known without making anything; where it could not, the
    /// refusal is the one that [`SandboxExecutor::create`] would give. Capabilities alone do not tell: they do not name
    /// the images. Cheap.
    fn check(&self, spec: &SandboxSpec) -> impl Future<Output = Result<(), SandboxError>> + Send;

    /// Makes a sandbox in which the guest agent runs or is about to.
    fn create(&self, spec: &SandboxSpec) -> impl Future<Output = Result<SandboxHandle, SandboxError>> + Send;

    /// Opens another connection to the sandbox's guest agent.
    fn connect(
        &self,
        sandbox: &SandboxHandle,
    ) -> impl Future<Output = Result<AgentStream, SandboxError>> + Send;

    /// What the kernel has counted in it since it was made.
    fn account(&self, sandbox: &SandboxHandle) -> impl Future<Output = Result<Account, SandboxError>> + Send;

    /// Stops all of its processes where they are; returns when they have stopped. They use no CPU time until
    /// [`SandboxExecutor::resume`]. When this fails, or its future is dropped, they may be stopped or not.
    fn pause(&self, sandbox: &SandboxHandle) -> impl Future<Output = Result<(), SandboxError>> + Send;

    /// Lets them go on.
    fn resume(&self, sandbox: &SandboxHandle) -> impl Future<Output = Result<(), SandboxError>> + Send;

    /// Lets it have all the CPU time there is, so that what ends in it ends soon. For one whose time is over.
    fn lift_cpu_limit(
        &self,
        sandbox: &SandboxHandle,
    ) -> impl Future<Output = Result<(), SandboxError>> + Send;

    /// Ends it, whatever its state, and removes all that was made for it. Returns when nothing is left.
    fn destroy(&self, sandbox: SandboxHandle) -> impl Future<Output = Result<(), SandboxError>> + Send;

    /// What [`SandboxExecutor::adopt`] finds a lasting sandbox by. The caller has put it away safely before
    /// [`SandboxExecutor::keep`].
    fn record(&self, sandbox: &SandboxHandle) -> Result<SandboxRecord, SandboxError>;

    /// From here on the sandbox, made with [`Lifetime::Lasting`], goes on without the server. Until then it ends with
    /// the server, as any other. What the server is ended by afterwards makes no difference: its own end, a signal, the
    /// launcher's end.
    fn keep(&self, sandbox: &SandboxHandle) -> impl Future<Output = Result<(), SandboxError>> + Send;

    /// Finds a lasting sandbox that an earlier server made. `spec` is the one that it was made from, its image leased
    /// again. The backend was started with its record, and has left it alone since.
    fn adopt(
        &self,
        spec: &SandboxSpec,
        record: &SandboxRecord,
    ) -> impl Future<Output = Result<Found, SandboxError>> + Send;

    /// Ends all processes of a lasting sandbox, whatever its state, and keeps its files. What is in memory goes:
    /// `/dev/shm`, and `/run` and `/tmp` where those are in memory. Returns when they have ended, with the record for
    /// [`SandboxExecutor::revive`].
    fn halt(
        &self,
        sandbox: SandboxHandle,
    ) -> impl Future<Output = Result<SandboxRecord, SandboxError>> + Send;

    /// Makes a sandbox over the files of one that was stopped or has ended; it lasts after [`SandboxExecutor::keep`],
    /// as after [`SandboxExecutor::create`], and has a new record. When this fails, or its future is dropped, the files
    /// are there as before.
    fn revive(
        &self,
        spec: &SandboxSpec,
        record: &SandboxRecord,
    ) -> impl Future<Output = Result<SandboxHandle, SandboxError>> + Send;

    /// Removes whatever there is of a lasting sandbox that nobody has a handle of: stopped, failed, or half made by a
    /// server that was killed, with or without a record. Nothing there is as good.
    fn remove(
        &self,
        id: &SandboxId,
        record: Option<&SandboxRecord>,
    ) -> impl Future<Output = Result<(), SandboxError>> + Send;

    /// Gives a sandbox that runs other limits of memory, CPU time and processes. A memory limit below what it holds is
    /// refused, and nothing is changed; `disk_bytes` must be as it was.
    fn set_limits(
        &self,
        sandbox: &SandboxHandle,
        limits: &Limits,
    ) -> impl Future<Output = Result<(), SandboxError>> + Send;

    /// Tells when it has ended. It holds nothing of the sandbox, and any number may be asked for.
    fn ended(&self, sandbox: &SandboxHandle) -> Result<Ended, SandboxError>;

    /// What it uses now.
    fn measure(&self, sandbox: &SandboxHandle)
    -> impl Future<Output = Result<Measures, SandboxError>> + Send;

    /// What is on the host with this gateway's mark and is neither a sandbox that somebody has a handle of, nor one of
    /// `lasting`, nor held ready by the backend itself, nor on its way out.
    fn leaks(
        &self,
        lasting: &BTreeSet<SandboxId>,
    ) -> impl Future<Output = Result<Vec<Leak>, SandboxError>> + Send;
}
