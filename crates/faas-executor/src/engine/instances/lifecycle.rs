//! Stop, start, pause, resume, other limits, and the end of a sandbox that nobody asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use faas_guest_protocol::Program;
use faas_types::{InstanceId, TenantId};

use super::create::deleted_meanwhile;
use super::data::InstanceInfo;
use super::live::Live;
use super::{Instances, allowed};
use crate::engine::execute::{self, Call};
use crate::error::EngineError;
use crate::guest::{AgentConnection, Collected};
use crate::sandbox::{Limits, SandboxError};
use crate::state::{InstanceState, Operation};

/// The program that asks all others of a sandbox to end, and ends when they have.
const TERMINATE: [&str; 2] = ["/.faas/agent", "terminate"];

/// How long telling an agent may take that its sandbox was paused.
const TOLD_WITHIN: Duration = Duration::from_millis(500);

/// Limits to be changed; what is not given stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitChange {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a core.
    pub cpu_millicores: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

impl Instances {
    /// Ends the processes of an instance: asked by SIGTERM, killed after `grace`. Its files stay. Nothing is done to one
    /// that is stopped.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn stop(
        &self,
        tenant: &TenantId,
        id: &InstanceId,
        grace: Duration,
    ) -> Result<InstanceInfo, EngineError> {
        let (this, live) = (self.clone(), self.live(tenant, id)?);
        self.to_its_end(async move {
            let _turn = live.turn.lock().await;
            if !allowed(&live, Operation::Stop)? {
                return Ok(live.info());
            }
            let was_paused = live.info().state == InstanceState::Paused;
            this.become_state(&live, InstanceState::Stopping, None).await?;
            if was_paused {
                this.thaw(&live).await?;
            }
            this.ask_to_end(&live, grace).await;
            if live.doomed.is_cancelled() {
                return Err(deleted_meanwhile());
            }
            this.halt(&live, InstanceState::Stopped, None).await?;
            Ok(live.info())
        })
        .await
    }

    /// Makes the sandbox of an instance again, over its files.
    ///
    /// # Errors
    /// [`EngineError`]; then it stands where it stood.
    pub async fn start(&self, tenant: &TenantId, id: &InstanceId) -> Result<InstanceInfo, EngineError> {
        let (this, live) = (self.clone(), self.live(tenant, id)?);
        self.to_its_end(async move {
            let _turn = live.turn.lock().await;
            if !allowed(&live, Operation::Start)? {
                return Ok(live.info());
            }
            let before = live.info();
            let Some(record) = before.record.clone() else {
                let reason = "its files are not there any more; it can only be deleted".to_owned();
                return Err(SandboxError::Lost { reason }.into());
            };
            let mut spec = before.sandbox_spec();
            this.lease_image(&before, &mut spec)?;
            live.hold_image(&spec);
            this.become_state(&live, InstanceState::Creating, Some("it is being started".to_owned())).await?;
            let sandbox = match this.bear(&live, &spec, Some(&record)).await {
                Ok(sandbox) => sandbox,
                Err(error) => {
                    if !live.doomed.is_cancelled() {
                        let state = before.state;
                        let again = InstanceInfo { state, reason: before.reason, ..live.info() };
                        this.write(&live, InstanceInfo { record: Some(record), ..again }).await?;
                    }
                    return Err(error);
                }
            };
            live.touch();
            this.settle_in(&live, sandbox).await;
            live.set_main_run(None);
            let reason = match this.run_main(&live, 0).await {
                Ok(()) => None,
                Err(error) => Some(format!("its main command could not be started: {error}")),
            };
            let info = live.info();
            let (state, ttl_ends_at_ms) = (InstanceState::Running, info.renewed_ttl());
            this.write(&live, InstanceInfo { state, reason, ttl_ends_at_ms, ..info }).await?;
            Ok(live.info())
        })
        .await
    }

    /// Stops its processes where they are.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn pause(&self, tenant: &TenantId, id: &InstanceId) -> Result<InstanceInfo, EngineError> {
        let (this, live) = (self.clone(), self.live(tenant, id)?);
        self.to_its_end(async move {
            let _turn = live.turn.lock().await;
            this.pause_live(&live, None).await?;
            Ok(live.info())
        })
        .await
    }

    /// Stops its processes where they are, for this reason. Only for who has the turn.
    pub(super) async fn pause_live(
        &self,
        live: &Arc<Live>,
        reason: Option<String>,
    ) -> Result<(), EngineError> {
        if !allowed(live, Operation::Pause)? {
            return Ok(());
        }
        let backend = self.backend(live.info().runtime)?;
        {
            let place = live.place.read().await;
            let sandbox = place.sandbox.as_ref().ok_or_else(|| gone(live))?;
            if let Err(error) = backend.pause(sandbox).await {
                // Some of it may have come to a stop.
                if let Err(error) = backend.resume(sandbox).await {
                    tracing::warn!(instance = %live.info().id, %error, "it may be half paused");
                }
                return Err(error.into());
            }
        }
        live.frozen.send_modify(|frozen| frozen.since = Some(Instant::now()));
        if let Err(error) = self.become_state(live, InstanceState::Paused, reason).await {
            // It stays what the store says, or else the store learns of it later.
            return Err(match self.thaw(live).await {
                Ok(()) => error,
                Err(error) => {
                    live.lose_sight();
                    error
                }
            });
        }
        Ok(())
    }

    /// Lets its processes go on.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn resume(&self, tenant: &TenantId, id: &InstanceId) -> Result<InstanceInfo, EngineError> {
        let live = self.live(tenant, id)?;
        self.resume_live(&live).await
    }

    pub(super) async fn resume_live(&self, live: &Arc<Live>) -> Result<InstanceInfo, EngineError> {
        let (this, live) = (self.clone(), Arc::clone(live));
        self.to_its_end(async move {
            let _turn = live.turn.lock().await;
            this.wake_up(&live).await?;
            Ok(live.info())
        })
        .await
    }

    /// Lets the processes of one that is paused go on. Only for who has the turn.
    pub(super) async fn wake_up(&self, live: &Live) -> Result<(), EngineError> {
        if !allowed(live, Operation::Resume)? {
            return Ok(());
        }
        live.touch();
        self.thaw(live).await?;
        let info = live.info();
        let (state, ttl_ends_at_ms) = (InstanceState::Running, info.renewed_ttl());
        let written = self.write(live, InstanceInfo { state, reason: None, ttl_ends_at_ms, ..info }).await;
        if written.is_err() {
            // It runs, whatever the store says, which learns of it later.
            live.lose_sight();
        }
        written
    }

    /// Gives an instance that runs other limits.
    ///
    /// # Errors
    /// [`EngineError`]; then it has those that it had.
    pub async fn set_limits(
        &self,
        tenant: &TenantId,
        id: &InstanceId,
        change: LimitChange,
    ) -> Result<InstanceInfo, EngineError> {
        let (this, live) = (self.clone(), self.live(tenant, id)?);
        self.to_its_end(async move {
            let _turn = live.turn.lock().await;
            allowed(&live, Operation::Update)?;
            let info = live.info();
            let limits = Limits {
                memory_bytes: change.memory_bytes.unwrap_or(info.limits.memory_bytes),
                cpu_millicores: change.cpu_millicores.unwrap_or(info.limits.cpu_millicores),
                pids: change.pids.unwrap_or(info.limits.pids),
                disk_bytes: info.limits.disk_bytes,
            };
            let backend = this.backend(info.runtime)?;
            let place = live.place.read().await;
            let sandbox = place.sandbox.as_ref().ok_or_else(|| gone(&live))?;
            backend.set_limits(sandbox, &limits).await?;
            let (had, record) = (info.limits, backend.record(sandbox)?);
            if let Err(error) = this.write(&live, InstanceInfo { limits, record: Some(record), ..info }).await {
                if let Err(error) = backend.set_limits(sandbox, &had).await {
                    tracing::warn!(instance = %live.info().id, %error, "it has limits that were not written down");
                }
                return Err(error);
            }
            drop(place);
            Ok(live.info())
        })
        .await
    }

    /// Lets the processes go on, whatever the store says. Only for who has the turn.
    async fn thaw(&self, live: &Live) -> Result<(), EngineError> {
        let backend = self.backend(live.info().runtime)?;
        let place = live.place.read().await;
        let Some(sandbox) = &place.sandbox else { return Ok(()) };
        let frozen_ms = {
            let total = live.frozen.borrow().since.map(|since| since.elapsed());
            total.map(execute::millis).unwrap_or_default()
        };
        // Its agent hears of it before it can act on any time that is over.
        let told = async {
            let stream = backend.connect(sandbox).await.map_err(|error| error.to_string())?;
            let told = AgentConnection::new(stream).was_frozen(frozen_ms).await;
            told.map_err(|error| error.to_string())
        };
        // Where it was killed before the pause there is none, and no other comes while all is stopped.
        match tokio::time::timeout(TOLD_WITHIN, told).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error, "an agent was not told how long it was paused"),
            Err(_elapsed) => tracing::debug!("an agent was not told in time how long it was paused"),
        }
        backend.resume(sandbox).await?;
        live.frozen.send_modify(|frozen| {
            frozen.before += frozen.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        });
        Ok(())
    }

    /// Sends SIGTERM to everything in an instance, and waits until all has ended or `grace` is over.
    async fn ask_to_end(&self, live: &Live, grace: Duration) {
        if grace.is_zero() {
            return;
        }
        let asked = async {
            let backend = self.backend(live.info().runtime)?;
            let place = live.place.read().await;
            let sandbox = place.sandbox.as_ref().ok_or_else(|| gone(live))?;
            let mut connection = AgentConnection::new(backend.connect(sandbox).await?);
            let call = Call {
                program: Program::Argv(TERMINATE.map(str::to_owned).to_vec()),
                env: Vec::new(),
                working_dir: Some("/".to_owned()),
                user: Some("0:0".to_owned()),
                stdin: None,
                files: Vec::new(),
                timeout: grace,
                max_output_bytes: 0,
                held: None,
            };
            let call = call.for_image(&sandbox.image);
            drop(place);
            let mut said = Collected::default();
            let ended = connection.exec(call, &mut said).await;
            ended.map_err(|error| SandboxError::Lost { reason: error.to_string() })?;
            Ok::<_, EngineError>(())
        };
        tokio::select! {
            asked = tokio::time::timeout(grace, asked) => match asked {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(error)) => {
                    tracing::debug!(instance = %live.info().id, %error, "its processes could not be asked to end");
                }
            },
            () = live.doomed.cancelled() => {}
        }
    }

    /// Ends the sandbox and keeps its files; it stands at `state` afterwards. One that was being stopped, and whose runtime
    /// cannot be reached, stands as before and is looked at again. Only for who has the turn.
    pub(super) async fn halt(
        &self,
        live: &Live,
        state: InstanceState,
        reason: Option<String>,
    ) -> Result<(), EngineError> {
        let info = live.info();
        live.drop_connections();
        let sandbox = live.place.write().await.sandbox.take();
        let record = match sandbox {
            Some(sandbox) => match self.backend(info.runtime)?.halt(sandbox).await {
                Ok(record) => {
                    // Whatever becomes of what is written below.
                    live.set_info(InstanceInfo { record: Some(record.clone()), ..live.info() });
                    Some(record)
                }
                // It may run still. Where it was being stopped it goes on being that, and is tried again.
                Err(error @ SandboxError::RuntimeUnavailable { .. }) if state == InstanceState::Stopped => {
                    return Err(error.into());
                }
                Err(error) => {
                    let before = reason.map_or(String::new(), |reason| format!("{reason}; "));
                    let reason = format!("{before}it could not be stopped cleanly: {error}");
                    self.become_state(live, InstanceState::Failed, Some(reason)).await?;
                    return Err(error.into());
                }
            },
            None => info.record.clone(),
        };
        self.write(live, InstanceInfo { state, reason, record, ..info }).await
    }

    /// A sandbox has ended. Where nobody asked for that the instance has failed.
    pub(super) async fn sandbox_ended(&self, live: &Arc<Live>, count: u64, reason: String) {
        let _turn = live.turn.lock().await;
        let info = live.info();
        let is_it = live.place.read().await.count == count;
        if !is_it || !info.state.has_sandbox() {
            return;
        }
        let reason = match self.was_out_of_memory(live).await {
            Some(true) => {
                format!(
                    "it ran out of memory (its limit is {} MiB): {reason}",
                    info.limits.memory_bytes >> 20
                )
            }
            _ => reason,
        };
        tracing::warn!(instance = %info.id, reason, "an instance has failed");
        if let Err(error) = self.halt(live, InstanceState::Failed, Some(reason)).await {
            tracing::error!(instance = %info.id, %error, "what is left of an instance could not be cleared");
            // It is looked at again.
            live.lose_sight();
        }
    }

    async fn was_out_of_memory(&self, live: &Live) -> Option<bool> {
        let backend = self.backend(live.info().runtime).ok()?;
        let place = live.place.read().await;
        let account = backend.account(place.sandbox.as_ref()?).await.ok()?;
        account.oom_kills.map(|kills| kills > 0)
    }
}

pub(super) fn gone(live: &Live) -> EngineError {
    let reason = live.info().reason.unwrap_or_else(|| "its sandbox is not there".to_owned());
    SandboxError::Lost { reason }.into()
}
