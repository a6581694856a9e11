//! Finds a lasting container by its record: it runs, its processes are gone, or all of it is.

use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerState};
use bollard::query_parameters::InspectContainerOptions;

use super::client::{CallError, QUICK, unavailable};
use super::executor::DockerHandle;
use super::lease::Lease;
use super::measure::DiskUse;
use super::probe::Live;
use super::record::{Record, boot_id};
use super::shared::Shared;
use super::state::{Condition, condition, ending};
use super::{halt, labels, transport};
use crate::docker::config::EngineAddress;
use crate::sandbox::{BackendHandle, Found, SandboxError, SandboxHandle, SandboxSpec};

/// What ended a sandbox whose host was booted since: one word, that others understand.
const HOST_REBOOTED: &str = "host_rebooted";

/// How long an engine may need until it knows that a container has ended.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

/// One lasting container that is looked for.
pub(super) struct Adopt<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) live: &'a Live,
    pub(super) spec: &'a SandboxSpec,
    pub(super) record: &'a Record,
}

impl Adopt<'_> {
    /// Looks for it.
    pub(super) async fn run(&self) -> Result<Found, SandboxError> {
        let rebooted = boot_id()? != self.record.boot_id;
        is_its_engine(self.live, self.record)?;
        let _turn = self.shared.turns.turn(self.spec.id.as_str()).await;
        // From the start on, so that no sweep takes it for nobody's.
        self.shared.claims().keep(&self.spec.id, self.record.run.clone());
        let gone = |reason: &str| {
            self.shared.claims().forget(&self.spec.id);
            self.shared.sweep_soon();
            Ok(Found::Gone { reason: if rebooted { HOST_REBOOTED } else { reason }.to_owned() })
        };
        loop {
            let Some(inspected) = self.inspect().await? else {
                return gone("its container is gone: somebody removed it");
            };
            let labels = inspected.config.as_ref().and_then(|config| config.labels.as_ref());
            if labels::marked(&self.shared.gateway, labels).as_ref() != Some(&self.spec.id) {
                return gone("its container is gone: what has its id bears another mark");
            }
            let is_kept = inspected.name.as_deref().is_some_and(labels::is_kept);
            let state = inspected.state.unwrap_or_default();
            return match condition(&state) {
                Condition::Going => gone("its container is being removed"),
                Condition::Ended if rebooted => Ok(Found::Stopped { reason: HOST_REBOOTED.to_owned() }),
                Condition::Ended => Ok(Found::Stopped { reason: self.ended(&state).await }),
                Condition::Runs { paused } if is_kept && self.is_on_record(&state) => {
                    match self.take(&state, paused)? {
                        Some(found) => Ok(found),
                        None => {
                            // The engine has not noticed yet.
                            self.wait().await?;
                            continue;
                        }
                    }
                }
                Condition::Runs { .. } => {
                    let container = &self.record.run.container;
                    let ended = halt::end(&self.live.client, container).await;
                    ended.map_err(|error| self.failed(error))?;
                    let reason = match (rebooted, is_kept) {
                        (true, _) => HOST_REBOOTED,
                        (false, false) => "it was not to go on without the server that had made it",
                        (false, true) => "its container was started anew by somebody else",
                    };
                    Ok(Found::Stopped { reason: reason.to_owned() })
                }
            };
        }
    }

    fn is_on_record(&self, state: &ContainerState) -> bool {
        state.started_at.as_deref() == Some(&self.record.run.started_at)
    }

    /// How it ended, with what is known of the engine itself.
    async fn ended(&self, state: &ContainerState) -> String {
        let mut reason = ending(state);
        if let (EngineAddress::Unix(path), Some(then)) =
            (&self.shared.config.host, &self.record.engine_process)
            && let Some(now) = transport::engine_process(path).await
            && now != *then
        {
            reason.push_str("; the engine was restarted since it was started");
        }
        reason
    }

    fn failed(&self, error: CallError) -> SandboxError {
        self.shared.probe.note(&error);
        error.into_sandbox_error()
    }

    async fn inspect(&self) -> Result<Option<ContainerInspectResponse>, SandboxError> {
        let container = &self.record.run.container;
        let inspected = self.live.client.docker.inspect_container(container, None::<InspectContainerOptions>);
        match self.live.client.call("tell of a container", QUICK, inspected).await {
            Ok(inspected) => Ok(Some(inspected)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn wait(&self) -> Result<(), SandboxError> {
        let container = &self.record.run.container;
        let ended = halt::wait(&self.live.client, container, NOTICED_WITHIN).await;
        ended.map_err(|error| self.failed(error))
    }

    /// Takes hold of its first process; none where that has ended.
    #[cfg(target_os = "linux")]
    fn take(&self, state: &ContainerState, paused: bool) -> Result<Option<Found>, SandboxError> {
        use super::counters::Counters;
        use super::transport::socket::{Init, InitError};
        let pid = state.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        let init = match Init::open(pid, &self.record.run.container) {
            Ok(init) => init,
            Err(InitError::Ended) => return Ok(None),
            Err(error @ (InitError::Elsewhere { .. } | InitError::Io(_))) => {
                return Err(unavailable(error.to_string()));
            }
        };
        let counters = Counters::find(&init.cgroups).map(Box::new);
        let backend = BackendHandle::Docker(DockerHandle {
            container: self.record.run.container.clone(),
            init: Some(init),
            counters,
            lease: Lease::new(self.shared, self.spec.id.clone(), None),
            record: Some(Box::new(self.record.clone())),
            disk: DiskUse::default(),
        });
        let (id, image) = (self.spec.id.clone(), self.record.defaults());
        Ok(Some(Found::Live { handle: SandboxHandle { id, image, agent: None, backend }, paused }))
    }

    /// Elsewhere than on Linux no lasting container is made.
    #[cfg(not(target_os = "linux"))]
    fn take(&self, _state: &ContainerState, _paused: bool) -> Result<Option<Found>, SandboxError> {
        Err(unavailable("its first process cannot be looked at here".to_owned()))
    }
}

/// Whether this engine is the one that has a container: another one's word of it would mean nothing.
pub(super) fn is_its_engine(live: &Live, record: &Record) -> Result<(), SandboxError> {
    if live.facts.identity == record.engine {
        return Ok(());
    }
    Err(unavailable(format!(
        "the sandbox is a container of another engine ({}, and this one is {}): set docker_host back to that one",
        record.engine, live.facts.identity
    )))
}
