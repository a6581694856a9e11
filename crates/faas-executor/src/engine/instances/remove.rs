//! The end of an instance: from any state, in bounded time.

use std::sync::Arc;
use std::time::Duration;

use faas_types::{InstanceId, TenantId};

use super::Instances;
use super::live::Live;
use crate::error::EngineError;
use crate::state::InstanceState;
use crate::store::{NewEvent, Store as _, StoreError};

/// How long a caller waits for it.
const WITHIN: Duration = Duration::from_secs(9);

/// After how long removing is tried again.
pub(super) const AGAIN: Duration = Duration::from_secs(2);

/// How a removal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Nothing of it is left.
    Gone,
    /// It is being removed, which is not stopped by anything, and takes longer than a caller waits.
    UnderWay,
}

impl Instances {
    /// Removes an instance with its files, whatever its state: one that is being made, too. Once more: nothing is done.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] where the tenant never had one of that id.
    pub async fn delete(&self, tenant: &TenantId, id: &InstanceId) -> Result<Removal, EngineError> {
        let live = match self.live(tenant, id) {
            Ok(live) => live,
            Err(missing) => {
                return if self.inner.store.was_deleted(tenant.as_str(), id.as_str()).await? {
                    Ok(Removal::Gone)
                } else {
                    Err(missing)
                };
            }
        };
        live.doomed.cancel();
        let this = self.clone();
        let removed = self.to_its_end(async move { this.remove(&live).await });
        match tokio::time::timeout(WITHIN, removed).await {
            Ok(Ok(())) => Ok(Removal::Gone),
            Ok(Err(error)) => {
                tracing::warn!(instance = %id, %error, "an instance could not be removed; it is tried again");
                Ok(Removal::UnderWay)
            }
            Err(_elapsed) => Ok(Removal::UnderWay),
        }
    }

    /// Removes an instance that is of no use, in the background.
    pub(super) fn remove_soon(&self, live: &Arc<Live>) {
        live.doomed.cancel();
        let (this, live) = (self.clone(), Arc::clone(live));
        self.inner.background.spawn(async move {
            if let Err(error) = this.remove(&live).await {
                tracing::warn!(instance = %live.info().id, %error, "an instance could not be removed; it is tried again");
            }
        });
    }

    pub(super) async fn remove(&self, live: &Live) -> Result<(), EngineError> {
        let _turn = live.turn.lock().await;
        let info = live.info();
        if self.inner.instances.get(&info.id).is_none() {
            // Somebody else was first.
            return Ok(());
        }
        if info.state != InstanceState::Deleting {
            let reason = Some("it is being deleted".to_owned());
            match self.become_state(live, InstanceState::Deleting, reason).await {
                // It has no row: it was being made, or is gone from there already.
                Ok(()) | Err(EngineError::Store(StoreError::Stale)) => {}
                Err(error) => return Err(error),
            }
        }
        let backend = self.backend(info.runtime)?;
        live.drop_connections();
        let sandbox = live.place.write().await.sandbox.take();
        if let Some(sandbox) = sandbox
            && let Err(error) = backend.destroy(sandbox).await
        {
            tracing::warn!(instance = %info.id, %error, "a sandbox could not be destroyed by its handle");
        }
        backend.remove(&info.sandbox_id(), info.record.as_ref()).await?;
        let lost = self.lose_executions(live).await;
        let event = NewEvent { kind: "instance.deleted".to_owned(), ..info.event() };
        let (tenant, id) = (info.tenant.as_str(), info.id.as_str());
        self.inner.store.delete_instance(tenant, id, event.at_ms, Some(&event)).await?;
        self.let_read(&lost).await;
        self.remove_outputs(&info.id).await;
        self.inner.instances.remove(&info.id);
        tracing::info!(instance = %info.id, "deleted");
        Ok(())
    }
}
