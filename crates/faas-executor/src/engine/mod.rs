//! The only composer: takes a validated request, gets a sandbox, runs the program in it, gives the result back.
//!
//! It knows no HTTP and no backend's inside. An execution whose future is dropped is cancelled: its sandbox is
//! destroyed in the background.

mod backend;
pub mod events;
mod execute;
mod images;
pub mod instances;
mod permits;
mod upkeep;

#[cfg(all(target_os = "linux", feature = "native"))]
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use faas_guest_protocol::{ExitReport, OutputStream, Program};
use faas_types::{Capabilities, ExecutionId, Network, RequestId, Runtime, RuntimeChoice, Timings, Usage};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[cfg(all(target_os = "linux", feature = "native"))]
use crate::data_dir;
use crate::data_dir::DataDir;
use crate::error::{EngineError, StartError};
use crate::guest::Held;
#[cfg(all(target_os = "linux", feature = "native"))]
use crate::images::{ImageStore, ImageStoreConfig};
use crate::output_log::{OutputBudget, OutputLogs};
use crate::platform::host;
use crate::sandbox::Limits;
use crate::store::{AnyStore, DatabaseUrl, Store as _, StoreLocation};
use backend::Backends;
use instances::{Instances, Registry, executions};
use permits::Permits;

pub use upkeep::EventRetention;

/// How the engine is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Where everything that lasts is kept. Made when missing; locked against a second gateway.
    pub data_dir: PathBuf,
    /// The PostgreSQL database that the store is in; without one it is a file in the data directory.
    pub database_url: Option<DatabaseUrl>,
    /// The Docker engine to be used, if one is.
    #[cfg(feature = "docker")]
    pub docker: Option<crate::docker::DockerConfig>,
    /// The program that runs as the launcher when started with the single argument `launcher`: the server itself.
    #[cfg(all(target_os = "linux", feature = "native"))]
    pub launcher_exe: PathBuf,
    /// The runtime for requests that say `auto`.
    pub default_runtime: RuntimeChoice,
    /// The image for requests that name none.
    pub default_image: String,
    /// How many executions run at once; the rest wait in order.
    pub max_concurrent: usize,
    /// How many may wait; more are refused as overloaded.
    pub max_queued: usize,
    /// How many launcher slots stand ready, each parked in its cgroups.
    #[cfg(all(target_os = "linux", feature = "native"))]
    pub native_slots: usize,
    /// Where images come from and how much of them is kept.
    #[cfg(all(target_os = "linux", feature = "native"))]
    pub images: ImageStoreConfig,
    /// Whether an execution whose image is not there has it pulled.
    pub pull: PullPolicy,
    /// How many instances there may be.
    pub max_instances: usize,
    /// How much output of lasting executions is kept.
    pub outputs: OutputBudget,
    /// How many lifecycle events are kept.
    pub events: EventRetention,
}

/// Whether an image is pulled when an execution asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// When it is not there.
    #[default]
    IfMissing,
    /// Each time.
    Always,
    /// Not at all: it has to be pulled or imported before.
    Never,
}

/// A file to put into the sandbox before the program starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Absolute, or relative to the working directory.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Its content.
    pub content: Vec<u8>,
    /// Whether it is a secret, named by `path` alone, for `/run/secrets`.
    pub secret: bool,
}

/// One execution, validated.
#[derive(Debug)]
pub struct ExecuteSpec {
    /// The request it belongs to.
    pub request_id: RequestId,
    /// What to run.
    pub program: Program,
    /// Environment variables beyond the image's.
    pub env: Vec<(String, String)>,
    /// The image, or the default.
    pub image: Option<String>,
    /// The runtime.
    pub runtime: RuntimeChoice,
    /// The working directory, or the image's.
    pub working_dir: Option<String>,
    /// The user, or the image's.
    pub user: Option<String>,
    /// Standard input, or none.
    pub stdin: Option<Vec<u8>>,
    /// Files, secrets among them.
    pub files: Vec<InputFile>,
    /// Wall time for the program.
    pub timeout: Duration,
    /// What the sandbox may use.
    pub limits: Limits,
    /// What it can reach.
    pub network: Network,
    /// How many bytes of each of stdout and stderr are kept.
    pub max_output_bytes: u64,
    /// The caller's own words, for the log.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Dropped when files and standard input have been passed on.
    pub held: Option<Held>,
}

/// What an execution did.
#[derive(Clone, Debug)]
pub struct ExecutionOutcome {
    /// Its id.
    pub execution_id: ExecutionId,
    /// How the program ended.
    pub exit: ExitReport,
    /// The first bytes of its standard output.
    pub stdout: Vec<u8>,
    /// The first bytes of its standard error.
    pub stderr: Vec<u8>,
    /// Whether the kernel killed a process of the sandbox for want of memory.
    pub oom_killed: bool,
    /// What the sandbox used.
    pub usage: Usage,
    /// The runtime that ran it.
    pub runtime: Runtime,
    /// The image it ran in.
    pub image: String,
    /// The timeout it ran under, in milliseconds.
    pub timeout_ms: u64,
    /// Where the time went.
    pub timings: Timings,
}

/// Takes the output of an execution as it comes: at most `max_output_bytes` of each stream. The execution waits for it,
/// so it must not wait for anything.
pub trait LiveOutput: Send {
    /// The program runs, or there is output of one that could not be executed. Comes once, and first; not at all where
    /// there is neither.
    fn started(&mut self, id: &ExecutionId);

    /// It has said something.
    fn output(&mut self, stream: OutputStream, bytes: &[u8]);
}

/// The engine. Cheap to clone: all clones are one engine.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: EngineConfig,
    backends: Backends,
    #[cfg(all(target_os = "linux", feature = "native"))]
    images: ImageStore,
    permits: Permits,
    store: AnyStore,
    instances: Registry,
    executions: executions::Registry,
    outputs: OutputLogs,
    tail: events::Tail,
    /// Sandboxes that are being made or destroyed, instances that change their state.
    background: TaskTracker,
    /// Who waits for the end of sandboxes that last.
    watchers: TaskTracker,
    closed: CancellationToken,
    /// Held until everything else is gone.
    _data_dir: DataDir,
}

impl Inner {
    /// Whether the engine is shutting down.
    fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }
}

impl Engine {
    /// Locks the data directory, opens the store, removes what an earlier gateway left, probes the backends and starts the
    /// launcher. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] when the data directory or the store cannot be used or a configured backend cannot start. A backend that is
    /// merely not there is no error: [`Engine::capabilities`] says so.
    pub async fn start(config: EngineConfig) -> Result<Self, StartError> {
        let data_dir = DataDir::open(&config.data_dir)?;
        let store = open_store(&data_dir, config.database_url.as_ref()).await?;
        #[cfg(all(target_os = "linux", feature = "native"))]
        let images = ImageStore::open(&data_dir.private(data_dir::IMAGES)?, config.images.clone()).await?;
        let read = instances::recover::read(&store).await;
        let left = read.map_err(|source| StartError::Store { place: "the store".to_owned(), source })?;
        let lasting = instances::recover::lasting(&left);
        let outputs = open_outputs(&store, &data_dir, config.outputs).await?;
        #[cfg(all(target_os = "linux", feature = "native"))]
        let backends = Backends::start(&data_dir, &config, &lasting, images.images_dir()).await?;
        #[cfg(not(all(target_os = "linux", feature = "native")))]
        let backends = Backends::start(&data_dir, &config, &lasting).await?;
        let permits = Permits::new(config.max_concurrent, config.max_queued);
        let engine = Self {
            inner: Arc::new(Inner {
                config,
                store,
                backends,
                #[cfg(all(target_os = "linux", feature = "native"))]
                images,
                permits,
                instances: Registry::default(),
                executions: executions::Registry::default(),
                outputs,
                tail: events::Tail::default(),
                background: TaskTracker::new(),
                watchers: TaskTracker::new(),
                closed: CancellationToken::new(),
                _data_dir: data_dir,
            }),
        };
        let instances = engine.instances();
        instances.recover(left).await;
        engine.inner.watchers.spawn(instances.keep_time());
        engine.inner.watchers.spawn(upkeep::keep_small(Arc::clone(&engine.inner)));
        Ok(engine)
    }

    /// Its instances.
    #[must_use]
    pub fn instances(&self) -> Instances {
        Instances { inner: Arc::clone(&self.inner) }
    }

    /// Its lifecycle events.
    #[must_use]
    pub fn events(&self) -> events::Events {
        events::Events { inner: Arc::clone(&self.inner) }
    }

    /// Runs one program in a fresh sandbox and returns when it has ended. The sandbox is destroyed afterwards, off
    /// the caller's path; so it is when the future is dropped.
    ///
    /// # Errors
    /// [`EngineError`]; a program that fails is no error.
    pub async fn execute(&self, spec: ExecuteSpec) -> Result<ExecutionOutcome, EngineError> {
        execute::execute(&self.inner, spec, None).await
    }

    /// The same, with the output given to `live` as it comes; the outcome has none of it.
    ///
    /// # Errors
    /// As [`Engine::execute`].
    pub async fn execute_live(
        &self,
        spec: ExecuteSpec,
        live: &mut dyn LiveOutput,
    ) -> Result<ExecutionOutcome, EngineError> {
        execute::execute(&self.inner, spec, Some(live)).await
    }

    /// The rows that last.
    #[must_use]
    pub fn store(&self) -> &AnyStore {
        &self.inner.store
    }

    /// Closes the store, after [`Engine::shutdown`] and when nobody else uses it any more.
    pub async fn close_store(&self) {
        self.inner.store.close().await;
    }

    /// The images that sandboxes can start from, beside the host's own.
    #[cfg(all(target_os = "linux", feature = "native"))]
    #[must_use]
    pub fn images(&self) -> &ImageStore {
        &self.inner.images
    }

    /// Opens the images of a data directory without being its gateway, beside one that may be running. Must be called
    /// within a Tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] when the directory cannot be used, or not by this user.
    #[cfg(all(target_os = "linux", feature = "native"))]
    pub async fn open_images(data_dir: &Path, config: ImageStoreConfig) -> Result<ImageStore, StartError> {
        Ok(ImageStore::open(&data_dir::images(data_dir)?, config).await?)
    }

    /// What every runtime can do here.
    pub async fn capabilities(&self) -> Capabilities {
        let runtimes = self.inner.backends.capabilities().await;
        let default_runtime = match self.inner.config.default_runtime {
            RuntimeChoice::Auto => Runtime::ALL.into_iter().find(|runtime| runtimes[runtime].available),
            named => backend::named(named).filter(|runtime| runtimes[runtime].available),
        };
        Capabilities { default_runtime, default_image: self.inner.config.default_image.clone(), runtimes }
    }

    /// The largest limits a sandbox can be given here: the host's memory, cores and PIDs.
    #[must_use]
    pub fn host_limits(&self) -> Limits {
        host::limits()
    }

    /// Takes no new executions, waits until the running ones have ended and everything made for them is gone, or
    /// until `grace` is over and then ends them. Returns when nothing is left. The store stays open, for those who still
    /// have to write how their requests ended.
    pub async fn shutdown(&self, grace: Duration) {
        self.inner.permits.close();
        self.inner.closed.cancel();
        self.inner.background.close();
        if tokio::time::timeout(grace, self.inner.permits.all_returned()).await.is_err() {
            tracing::warn!(?grace, "executions are still running after the grace period; they are ended");
        }
        // Ends every sandbox but those that last, with whatever runs in it.
        self.inner.backends.stop().await;
        self.inner.background.wait().await;
        #[cfg(all(target_os = "linux", feature = "native"))]
        self.inner.images.settle().await;
    }
}

async fn open_outputs(
    store: &AnyStore,
    data_dir: &DataDir,
    budget: OutputBudget,
) -> Result<OutputLogs, StartError> {
    let dir = data_dir.private("executions")?;
    let opened = executions::open_outputs(store, &dir, budget).await;
    opened.map_err(|error| StartError::Io { path: dir, source: std::io::Error::other(error) })
}

async fn open_store(data_dir: &DataDir, url: Option<&DatabaseUrl>) -> Result<AnyStore, StartError> {
    let (location, place) = match url {
        Some(url) => (StoreLocation::Url(url.clone()), format!("database_url {}", url.shown())),
        None => {
            let file = data_dir.path().join("store.db");
            let place = file.display().to_string();
            (StoreLocation::File(file), place)
        }
    };
    let opened = AnyStore::open(&location, data_dir.gateway_id().as_str()).await;
    opened.map_err(|source| StartError::Store { place, source })
}
