//! A new instance.

use std::sync::Arc;

use faas_guest_protocol::Program;
use faas_types::{InstanceId, OnTimeout, RuntimeChoice};
use tokio_util::sync::CancellationToken;

use super::data::{InstanceInfo, NewInstance, now_ms};
use super::live::Live;
use super::{Instances, live};
use crate::engine::execute::{self, Call};
use crate::engine::{InputFile, execute::place};
use crate::error::EngineError;
use crate::guest::{AgentConnection, Collected, GuestError};
use crate::sandbox::{SandboxError, SandboxHandle, SandboxRecord, SandboxSpec};
use crate::state::InstanceState;
use crate::store::{Store as _, StoreError};

/// A program that every sandbox has: its own agent, which with this argument says its version and ends.
const NOTHING: [&str; 2] = ["/.faas/agent", "--version"];

/// How long putting the files of a new instance in place may take.
const FILES_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

impl Instances {
    /// Makes an instance and returns when commands can be run in it. When the future is dropped it is deleted again:
    /// nobody was told its id.
    ///
    /// # Errors
    /// [`EngineError`]; then there is no instance.
    pub async fn create(&self, new: NewInstance) -> Result<InstanceInfo, EngineError> {
        let config = &self.inner.config;
        let choice = match new.runtime {
            RuntimeChoice::Auto => config.default_runtime,
            named => named,
        };
        let image = new.image.clone().unwrap_or_else(|| config.default_image.clone());
        let id = InstanceId(format!("ins-{}", &uuid::Uuid::now_v7().simple().to_string()[16..]));
        let now = now_ms();
        let mut info = InstanceInfo {
            id,
            tenant: new.tenant,
            name: new.name,
            image,
            image_id: None,
            // Set below, by who takes it.
            runtime: faas_types::Runtime::Native,
            state: InstanceState::Creating,
            reason: None,
            created_at_ms: now,
            // Set below: fetching an image does not count.
            ttl_ends_at_ms: None,
            last_active_at_ms: now,
            paused_at_ms: None,
            born: false,
            defaults: new.defaults,
            limits: new.limits,
            network: new.network,
            times: new.times,
            main: new.main,
            main_run: None,
            labels: new.labels,
            parent_id: None,
            snapshot_id: None,
            record: None,
            revision: 0,
        };
        let mut spec = info.sandbox_spec();
        // Before there is anything of it: fetching an image can take long.
        let backend = place(&self.inner, choice, &mut spec).await?;
        info.runtime = backend.runtime();
        info.image_id = execute::image_id(&spec);
        info.ttl_ends_at_ms = info.times.ttl_ms.map(|ttl| now_ms().saturating_add(ttl));
        let wanted = CancellationToken::new();
        let (this, doomed) = (self.clone(), wanted.clone());
        let unwanted = wanted.drop_guard();
        let made = self.to_its_end(async move { this.make(info, spec, new.files, doomed).await }).await;
        // It has its own end from here on.
        unwanted.disarm();
        made
    }

    async fn make(
        &self,
        mut info: InstanceInfo,
        spec: SandboxSpec,
        files: Vec<InputFile>,
        doomed: CancellationToken,
    ) -> Result<InstanceInfo, EngineError> {
        let most = self.inner.config.max_instances;
        let place = self.inner.instances.reserve(most).ok_or(EngineError::TooManyInstances { most })?;
        if self.inner.is_closed() {
            return Err(EngineError::ShuttingDown);
        }
        let (row, event) = (info.to_row()?, info.event());
        info.revision = 1;
        let live = Live::new(info, doomed);
        live.hold_image(&spec);
        let turn = live.turn.lock().await;
        // Before its row: whoever finds that can delete it.
        self.inner.instances.insert(&live);
        drop(place);
        if let Err(error) = self.inner.store.insert_instance(&row, Some(&event)).await {
            if matches!(error, StoreError::NameTaken { .. } | StoreError::Exists { .. }) {
                self.inner.instances.remove(&live.info().id);
            } else {
                // Its row may be there all the same.
                drop(turn);
                self.remove_soon(&live);
            }
            return Err(error.into());
        }
        let made = async {
            let sandbox = self.bear(&live, &spec, None).await?;
            let pausable = self.can_be_paused(&live, &sandbox).await;
            let put = self.put_files(&live, &sandbox, files).await;
            // From here on whoever removes the instance ends it.
            self.settle_in(&live, sandbox).await;
            pausable?;
            put?;
            if live.doomed.is_cancelled() {
                return Err(deleted_meanwhile());
            }
            self.run_main(&live, 0).await?;
            live.touch();
            let running = InstanceInfo { state: InstanceState::Running, born: true, ..live.info() };
            self.write(&live, running).await
        };
        let made = made.await;
        drop(turn);
        match made {
            Ok(()) => Ok(live.info()),
            Err(error) => {
                self.remove_soon(&live);
                Err(error)
            }
        }
    }

    /// Makes the sandbox of an instance, for the first time or over the files that `record` leads to, and has it last.
    /// Only for who has the turn.
    pub(super) async fn bear(
        &self,
        live: &Arc<Live>,
        spec: &SandboxSpec,
        record: Option<&SandboxRecord>,
    ) -> Result<SandboxHandle, EngineError> {
        let backend = self.backend(live.info().runtime)?;
        let making = async {
            match record {
                None => backend.create(spec).await,
                Some(record) => backend.revive(spec, record).await,
            }
        };
        let sandbox = tokio::select! {
            made = making => made?,
            () = live.doomed.cancelled() => return Err(deleted_meanwhile()),
        };
        let kept = async {
            let record = Some(backend.record(&sandbox)?);
            self.write(live, InstanceInfo { record, ..live.info() }).await?;
            Ok(backend.keep(&sandbox).await?)
        };
        match kept.await {
            Ok(()) => Ok(sandbox),
            Err(error) => {
                let gone = match record {
                    None => backend.destroy(sandbox).await,
                    Some(_) => backend.halt(sandbox).await.map(drop),
                };
                if let Err(error) = gone {
                    tracing::error!(instance = %spec.id, %error, "a sandbox that could not be kept is still there");
                }
                Err(error)
            }
        }
    }

    /// Puts a sandbox that lasts into its place and begins to watch it. Only for who has the turn.
    pub(super) async fn settle_in(&self, live: &Arc<Live>, sandbox: SandboxHandle) {
        let ended = self.backend(live.info().runtime).and_then(|backend| Ok(backend.ended(&sandbox)?));
        let count = {
            let mut place = live.place.write().await;
            place.count += 1;
            place.sandbox = Some(sandbox);
            place.count
        };
        live.frozen.send_replace(live::Frozen::default());
        match ended {
            Ok(ended) => {
                let (this, live) = (self.clone(), Arc::downgrade(live));
                self.inner.watchers.spawn(async move {
                    let reason = ended.await;
                    if let Some(live) = live.upgrade() {
                        this.sandbox_ended(&live, count, reason).await;
                    }
                });
            }
            Err(error) => {
                tracing::error!(instance = %live.info().id, %error, "an instance cannot be watched");
            }
        }
    }

    /// Whether one that is to be paused when its time is over can be: where not, that is said at once and not then.
    async fn can_be_paused(&self, live: &Live, sandbox: &SandboxHandle) -> Result<(), EngineError> {
        let info = live.info();
        if info.times.on_timeout != OnTimeout::Pause {
            return Ok(());
        }
        let backend = self.backend(info.runtime)?;
        backend.pause(sandbox).await?;
        Ok(backend.resume(sandbox).await?)
    }

    async fn put_files(
        &self,
        live: &Live,
        sandbox: &SandboxHandle,
        files: Vec<InputFile>,
    ) -> Result<(), EngineError> {
        if files.is_empty() {
            return Ok(());
        }
        let info = live.info();
        let backend = self.backend(info.runtime)?;
        let call = Call {
            program: Program::Argv(NOTHING.map(str::to_owned).to_vec()),
            env: Vec::new(),
            working_dir: info.defaults.working_dir,
            user: info.defaults.user,
            stdin: None,
            files,
            timeout: FILES_WITHIN,
            max_output_bytes: 0,
            held: None,
        };
        let mut connection = AgentConnection::new(backend.connect(sandbox).await?);
        let mut collected = Collected::default();
        let put = connection.exec(call.for_image(&sandbox.image), &mut collected);
        let lost = |reason: String| SandboxError::Lost { reason };
        match tokio::time::timeout(FILES_WITHIN, put).await {
            Ok(Ok(_exit)) => Ok(()),
            Ok(Err(GuestError::Agent(error))) => Err(error.into()),
            Ok(Err(error)) => Err(lost(error.to_string()).into()),
            Err(_elapsed) => Err(lost("its files could not be put in place in time".to_owned()).into()),
        }
    }
}

/// The answer to whoever waited for an instance that somebody else deleted.
pub(super) fn deleted_meanwhile() -> EngineError {
    EngineError::NotFound { what: "the instance, which was deleted meanwhile: it".to_owned() }
}
