//! From a specification to a container whose agent is connected: image, container, agent, start, connection.

use std::sync::Arc;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions,
    RenameContainerOptionsBuilder, StartContainerOptions, UploadToContainerOptionsBuilder,
};

use super::client::{CallError, Client, QUICK, SLOW, unavailable};
use super::config::EngineAddress;
use super::counters::Counters;
use super::create::{Owner, body};
use super::executor::DockerHandle;
use super::image::ImageFacts;
use super::lease::Lease;
use super::limits::{self, LimitError};
use super::measure::DiskUse;
use super::probe::Live;
use super::pull::image_unavailable;
use super::record::{Record, Run, boot_id};
use super::refuse::unsupported;
use super::shared::Shared;
use super::state::{Condition, condition};
use super::transport::attach::Attached;
use super::transport::{self, Transport};
use super::{halt, labels, upload};
use crate::guest::AgentStream;
use crate::sandbox::{BackendHandle, ImageDefaults, Lifetime, SandboxError, SandboxHandle, SandboxSpec};

/// Gives a container another name.
pub(super) async fn rename(client: &Client, container: &str, name: &str) -> Result<(), CallError> {
    let options = RenameContainerOptionsBuilder::default().name(name).build();
    let renamed = client.docker.rename_container(container, options);
    match client.call("rename a container", QUICK, renamed).await {
        Err(error) if error.says("same name as its current name") => Ok(()),
        other => other,
    }
}

/// One container on its way.
pub(super) struct Make<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) live: &'a Live,
    pub(super) spec: &'a SandboxSpec,
}

impl Make<'_> {
    /// Makes it. When this fails or is dropped, `lease` removes what there is.
    pub(super) async fn run(&self, mut lease: Lease) -> Result<SandboxHandle, SandboxError> {
        let id = self.container(&mut lease).await?;
        let attached = match self.live.transport {
            Transport::Socket => None,
            Transport::Attach => {
                self.upload(&id).await?;
                // Before the start, so that nothing of what the agent says is missed.
                Some(self.attach(&id).await?)
            }
        };
        self.start(&id).await?;
        let inspected = self.inspect(&id).await?;
        let image = self.image(inspected.image.as_deref().unwrap_or_default()).await?;
        if let Some(misfit) = image.misfit(&self.live.facts.architecture) {
            return Err(image_unavailable(&self.spec.image, misfit));
        }
        let (agent, init, counters) = self.reach(&id, &inspected, attached).await?;
        let record = match self.spec.lifetime {
            Lifetime::Server => None,
            Lifetime::Lasting => {
                let of = (inspected.image.clone().unwrap_or_default(), &image.defaults);
                Some(Box::new(self.record(&id, &inspected, self.shared.agent(), of).await?))
            }
        };
        Ok(SandboxHandle {
            id: self.spec.id.clone(),
            image: image.defaults.clone(),
            agent: Some(agent),
            backend: BackendHandle::Docker(DockerHandle {
                container: id,
                init,
                counters,
                lease,
                record,
                disk: DiskUse::default(),
            }),
        })
    }

    /// Starts one that has ended, and has its files still. When this fails or is dropped, `lease` ends what runs.
    pub(super) async fn again(&self, mut lease: Lease, past: &Record) -> Result<SandboxHandle, SandboxError> {
        let id = past.run.container.clone();
        let inspected = self.inspect(&id).await?;
        let state = inspected.state.unwrap_or_default();
        match condition(&state) {
            Condition::Ended => {}
            // Begun by somebody who did not come to an end with it.
            Condition::Runs { .. } => {
                halt::end(&self.live.client, &id).await.map_err(|error| self.failed(error))?;
            }
            Condition::Going => {
                return Err(SandboxError::Lost { reason: "its container is being removed".to_owned() });
            }
        }
        limits::set(&self.live.client, &id, &self.spec.limits, None).await.map_err(|error| match error {
            LimitError::Call(error) => self.failed(error),
            LimitError::Refused(error) => error,
        })?;
        lease.set_starting(&id);
        if inspected.name.as_deref().is_none_or(labels::is_kept) {
            let name = labels::name_before(&self.shared.gateway, &self.spec.id);
            rename(&self.live.client, &id, &name).await.map_err(|error| self.failed(error))?;
        }
        self.start(&id).await?;
        let inspected = self.inspect(&id).await?;
        let (agent, init, counters) = self.reach(&id, &inspected, None).await?;
        let defaults = past.defaults();
        let of = (past.image.clone(), &defaults);
        let record = self.record(&id, &inspected, past.agent.clone(), of).await?;
        Ok(SandboxHandle {
            id: self.spec.id.clone(),
            image: defaults,
            agent: Some(agent),
            backend: BackendHandle::Docker(DockerHandle {
                container: id,
                init,
                counters,
                lease,
                record: Some(Box::new(record)),
                disk: DiskUse::default(),
            }),
        })
    }

    /// What it is found by again, now that it runs.
    async fn record(
        &self,
        id: &str,
        inspected: &ContainerInspectResponse,
        agent: String,
        image: (String, &ImageDefaults),
    ) -> Result<Record, SandboxError> {
        let started_at = inspected.state.as_ref().and_then(|state| state.started_at.clone());
        let run = Run { container: id.to_owned(), started_at: started_at.unwrap_or_default() };
        let process = match &self.shared.config.host {
            EngineAddress::Unix(path) => transport::engine_process(path).await,
            EngineAddress::Tcp(_) | EngineAddress::Tls { .. } => None,
        };
        let engine = (self.live.facts.identity.clone(), process);
        Ok(Record::new(run, engine, boot_id()?, agent, image))
    }

    /// What a failed call means, and a note of it.
    fn failed(&self, error: CallError) -> SandboxError {
        self.shared.probe.note(&error);
        error.into_sandbox_error()
    }

    /// Has the engine make the container, which does not run yet; its id.
    async fn container(&self, lease: &mut Lease) -> Result<String, SandboxError> {
        self.ask(lease).await.map_err(|error| self.refused(error))
    }

    async fn ask(&self, lease: &mut Lease) -> Result<String, CallError> {
        let owner = Owner {
            gateway: &self.shared.gateway,
            data_dir: &self.shared.data_dir,
            agent_dir: &self.shared.agent_dir,
            runtime: self.shared.config.runtime.as_deref(),
        };
        let (gateway, sandbox) = (&self.shared.gateway, &self.spec.id);
        let name = match self.spec.lifetime {
            Lifetime::Server => labels::name(gateway, sandbox),
            Lifetime::Lasting => labels::name_before(gateway, sandbox),
        };
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let body = body(self.spec, owner, self.live.transport);
        lease.set_asked(&name);
        let made = self.live.client.docker.create_container(Some(options), body);
        match self.live.client.call("make a container", SLOW, made).await {
            Ok(made) => Ok(made.id),
            Err(error) => {
                if let CallError::Refused { .. } = error {
                    lease.set_refused();
                }
                Err(error)
            }
        }
    }

    /// Why the engine makes no container, by its words: it has no codes for these.
    fn refused(&self, error: CallError) -> SandboxError {
        let CallError::Refused { status, message, .. } = &error else { return self.failed(error) };
        let says = |words: &str| message.contains(words);
        if *status == 404 && says("image") {
            return image_unavailable(&self.spec.image, message.clone());
        }
        if says("invalid reference format") || says("repository name") {
            return image_unavailable(&self.spec.image, format!("{message}: this is no name of an image"));
        }
        if says("storage-opt") || says("storage option") {
            return unsupported("disk_mb", message.clone());
        }
        if says("bind source path does not exist") || says("bind mount") {
            tracing::error!(%error, "the engine does not see the server's data directory");
            let reason =
                "the engine does not see the server's data directory: set docker_transport to `attach`";
            return unavailable(reason.to_owned());
        }
        if *status == 400 {
            // A number that this engine's host does not have.
            return unsupported("this sandbox", message.clone());
        }
        self.failed(error)
    }

    async fn upload(&self, id: &str) -> Result<(), SandboxError> {
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        let archive = bollard::body_full(upload::archive().into());
        let sent = self.live.client.docker.upload_to_container(id, Some(options), archive);
        self.live.client.call("take in the guest agent", SLOW, sent).await.map_err(|error| self.failed(error))
    }

    async fn attach(&self, id: &str) -> Result<AgentStream, SandboxError> {
        let options = AttachContainerOptionsBuilder::default().stream(true).stdin(true).stdout(true).build();
        let attached = self.live.client.docker.attach_container(id, Some(options));
        let attached = self.live.client.call("attach to a container", QUICK, attached).await;
        attached.map(|attached| AgentStream::new(Attached::new(attached))).map_err(|error| self.failed(error))
    }

    async fn start(&self, id: &str) -> Result<(), SandboxError> {
        let started = self.live.client.docker.start_container(id, None::<StartContainerOptions>);
        self.live.client.call("start a container", SLOW, started).await.map_err(|error| {
            if error.says("exec format error") {
                return unavailable("the engine's host cannot run the server's guest agent".to_owned());
            }
            if error.says("bind source path does not exist") {
                let reason = "the guest agent that it was made with is gone from the data directory";
                return SandboxError::Lost { reason: reason.to_owned() };
            }
            if error.says("memory limit too low") || error.says("OOM-killed") {
                return unsupported("memory_mb", "the engine's runtime needs more memory than that to start");
            }
            self.failed(error)
        })
    }

    async fn inspect(&self, id: &str) -> Result<ContainerInspectResponse, SandboxError> {
        let inspected = self.live.client.docker.inspect_container(id, None::<InspectContainerOptions>);
        match self.live.client.call("tell of a container", QUICK, inspected).await {
            Err(error) if error.is_not_found() => {
                Err(SandboxError::Lost { reason: "somebody removed its container".to_owned() })
            }
            other => other.map_err(|error| self.failed(error)),
        }
    }

    async fn image(&self, id: &str) -> Result<Arc<ImageFacts>, SandboxError> {
        if let Some(known) = self.shared.known_image(id) {
            return Ok(known);
        }
        let inspected = self.live.client.docker.inspect_image(id);
        let inspected = self.live.client.call("tell of an image", QUICK, inspected).await;
        let image = Arc::new(ImageFacts::new(inspected.map_err(|error| self.failed(error))?));
        self.shared.remember_image(id, Arc::clone(&image));
        Ok(image)
    }

    #[cfg(target_os = "linux")]
    async fn reach(
        &self,
        id: &str,
        inspected: &ContainerInspectResponse,
        attached: Option<AgentStream>,
    ) -> Result<(AgentStream, Option<super::transport::socket::Init>, Option<Box<Counters>>), SandboxError>
    {
        use super::transport::socket::{Init, InitError};
        if let Some(attached) = attached {
            return Ok((attached, None, None));
        }
        let state = inspected.state.as_ref();
        let pid = state.and_then(|state| state.pid).and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        let init = Init::open(pid, id).map_err(|error| match error {
            InitError::Elsewhere { .. } => unavailable(error.to_string()),
            InitError::Ended | InitError::Io(_) => {
                let told = state.and_then(|state| state.error.as_deref()).filter(|text| !text.is_empty());
                let told = told.map(|text| format!(" ({text})")).unwrap_or_default();
                SandboxError::Lost { reason: format!("{error}{told}") }
            }
        })?;
        let counters = Counters::find(&init.cgroups).map(Box::new);
        Ok((init.connect().await?, Some(init), counters))
    }

    /// Elsewhere than on Linux containers are attached to.
    #[cfg(not(target_os = "linux"))]
    async fn reach(
        &self,
        _id: &str,
        _inspected: &ContainerInspectResponse,
        attached: Option<AgentStream>,
    ) -> Result<(AgentStream, Option<std::convert::Infallible>, Option<Box<Counters>>), SandboxError> {
        let agent = attached.ok_or_else(|| unavailable("it is not attached to".to_owned()))?;
        Ok((agent, None, None))
    }
}
