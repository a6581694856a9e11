//! The backends of one engine and the choice among them.

use std::collections::{BTreeMap, BTreeSet};

use faas_types::{LimitSupport, LimitsSupport, Runtime, RuntimeCapabilities, RuntimeChoice, SandboxId};

use super::EngineConfig;
use crate::data_dir::DataDir;
#[cfg(feature = "docker")]
use crate::docker::DockerExecutor;
use crate::error::StartError;
use crate::guest::AgentStream;
#[cfg(all(target_os = "linux", feature = "native"))]
use crate::native::{NativeConfig, NativeExecutor, NativeStartError};
use crate::sandbox::{
    Account, Ended, Found, Leak, Limits, Measures, SandboxError, SandboxExecutor, SandboxHandle,
    SandboxRecord, SandboxSpec,
};

/// One backend that runs. An enum, since there are few and a trait object could not have async methods.
#[derive(Clone, Copy, Debug)]
pub(super) enum Backend<'a> {
    #[cfg(all(target_os = "linux", feature = "native"))]
    Native(&'a NativeExecutor),
    #[cfg(feature = "docker")]
    Docker(&'a DockerExecutor),
}

macro_rules! each {
    ($self:expr, $backend:ident => $call:expr) => {
        match $self {
            #[cfg(all(target_os = "linux", feature = "native"))]
            Backend::Native($backend) => $call,
            #[cfg(feature = "docker")]
            Backend::Docker($backend) => $call,
        }
    };
}

impl Backend<'_> {
    pub(super) fn runtime(self) -> Runtime {
        each!(self, backend => backend.runtime())
    }

    pub(super) async fn check(self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        each!(self, backend => backend.check(spec).await)
    }

    pub(super) async fn create(self, spec: &SandboxSpec) -> Result<SandboxHandle, SandboxError> {
        each!(self, backend => backend.create(spec).await)
    }

    pub(super) async fn connect(self, sandbox: &SandboxHandle) -> Result<AgentStream, SandboxError> {
        each!(self, backend => backend.connect(sandbox).await)
    }

    pub(super) async fn account(self, sandbox: &SandboxHandle) -> Result<Account, SandboxError> {
        each!(self, backend => backend.account(sandbox).await)
    }

    pub(super) async fn lift_cpu_limit(self, sandbox: &SandboxHandle) -> Result<(), SandboxError> {
        each!(self, backend => backend.lift_cpu_limit(sandbox).await)
    }

    pub(super) async fn destroy(self, sandbox: SandboxHandle) -> Result<(), SandboxError> {
        each!(self, backend => backend.destroy(sandbox).await)
    }

    pub(super) async fn pause(self, sandbox: &SandboxHandle) -> Result<(), SandboxError> {
        each!(self, backend => backend.pause(sandbox).await)
    }

    pub(super) async fn resume(self, sandbox: &SandboxHandle) -> Result<(), SandboxError> {
        each!(self, backend => backend.resume(sandbox).await)
    }

    pub(super) fn record(self, sandbox: &SandboxHandle) -> Result<SandboxRecord, SandboxError> {
        each!(self, backend => backend.record(sandbox))
    }

    pub(super) async fn keep(self, sandbox: &SandboxHandle) -> Result<(), SandboxError> {
        each!(self, backend => backend.keep(sandbox).await)
    }

    pub(super) async fn adopt(
        self,
        spec: &SandboxSpec,
        record: &SandboxRecord,
    ) -> Result<Found, SandboxError> {
        each!(self, backend => backend.adopt(spec, record).await)
    }

    pub(super) async fn halt(self, sandbox: SandboxHandle) -> Result<SandboxRecord, SandboxError> {
        each!(self, backend => backend.halt(sandbox).await)
    }

    pub(super) async fn revive(
        self,
        spec: &SandboxSpec,
        record: &SandboxRecord,
    ) -> Result<SandboxHandle, SandboxError> {
        each!(self, backend => backend.revive(spec, record).await)
    }

    pub(super) async fn remove(
        self,
        id: &SandboxId,
        record: Option<&SandboxRecord>,
    ) -> Result<(), SandboxError> {
        each!(self, backend => backend.remove(id, record).await)
    }

    pub(super) async fn set_limits(
        self,
        sandbox: &SandboxHandle,
        limits: &Limits,
    ) -> Result<(), SandboxError> {
        each!(self, backend => backend.set_limits(sandbox, limits).await)
    }

    pub(super) fn ended(self, sandbox: &SandboxHandle) -> Result<Ended, SandboxError> {
        each!(self, backend => backend.ended(sandbox))
    }

    pub(super) async fn measure(self, sandbox: &SandboxHandle) -> Result<Measures, SandboxError> {
        each!(self, backend => backend.measure(sandbox).await)
    }

    pub(super) async fn leaks(self, lasting: &BTreeSet<SandboxId>) -> Result<Vec<Leak>, SandboxError> {
        each!(self, backend => backend.leaks(lasting).await)
    }
}

/// A lasting sandbox that an earlier server left, which a backend leaves alone until it is adopted or removed.
#[derive(Clone, Debug)]
pub(super) struct Lasting {
    pub(super) runtime: Runtime,
    pub(super) id: SandboxId,
    pub(super) record: Option<SandboxRecord>,
}

/// All backends: each runs, or there is a reason why not.
#[derive(Debug)]
pub(super) struct Backends {
    #[cfg(all(target_os = "linux", feature = "native"))]
    native: Result<NativeExecutor, String>,
    /// Runs whether its engine is there or not.
    #[cfg(feature = "docker")]
    docker: Option<DockerExecutor>,
}

const NO_FIRECRACKER: &str = "this version has no Firecracker backend";

impl Backends {
    pub(super) async fn start(
        data_dir: &DataDir,
        config: &EngineConfig,
        lasting: &[Lasting],
        #[cfg(all(target_os = "linux", feature = "native"))] images_dir: std::path::PathBuf,
    ) -> Result<Self, StartError> {
        let of = |runtime| {
            let its = lasting.iter().filter(move |sandbox| sandbox.runtime == runtime);
            its.map(|sandbox| (sandbox.id.clone(), sandbox.record.clone())).collect::<Vec<_>>()
        };
        Ok(Self {
            #[cfg(all(target_os = "linux", feature = "native"))]
            native: start_native(data_dir, config, of(Runtime::Native), images_dir).await?,
            #[cfg(feature = "docker")]
            docker: match config.docker.clone() {
                Some(docker) => {
                    let places = config.max_concurrent;
                    Some(DockerExecutor::start(data_dir, docker, of(Runtime::Docker), places)?)
                }
                None => None,
            },
        })
    }

    /// The Docker backend, where one is configured.
    #[cfg(all(target_os = "linux", feature = "native", feature = "docker"))]
    pub(super) fn docker(&self) -> Option<DockerExecutor> {
        self.docker.clone()
    }

    /// The backend of `runtime`, or why there is none.
    pub(super) fn get(&self, runtime: Runtime) -> Result<Backend<'_>, SandboxError> {
        let none =
            |reason: &str| Err(SandboxError::RuntimeUnavailable { runtime, reason: reason.to_owned() });
        match runtime {
            #[cfg(all(target_os = "linux", feature = "native"))]
            Runtime::Native => match &self.native {
                Ok(native) => Ok(Backend::Native(native)),
                Err(reason) => none(reason),
            },
            #[cfg(not(all(target_os = "linux", feature = "native")))]
            Runtime::Native => none("this build has no native backend"),
            #[cfg(feature = "docker")]
            Runtime::Docker => match &self.docker {
                Some(docker) => Ok(Backend::Docker(docker)),
                None => none("it is switched off (docker_host is `none`)"),
            },
            #[cfg(not(feature = "docker"))]
            Runtime::Docker => none("this build has no Docker backend"),
            Runtime::Firecracker => none(NO_FIRECRACKER),
        }
    }

    pub(super) async fn capabilities(&self) -> BTreeMap<Runtime, RuntimeCapabilities> {
        let mut all = BTreeMap::new();
        for runtime in Runtime::ALL {
            let capabilities = match self.get(runtime) {
                Ok(backend) => each!(backend, backend => backend.capabilities().await),
                Err(SandboxError::RuntimeUnavailable { reason, .. }) => unavailable(&reason),
                Err(error) => unavailable(&error.to_string()),
            };
            all.insert(runtime, capabilities);
        }
        all
    }

    pub(super) async fn stop(&self) {
        #[cfg(feature = "docker")]
        let docker = async {
            if let Some(docker) = &self.docker {
                docker.stop().await;
            }
        };
        #[cfg(not(feature = "docker"))]
        let docker = async {};
        #[cfg(all(target_os = "linux", feature = "native"))]
        let native = async {
            if let Ok(native) = &self.native {
                native.stop().await;
            }
        };
        #[cfg(not(all(target_os = "linux", feature = "native")))]
        let native = async {};
        tokio::join!(docker, native);
    }
}

#[cfg(all(target_os = "linux", feature = "native"))]
async fn start_native(
    data_dir: &DataDir,
    config: &EngineConfig,
    lasting: Vec<(SandboxId, Option<SandboxRecord>)>,
    images_dir: std::path::PathBuf,
) -> Result<Result<NativeExecutor, String>, StartError> {
    let native = NativeConfig {
        launcher_exe: config.launcher_exe.clone(),
        spare_slots: config.native_slots,
        images_dir: Some(images_dir),
        lasting,
    };
    match NativeExecutor::start(data_dir, native).await {
        Ok(executor) => Ok(Ok(executor)),
        Err(NativeStartError::Unavailable(reason)) => {
            tracing::warn!(reason, "the native runtime is not available");
            Ok(Err(reason))
        }
        Err(NativeStartError::Start(error)) => Err(error),
    }
}

/// The runtime that a choice names, if it names one.
pub(super) fn named(choice: RuntimeChoice) -> Option<Runtime> {
    match choice {
        RuntimeChoice::Auto => None,
        RuntimeChoice::Native => Some(Runtime::Native),
        RuntimeChoice::Docker => Some(Runtime::Docker),
        RuntimeChoice::Firecracker => Some(Runtime::Firecracker),
    }
}

fn unavailable(reason: &str) -> RuntimeCapabilities {
    let no = || LimitSupport::no(reason);
    RuntimeCapabilities {
        available: false,
        reason: Some(reason.to_owned()),
        features: BTreeMap::new(),
        limits: LimitsSupport { memory: no(), cpu: no(), pids: no(), disk: no() },
    }
}
