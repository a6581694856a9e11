//! The backends of one engine and the choice among them.

use std::collections::BTreeMap;

use faas_types::{LimitSupport, LimitsSupport, Runtime, RuntimeCapabilities, RuntimeChoice};

use super::EngineConfig;
use crate::data_dir::DataDir;
use crate::error::{EngineError, StartError};
use crate::guest::AgentStream;
#[cfg(all(target_os = "linux", feature = "native"))]
use crate::native::{NativeConfig, NativeExecutor, NativeStartError};
use crate::sandbox::{Account, SandboxError, SandboxExecutor, SandboxHandle, SandboxSpec};

/// One backend that runs. An enum, since there are few and a trait object could not have async methods.
#[derive(Clone, Copy, Debug)]
pub(super) enum Backend<'a> {
    #[cfg(all(target_os = "linux", feature = "native"))]
    Native(&'a NativeExecutor),
    /// Keeps the lifetime where no backend is built in.
    #[cfg(not(all(target_os = "linux", feature = "native")))]
    None(std::convert::Infallible, std::marker::PhantomData<&'a ()>),
}

macro_rules! each {
    ($self:expr, $backend:ident => $call:expr) => {
        match $self {
            #[cfg(all(target_os = "linux", feature = "native"))]
            Backend::Native($backend) => $call,
            #[cfg(not(all(target_os = "linux", feature = "native")))]
            Backend::None(never, _) => match never {},
        }
    };
}

impl Backend<'_> {
    pub(super) fn runtime(self) -> Runtime {
        each!(self, backend => backend.runtime())
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
}

/// All backends: each runs, or there is a reason why not.
#[derive(Debug)]
pub(super) struct Backends {
    #[cfg(all(target_os = "linux", feature = "native"))]
    native: Result<NativeExecutor, String>,
}

const NO_DOCKER: &str = "this version has no Docker backend";
const NO_FIRECRACKER: &str = "this version has no Firecracker backend";

impl Backends {
    #[cfg(all(target_os = "linux", feature = "native"))]
    pub(super) async fn start(data_dir: &DataDir, config: &EngineConfig) -> Result<Self, StartError> {
        let native = NativeConfig {
            launcher_exe: config.launcher_exe.clone(),
            spare_slots: config.native_slots,
            images_dir: None,
        };
        let native = match NativeExecutor::start(data_dir, native).await {
            Ok(executor) => Ok(executor),
            Err(NativeStartError::Unavailable(reason)) => {
                tracing::warn!(reason, "the native runtime is not available");
                Err(reason)
            }
            Err(NativeStartError::Start(error)) => return Err(error),
        };
        Ok(Self { native })
    }

    #[cfg(not(all(target_os = "linux", feature = "native")))]
    pub(super) async fn start(_data_dir: &DataDir, _config: &EngineConfig) -> Result<Self, StartError> {
        Ok(Self {})
    }

    /// The backend of `runtime`, or why there is none.
    fn get(&self, runtime: Runtime) -> Result<Backend<'_>, &str> {
        match runtime {
            #[cfg(all(target_os = "linux", feature = "native"))]
            Runtime::Native => self.native.as_ref().map(Backend::Native).map_err(String::as_str),
            #[cfg(not(all(target_os = "linux", feature = "native")))]
            Runtime::Native => Err("this build has no native backend"),
            Runtime::Docker => Err(NO_DOCKER),
            Runtime::Firecracker => Err(NO_FIRECRACKER),
        }
    }

    /// The backend that is asked for, or with `auto` the first that runs.
    pub(super) fn choose(&self, choice: RuntimeChoice) -> Result<Backend<'_>, EngineError> {
        if let Some(runtime) = named(choice) {
            return self.get(runtime).map_err(|reason| {
                SandboxError::RuntimeUnavailable { runtime, reason: reason.to_owned() }.into()
            });
        }
        let mut reasons = Vec::new();
        for runtime in Runtime::ALL {
            match self.get(runtime) {
                Ok(backend) => return Ok(backend),
                Err(reason) => reasons.push(format!("{runtime}: {reason}")),
            }
        }
        Err(EngineError::NoRuntime { reasons: reasons.join("; ") })
    }

    pub(super) async fn capabilities(&self) -> BTreeMap<Runtime, RuntimeCapabilities> {
        let mut all = BTreeMap::new();
        for runtime in Runtime::ALL {
            let capabilities = match self.get(runtime) {
                Ok(backend) => each!(backend, backend => backend.capabilities().await),
                Err(reason) => unavailable(reason),
            };
            all.insert(runtime, capabilities);
        }
        all
    }

    pub(super) async fn stop(&self) {
        #[cfg(all(target_os = "linux", feature = "native"))]
        if let Ok(native) = &self.native {
            native.stop().await;
        }
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
