//! Who owns a container: from before the engine is asked for it until it is gone, exactly one lease.

use std::sync::Arc;
use std::time::Duration;

use faas_types::SandboxId;
use tokio::sync::OwnedSemaphorePermit;

use super::destroy;
use super::labels;
use super::shared::Shared;

/// After what times an abandoned container is looked for, as long as it was not there: a request to make it may
/// still have been under way when its sender was gone.
const LATE: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(5)];

/// The right to a sandbox's container, and the duty to remove it. When it is dropped without [`Lease::settle`] the
/// container is removed in the background; where the engine does not do that, the sweep will.
#[derive(Debug)]
pub(super) struct Lease {
    shared: Arc<Shared>,
    id: SandboxId,
    place: Option<OwnedSemaphorePermit>,
    /// Whether the engine may have the container.
    asked: bool,
}

impl Lease {
    /// For a container that is about to be made.
    pub(super) fn new(shared: &Arc<Shared>, id: SandboxId, place: OwnedSemaphorePermit) -> Self {
        shared.owned().insert(id.clone());
        Self { shared: Arc::clone(shared), id, place: Some(place), asked: false }
    }

    /// The container's name.
    pub(super) fn name(&self) -> String {
        labels::name(&self.shared.gateway, &self.id)
    }

    /// The engine is about to be asked for the container, or (`false`) has refused to make it.
    pub(super) fn set_asked(&mut self, asked: bool) {
        self.asked = asked;
    }

    /// The container is gone.
    pub(super) fn settle(mut self) {
        self.place = None;
        self.shared.owned().remove(&self.id);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        if !self.asked {
            self.shared.owned().remove(&self.id);
            return;
        }
        let (shared, id, name) = (Arc::clone(&self.shared), self.id.clone(), self.name());
        self.shared.spawn(async move {
            let gone = remove(&shared, &name).await;
            drop(place);
            shared.owned().remove(&id);
            if !gone {
                shared.sweep_soon();
            }
        });
    }
}

/// Whether the container is known to be gone.
async fn remove(shared: &Shared, name: &str) -> bool {
    for wait in LATE {
        tokio::time::sleep(wait).await;
        let Ok(live) = shared.probe.for_work().await else { return false };
        match destroy::remove(&live.client, name).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => {
                shared.probe.note(&error);
                tracing::warn!(container = name, %error, "a container is left to the sweep");
                return false;
            }
        }
    }
    true
}
