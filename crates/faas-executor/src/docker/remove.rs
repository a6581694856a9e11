//! Removes whatever the engine has of a lasting sandbox.
//!
//! Who asks for it may ask again where it fails; meanwhile what is left is nobody's, and the sweep's.

use std::collections::BTreeSet;
use std::sync::Arc;

use faas_types::SandboxId;

use super::client::{CallError, unavailable};
use super::lease::Lease;
use super::probe::Live;
use super::record::Record;
use super::shared::Shared;
use super::{destroy, sweep};
use crate::sandbox::SandboxError;

/// Removes the containers of a sandbox, found by its record and by their marks.
pub(super) async fn remove(
    shared: &Arc<Shared>,
    id: &SandboxId,
    record: Option<&Record>,
) -> Result<(), SandboxError> {
    // Meanwhile it is somebody's, so that it is no leak and no sweep removes it too.
    let lease = Lease::new(shared, id.clone(), None);
    shared.claims().forget(id);
    let removed = match shared.probe.for_work().await {
        Ok(live) => all(shared, &live, id, record).await.map_err(|error| {
            shared.probe.note(&error);
            error.into_sandbox_error()
        }),
        Err(reason) => Err(unavailable(reason)),
    };
    drop(lease);
    match removed {
        Ok(0) if record.is_none() => {
            // A request to make it may still be under way.
            shared.sweep_soon();
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(error) => {
            shared.sweep_soon();
            Err(error)
        }
    }
}

/// How many there were.
async fn all(
    shared: &Shared,
    live: &Live,
    id: &SandboxId,
    record: Option<&Record>,
) -> Result<usize, CallError> {
    let listed = sweep::list(shared, live).await?;
    let listed = listed.into_iter().filter(|(other, _)| other == id).map(|(_, listed)| listed.container);
    let containers: BTreeSet<_> = listed.chain(record.map(|record| record.run.container.clone())).collect();
    let mut count = 0;
    for container in &containers {
        count += usize::from(destroy::remove(&live.client, container).await?);
    }
    if count == 0
        && let Some(record) = record
        && record.engine != live.facts.identity
    {
        tracing::warn!(
            sandbox = %id, engine = record.engine,
            "a removed sandbox was a container of another engine, which may still have it"
        );
    }
    Ok(count)
}
