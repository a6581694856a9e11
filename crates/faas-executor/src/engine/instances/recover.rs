//! What an earlier server left: found again, finished, or told as lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::Instances;
use super::data::{InstanceInfo, now_ms};
use super::live::Live;
use crate::engine::backend::Lasting;
use crate::error::EngineError;
use crate::sandbox::{Found, SandboxError, SandboxSpec};
use crate::state::InstanceState;
use crate::store::{AnyStore, Store as _, StoreError};

/// How many are looked for at once.
const AT_ONCE: usize = 16;

/// Reads what there should be, before any backend is started.
pub(in crate::engine) async fn read(store: &AnyStore) -> Result<Vec<InstanceInfo>, StoreError> {
    store.all_instances().await?.into_iter().map(InstanceInfo::from_row).collect()
}

/// What of it backends are to leave alone.
pub(in crate::engine) fn lasting(instances: &[InstanceInfo]) -> Vec<Lasting> {
    let of = |info: &InstanceInfo| Lasting {
        runtime: info.runtime,
        id: info.sandbox_id(),
        record: info.record.clone(),
    };
    instances.iter().map(of).collect()
}

impl Instances {
    /// Finds every instance of an earlier server. Those whose backend cannot be reached are looked for later.
    pub(in crate::engine) async fn recover(&self, instances: Vec<InstanceInfo>) {
        let lives: Vec<_> =
            (instances.into_iter()).map(|info| Live::new(info, CancellationToken::new())).collect();
        for live in &lives {
            live.lose_sight();
            self.inner.instances.insert(live);
        }
        stream::iter(lives).for_each_concurrent(AT_ONCE, |live| async move { self.find(&live).await }).await;
    }

    /// Finds out what became of an instance.
    pub(super) async fn find(&self, live: &Arc<Live>) {
        let doomed = {
            let _turn = live.turn.lock().await;
            if !live.unseen.load(Ordering::Acquire) {
                return;
            }
            match self.found(live).await {
                Ok(stays) => {
                    live.unseen.store(false, Ordering::Release);
                    if stays {
                        self.recover_executions_or_later(live).await;
                    }
                    !stays
                }
                Err(error) => {
                    tracing::warn!(instance = %live.info().id, %error, "what became of an instance is not known yet");
                    false
                }
            }
        };
        if doomed {
            self.remove_soon(live);
        }
    }

    /// Whether the instance stays; otherwise nobody was ever told of it, or it was being deleted.
    async fn found(&self, live: &Arc<Live>) -> Result<bool, EngineError> {
        let info = live.info();
        match info.state {
            InstanceState::Deleting => return Ok(false),
            InstanceState::Creating if !info.born => return Ok(false),
            InstanceState::Stopped | InstanceState::Failed => {
                // Its files lie over its image.
                let mut spec = info.sandbox_spec();
                match self.lease_image(&info, &mut spec) {
                    Ok(()) => live.hold_image(&spec),
                    Err(error) => tracing::warn!(instance = %info.id, %error, "it cannot be started now"),
                }
                return Ok(true);
            }
            InstanceState::Creating
            | InstanceState::Stopping
            | InstanceState::Running
            | InstanceState::Paused => {}
        }
        let runs = matches!(info.state, InstanceState::Running | InstanceState::Paused);
        if runs && live.place.read().await.sandbox.is_some() {
            // Found already, which could not be written down.
            return self.write_found(live).await.map(|()| true);
        }
        if let Some(sandbox) = live.place.write().await.sandbox.take() {
            // Of this server's: whoever had it could not write down what became of it.
            let record = Some(self.backend(info.runtime)?.halt(sandbox).await?);
            live.set_info(InstanceInfo { record, ..live.info() });
        }
        let Some(record) = live.info().record else {
            let reason = "nothing is known of its sandbox".to_owned();
            return self.become_state(live, InstanceState::Failed, Some(reason)).await.map(|()| true);
        };
        let mut spec = info.sandbox_spec();
        self.lease_image(&info, &mut spec)?;
        live.hold_image(&spec);
        let found = self.backend(info.runtime)?.adopt(&spec, &record).await?;
        match (found, info.state) {
            (Found::Live { handle, paused }, InstanceState::Running | InstanceState::Paused) => {
                live.touch();
                // They were being changed, perhaps, when the server ended; the store says what they are.
                if !paused
                    && let Err(error) = self.backend(info.runtime)?.set_limits(&handle, &info.limits).await
                {
                    tracing::debug!(instance = %info.id, %error, "its limits could not be set again");
                }
                self.settle_in(live, handle).await;
                if paused {
                    let paused_for = info.paused_at_ms.map_or(0, |at| now_ms().saturating_sub(at));
                    let now = Instant::now();
                    let since = now.checked_sub(Duration::from_millis(paused_for)).unwrap_or(now);
                    live.frozen.send_modify(|frozen| frozen.since = Some(since));
                }
                self.write_found(live).await?;
                tracing::info!(instance = %info.id, paused, "found again");
            }
            // It was being stopped or started, and is left stopped.
            (Found::Live { handle, .. }, _) => {
                live.place.write().await.sandbox = Some(handle);
                self.halt(live, InstanceState::Stopped, interrupted(info.state)).await?;
            }
            (Found::Stopped { .. }, InstanceState::Creating | InstanceState::Stopping) => {
                self.become_state(live, InstanceState::Stopped, interrupted(info.state)).await?;
            }
            (Found::Stopped { reason }, _) => {
                tracing::warn!(instance = %info.id, reason, "an instance has failed");
                self.become_state(live, InstanceState::Failed, Some(reason)).await?;
            }
            (Found::Gone { reason }, _) => {
                tracing::warn!(instance = %info.id, reason, "an instance is gone");
                let (state, reason) = (InstanceState::Failed, Some(reason));
                self.write(live, InstanceInfo { state, reason, record: None, ..info }).await?;
            }
        }
        Ok(true)
    }

    /// Writes whether a sandbox that was found is paused, where the store says otherwise.
    async fn write_found(&self, live: &Live) -> Result<(), EngineError> {
        let info = live.info();
        let state =
            if live.frozen.borrow().since.is_some() { InstanceState::Paused } else { InstanceState::Running };
        if state == info.state {
            return Ok(());
        }
        self.become_state(live, state, None).await
    }

    /// Takes hold of the image that an instance was made from.
    #[cfg(all(target_os = "linux", feature = "native"))]
    pub(super) fn lease_image(
        &self,
        info: &InstanceInfo,
        spec: &mut SandboxSpec,
    ) -> Result<(), SandboxError> {
        if let Some(id) = &info.image_id {
            spec.stored = Some(self.inner.images.get(id)?.ok_or_else(|| SandboxError::ImageUnavailable {
                image: info.image.clone(),
                reason: format!("its files ({id}) are not in the image store any more"),
            })?);
        }
        Ok(())
    }

    /// There is no image store to take hold of it in.
    #[cfg(not(all(target_os = "linux", feature = "native")))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "it is as the one with an image store")]
    pub(super) fn lease_image(
        &self,
        _info: &InstanceInfo,
        _spec: &mut SandboxSpec,
    ) -> Result<(), SandboxError> {
        Ok(())
    }
}

fn interrupted(state: InstanceState) -> Option<String> {
    (state == InstanceState::Creating).then(|| "the server ended while it was being started".to_owned())
}
