//! `DockerExecutor`: an engine behind the seam.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerUpdateBody;
use bollard::query_parameters::InspectContainerOptions;
#[cfg(all(target_os = "linux", feature = "native"))]
use bytes::Bytes;
use faas_types::{LimitSupport, LimitsSupport, Runtime, RuntimeCapabilities, SandboxId};
#[cfg(all(target_os = "linux", feature = "native"))]
use futures_util::stream::BoxStream;
use tokio_util::sync::DropGuard;

use super::adopt::{Adopt, is_its_engine};
use super::claims::Claims;
use super::client::{CallError, QUICK, SLOW, unavailable};
use super::config::DockerConfig;
use super::counters::Counters;
use super::facts::Facts;
use super::freeze::freeze;
use super::lease::Lease;
use super::limits::{self, LimitError};
use super::make::{Make, rename};
use super::measure::{self, DiskUse};
use super::probe::Live;
use super::record::Record;
use super::refuse::{refuse, unsupported};
#[cfg(all(target_os = "linux", feature = "native"))]
use super::share;
use super::shared::Shared;
use super::transport::Transport;
use super::{destroy, ended, halt, labels, leaks, pull, remove, sweep};
use crate::agent_binary;
use crate::data_dir::DataDir;
use crate::error::StartError;
use crate::guest::AgentStream;
#[cfg(all(target_os = "linux", feature = "native"))]
use crate::images::{Elsewhere, ImageError};
use crate::sandbox::{
    Account, BackendHandle, Ended, Found, Leak, Lifetime, Limits, Measures, SandboxError, SandboxExecutor,
    SandboxHandle, SandboxRecord, SandboxSpec,
};

/// How long a shutdown waits for containers to be removed.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// The part of a sandbox's handle that is this backend's.
#[derive(Debug)]
pub struct DockerHandle {
    /// The container's id.
    pub(super) container: String,
    /// Its first process, where this host has it.
    #[cfg(target_os = "linux")]
    pub(super) init: Option<super::transport::socket::Init>,
    #[cfg(not(target_os = "linux"))]
    pub(super) init: Option<std::convert::Infallible>,
    /// What the kernel counts in it, where this host shows it.
    pub(super) counters: Option<Box<Counters>>,
    pub(super) lease: Lease,
    /// What it is found by again, where it is lasting.
    pub(super) record: Option<Box<Record>>,
    pub(super) disk: DiskUse,
}

/// Makes sandboxes that are containers of a Docker engine. Clones are one.
#[derive(Clone, Debug)]
pub struct DockerExecutor {
    shared: Arc<Shared>,
    /// Without an executor there is no sweep either.
    _closing: Arc<DropGuard>,
}

impl DockerExecutor {
    /// Puts the guest agent in place and begins to look for the engine, which need not be there. `lasting` are sandboxes
    /// of an earlier server, which are left alone until they are adopted or removed. `places` is how many containers
    /// there are at most at once, lasting ones aside. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`StartError::Io`] when the agent cannot be put into the data directory.
    pub fn start(
        data_dir: &DataDir,
        config: DockerConfig,
        lasting: Vec<(SandboxId, Option<SandboxRecord>)>,
        places: usize,
    ) -> Result<Self, StartError> {
        let mut old_agents = BTreeSet::new();
        let mut kept = BTreeMap::new();
        for (id, record) in lasting {
            let run = record.and_then(|record| match Record::of_seam(&record) {
                Ok(record) => {
                    old_agents.insert(record.agent);
                    Some(record.run)
                }
                Err(error) => {
                    tracing::warn!(sandbox = %id, %error, "a lasting sandbox is left alone");
                    None
                }
            });
            kept.insert(id, run);
        }
        let agent_dir = agent_binary::install_beside(&data_dir.private("docker")?, &old_agents)?;
        let owner = (data_dir.gateway_id().clone(), data_dir.path().to_owned());
        let agents = (agent_dir, old_agents);
        let shared = Arc::new(Shared::new(config, owner, agents, Claims::new(kept), places));
        shared.spawn(sweep::keep_sweeping(Arc::clone(&shared)));
        let closing = Arc::new(shared.closed.clone().drop_guard());
        Ok(Self { shared, _closing: closing })
    }

    /// Ends and removes every container of this gateway but those that are kept. What an engine that is gone still has is removed by the next
    /// gateway of this data directory.
    pub async fn stop(&self) {
        self.shared.closed.cancel();
        self.shared.places.close();
        self.shared.making.close();
        self.shared.claims().release_all();
        let removed = async {
            if let Ok(live) = self.shared.probe.now().await
                && let Err(error) = sweep::sweep(&self.shared, &live).await
            {
                tracing::error!(%error, "containers could not be removed");
            }
            self.shared.tasks.close();
            self.shared.tasks.wait().await;
        };
        if tokio::time::timeout(STOP_WITHIN, removed).await.is_err() {
            tracing::error!("containers could not be removed in time; the next start removes them");
        }
    }

    /// Whether the engine has an image.
    pub(crate) async fn has_image(&self, image: &str) -> Result<bool, SandboxError> {
        let live = self.engine().await?;
        match live.client.call("tell of an image", QUICK, live.client.docker.inspect_image(image)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(CallError::Refused { status: 400, message, .. }) => {
                Err(pull::image_unavailable(image, format!("{message}: this is no name of an image")))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Has the engine fetch an image from its registry. Callers who want the same at the same time wait for one fetch;
    /// `anew` is for one that the engine has already.
    pub(crate) async fn fetch_image(&self, image: &str, anew: bool) -> Result<(), SandboxError> {
        let _turn = self.shared.pulls.turn(image).await;
        // Whoever had the turn before may have fetched it.
        if !anew && self.has_image(image).await? {
            return Ok(());
        }
        let live = self.engine().await?;
        pull::pull(&live, &self.shared.config, image).await
    }

    /// Gives the engine an image of the store, once for all who want it; not one that it has meanwhile.
    #[cfg(all(target_os = "linux", feature = "native"))]
    pub(crate) async fn take_image(
        &self,
        image: &str,
        archive: impl Future<Output = Result<BoxStream<'static, Result<Bytes, ImageError>>, ImageError>>,
    ) -> Result<(), SandboxError> {
        let _turn = self.shared.pulls.turn(image).await;
        if self.has_image(image).await? {
            return Ok(());
        }
        let live = self.engine().await?;
        share::load(&live, image, archive.await?).await
    }

    /// An archive with an image that the engine has; `None` where it has none of that name, or is not there itself.
    #[cfg(all(target_os = "linux", feature = "native"))]
    pub(crate) async fn give_image(&self, image: &str) -> Option<Elsewhere> {
        let live = self.engine().await.ok()?;
        match self.has_image(image).await {
            Ok(true) => Some(share::give(&live, &self.shared, image)),
            Ok(false) => None,
            Err(error) => {
                tracing::debug!(image, %error, "the engine cannot be asked for an image");
                None
            }
        }
    }

    /// What a failed call means, and a note of it.
    fn failed(&self, error: CallError) -> SandboxError {
        self.shared.probe.note(&error);
        error.into_sandbox_error()
    }

    /// The engine, for a sandbox that it can make as far as its facts tell.
    async fn engine_for(&self, spec: &SandboxSpec) -> Result<Arc<Live>, SandboxError> {
        let live = self.engine().await?;
        refuse(&live.facts, spec)?;
        if spec.lifetime == Lifetime::Lasting {
            let instances = instances(live.transport, &live.facts);
            if !instances.supported {
                return Err(unsupported("lasting sandboxes", instances.detail));
            }
        }
        Ok(live)
    }

    async fn engine(&self) -> Result<Arc<Live>, SandboxError> {
        self.shared.probe.for_work().await.map_err(unavailable)
    }
}

/// Whether there can be lasting containers.
fn instances(transport: Transport, facts: &Facts) -> LimitSupport {
    if transport == Transport::Attach {
        return LimitSupport::no(
            "the agent is attached to, and a container ends with that connection: a server as root on the engine's own \
             host reaches it by its socket",
        );
    }
    if facts.live_restore {
        return LimitSupport::yes("containers, which go on without the server and without the engine");
    }
    LimitSupport::yes(
        "containers, which go on without the server; the engine's own end is theirs too, and their files stay (dockerd's \
         live-restore is off)",
    )
}

fn closing() -> SandboxError {
    unavailable("the server is shutting down".to_owned())
}

fn removed() -> SandboxError {
    SandboxError::Lost { reason: "somebody removed its container".to_owned() }
}

/// What a lasting sandbox is found by again.
fn recorded(handle: &DockerHandle) -> Result<&Record, SandboxError> {
    let none = || unsupported("keeping this sandbox", "it was made to end with the server");
    handle.record.as_deref().ok_or_else(none)
}

fn image_sharing() -> LimitSupport {
    if cfg!(all(target_os = "linux", feature = "native")) {
        LimitSupport::yes(
            "images go to this server's store and come from it, by their tags, without a registry",
        )
    } else {
        LimitSupport::no("this build has no image store")
    }
}

fn handle(sandbox: &SandboxHandle) -> Result<&DockerHandle, SandboxError> {
    match &sandbox.backend {
        BackendHandle::Docker(handle) => Ok(handle),
        #[cfg(all(target_os = "linux", feature = "native"))]
        BackendHandle::Native(_) => Err(foreign()),
    }
}

#[cfg(all(target_os = "linux", feature = "native"))]
fn foreign() -> SandboxError {
    SandboxError::Lost { reason: "it is a sandbox of another runtime".to_owned() }
}

impl SandboxExecutor for DockerExecutor {
    fn runtime(&self) -> Runtime {
        Runtime::Docker
    }

    async fn capabilities(&self) -> RuntimeCapabilities {
        let live = match self.shared.probe.now().await {
            Ok(live) => live,
            Err(reason) => {
                let no = || LimitSupport::no(reason.clone());
                return RuntimeCapabilities {
                    available: false,
                    reason: Some(reason.clone()),
                    features: BTreeMap::new(),
                    limits: LimitsSupport { memory: no(), cpu: no(), pids: no(), disk: no() },
                };
            }
        };
        let facts = &live.facts;
        let runtime = self.shared.config.runtime.as_deref().unwrap_or(&facts.default_runtime);
        let engine = format!(
            "Docker {}, API {}, storage driver {}, runtime {runtime}",
            facts.version, facts.api, facts.storage
        );
        let socket = live.transport == Transport::Socket;
        let way = if socket { "the agent's socket" } else { "attached to standard input and output" };
        let oom_report = if socket {
            "the container's cgroup, read from outside"
        } else {
            "the container's cgroup, as its guest agent sees it, and the engine's word where that is lost"
        };
        let usage = if socket {
            LimitSupport::yes("the container's cgroup")
        } else {
            LimitSupport::no("it is null: the containers' cgroups are not this host's to read")
        };
        RuntimeCapabilities {
            available: true,
            reason: None,
            features: BTreeMap::from([
                (
                    "agent_transport".to_owned(),
                    LimitSupport::yes(format!("{way}: {}", live.transport_reason)),
                ),
                ("engine".to_owned(), LimitSupport::yes(engine)),
                ("image_sharing".to_owned(), image_sharing()),
                ("instances".to_owned(), instances(live.transport, facts)),
                ("lasting_disk_limit".to_owned(), facts.disk()),
                ("network_egress".to_owned(), facts.egress()),
                ("oom_report".to_owned(), LimitSupport::yes(oom_report)),
                ("usage".to_owned(), usage),
            ]),
            limits: facts.limits(),
        }
    }

    async fn check(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        self.engine_for(spec).await.map(drop)
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<SandboxHandle, SandboxError> {
        let live = self.engine_for(spec).await?;
        let make = Make { shared: &self.shared, live: &live, spec };
        match spec.lifetime {
            Lifetime::Server => {
                let place = Arc::clone(&self.shared.places).acquire_owned().await;
                let place = place.map_err(|_closed| closing())?;
                make.run(Lease::new(&self.shared, spec.id.clone(), Some(place))).await
            }
            Lifetime::Lasting => {
                let _making = self.shared.making.acquire().await.map_err(|_closed| closing())?;
                make.run(Lease::new(&self.shared, spec.id.clone(), None)).await
            }
        }
    }

    #[cfg(target_os = "linux")]
    async fn connect(&self, sandbox: &SandboxHandle) -> Result<AgentStream, SandboxError> {
        match &handle(sandbox)?.init {
            Some(init) => init.connect().await,
            None => {
                Err(unsupported("another connection", "the agent has the container's standard input alone"))
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    async fn connect(&self, _sandbox: &SandboxHandle) -> Result<AgentStream, SandboxError> {
        Err(unsupported("another connection", "the agent has the container's standard input alone"))
    }

    async fn account(&self, sandbox: &SandboxHandle) -> Result<Account, SandboxError> {
        let handle = handle(sandbox)?;
        if let Some(counters) = &handle.counters
            && let Some(kills) = counters.oom_kills()
        {
            return Ok(Account { oom_kills: Some(kills), usage: counters.usage() });
        }
        // Its cgroups are not to be seen here, or went with it.
        let live = self.engine().await?;
        let inspected =
            live.client.docker.inspect_container(&handle.container, None::<InspectContainerOptions>);
        let inspected = live.client.call("tell of a container", QUICK, inspected).await;
        let state = inspected.map_err(|error| self.failed(error))?.state.unwrap_or_default();
        // Some engines say it of a container that runs, others when it has ended; none says that it is not so.
        let oom_kills = state.oom_killed.filter(|killed| *killed).map(|_killed| 1);
        Ok(Account { oom_kills, ..Account::default() })
    }

    async fn pause(&self, sandbox: &SandboxHandle) -> Result<(), SandboxError> {
        let (handle, live) = (handle(sandbox)?, self.engine().await?);
        let pause = || {
            live.client.call("pause a container", SLOW, live.client.docker.pause_container(&handle.container))
        };
        freeze(pause, |error| self.failed(error)).await
    }

    async fn resume(&self, sandbox: &SandboxHandle) -> Result<(), SandboxError> {
        let (handle, live) = (handle(sandbox)?, self.engine().await?);
        let resumed = live.client.docker.unpause_container(&handle.container);
        match live.client.call("resume a container", SLOW, resumed).await {
            Err(error) if error.says("is not paused") => Ok(()),
            other => other.map_err(|error| self.failed(error)),
        }
    }

    async fn lift_cpu_limit(&self, sandbox: &SandboxHandle) -> Result<(), SandboxError> {
        let (handle, live) = (handle(sandbox)?, self.engine().await?);
        // An engine does not let a limit be taken away; all of its host's cores are the same.
        let all = ContainerUpdateBody {
            nano_cpus: Some(live.facts.cores.saturating_mul(1_000_000_000)),
            ..ContainerUpdateBody::default()
        };
        let updated = live.client.docker.update_container(&handle.container, all);
        let updated = live.client.call("lift a container's CPU limit", QUICK, updated).await;
        updated.map_err(|error| self.failed(error))
    }

    async fn destroy(&self, sandbox: SandboxHandle) -> Result<(), SandboxError> {
        match sandbox.backend {
            BackendHandle::Docker(DockerHandle { container, lease, .. }) => {
                // Where the engine is gone the lease sees to it that the container goes when it is back.
                lease.condemn(&container);
                let live = self.engine().await?;
                destroy::remove(&live.client, &container).await.map_err(|error| self.failed(error))?;
                lease.settle();
                Ok(())
            }
            #[cfg(all(target_os = "linux", feature = "native"))]
            BackendHandle::Native(_) => Err(foreign()),
        }
    }

    fn record(&self, sandbox: &SandboxHandle) -> Result<SandboxRecord, SandboxError> {
        recorded(handle(sandbox)?)?.to_seam()
    }

    async fn keep(&self, sandbox: &SandboxHandle) -> Result<(), SandboxError> {
        let handle = handle(sandbox)?;
        let run = recorded(handle)?.run.clone();
        let live = self.engine().await?;
        let name = labels::name(&self.shared.gateway, &sandbox.id);
        match rename(&live.client, &handle.container, &name).await {
            Ok(()) => {}
            Err(error) if error.is_not_found() => return Err(removed()),
            Err(error) => return Err(self.failed(error)),
        }
        handle.lease.keep(run);
        Ok(())
    }

    async fn adopt(&self, spec: &SandboxSpec, record: &SandboxRecord) -> Result<Found, SandboxError> {
        let record = Record::of_seam(record)?;
        let live = self.shared.probe.now().await.map_err(unavailable)?;
        if live.transport == Transport::Attach {
            return Err(unavailable(format!(
                "the sandbox is reached by its agent's socket, and now agents are attached to: {}",
                live.transport_reason
            )));
        }
        Adopt { shared: &self.shared, live: &live, spec, record: &record }.run().await
    }

    async fn halt(&self, sandbox: SandboxHandle) -> Result<SandboxRecord, SandboxError> {
        let (id, handle) = match sandbox.backend {
            BackendHandle::Docker(handle) => (sandbox.id, handle),
            #[cfg(all(target_os = "linux", feature = "native"))]
            BackendHandle::Native(_) => return Err(foreign()),
        };
        let record = recorded(&handle)?;
        // Its files stay from here on, whatever comes of this.
        handle.lease.keep(record.run.clone());
        let live = self.engine().await?;
        let _turn = self.shared.turns.turn(id.as_str()).await;
        match halt::end(&live.client, &handle.container).await {
            Ok(_ran) => record.to_seam(),
            Err(error) if error.is_not_found() => Err(removed()),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn revive(
        &self,
        spec: &SandboxSpec,
        record: &SandboxRecord,
    ) -> Result<SandboxHandle, SandboxError> {
        let record = Record::of_seam(record)?;
        let live = self.engine_for(spec).await?;
        is_its_engine(&live, &record)?;
        let _making = self.shared.making.acquire().await.map_err(|_closed| closing())?;
        // Its files are there before and after, whatever comes of this.
        self.shared.claims().keep(&spec.id, record.run.clone());
        let lease = Lease::new(&self.shared, spec.id.clone(), None);
        let _turn = self.shared.turns.turn(spec.id.as_str()).await;
        Make { shared: &self.shared, live: &live, spec }.again(lease, &record).await
    }

    async fn remove(&self, id: &SandboxId, record: Option<&SandboxRecord>) -> Result<(), SandboxError> {
        let record = record.and_then(|record| match Record::of_seam(record) {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::warn!(sandbox = %id, %error, "a sandbox is removed by its marks alone");
                None
            }
        });
        remove::remove(&self.shared, id, record.as_ref()).await
    }

    async fn set_limits(&self, sandbox: &SandboxHandle, limits: &Limits) -> Result<(), SandboxError> {
        let (handle, live) = (handle(sandbox)?, self.engine().await?);
        let held_bytes = handle.counters.as_ref().and_then(|counters| counters.held_bytes());
        limits::set(&live.client, &handle.container, limits, held_bytes).await.map_err(|error| match error {
            LimitError::Call(error) => self.failed(error),
            LimitError::Refused(error) => error,
        })
    }

    fn ended(&self, sandbox: &SandboxHandle) -> Result<Ended, SandboxError> {
        ended::ended(&self.shared, handle(sandbox)?)
    }

    async fn measure(&self, sandbox: &SandboxHandle) -> Result<Measures, SandboxError> {
        let (handle, live) = (handle(sandbox)?, self.engine().await?);
        measure::measure(&live.client, handle).await.map_err(|error| self.failed(error))
    }

    async fn leaks(&self, lasting: &BTreeSet<SandboxId>) -> Result<Vec<Leak>, SandboxError> {
        leaks::leaks(&self.shared, lasting).await
    }
}
