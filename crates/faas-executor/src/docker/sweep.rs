//! Removes containers that bear this gateway's mark and that nobody owns: what an earlier gateway of the data directory
//! left, and what the engine did not remove when it was asked to.

use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::ListContainersOptionsBuilder;
use futures_util::{StreamExt as _, stream};

use super::client::{CallError, SLOW};
use super::probe::Live;
use super::shared::Shared;
use super::{destroy, labels};

/// How long it is waited for the next sweep when all is well.
const PERIOD: Duration = Duration::from_secs(60);

/// How long it is waited when something is known to be left.
const SOON: Duration = Duration::from_secs(2);

/// How many are removed at once.
const AT_ONCE: usize = 8;

/// Sweeps for as long as the backend runs: at its start, each [`PERIOD`], when the engine comes back, and a little
/// after something could not be removed.
pub(super) async fn keep_sweeping(shared: Arc<Shared>) {
    let mut wait = Duration::ZERO;
    // Whether something is known to be left, so that the engine's return is worth asking for.
    let mut left = false;
    loop {
        tokio::select! {
            () = shared.closed.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = shared.probe.came_back.notified() => {}
            () = shared.owed.notified() => {
                left = true;
                tokio::time::sleep(SOON).await;
            }
        }
        let swept = match shared.probe.for_work().await {
            Ok(live) => sweep(&shared, &live).await.map_err(|error| {
                shared.probe.note(&error);
                error.to_string()
            }),
            // Nothing can be done now.
            Err(_reason) => {
                wait = if left { SOON } else { PERIOD };
                continue;
            }
        };
        left = swept.is_err();
        wait = match swept {
            Ok(0) => PERIOD,
            Ok(count) => {
                tracing::warn!(count, "removed containers that nobody owned");
                PERIOD
            }
            Err(error) => {
                tracing::warn!(error, "containers could not be swept");
                SOON
            }
        };
    }
}

/// Removes all that nobody owns; how many there were.
pub(super) async fn sweep(shared: &Shared, live: &Live) -> Result<usize, CallError> {
    let filter = ("label".to_owned(), vec![format!("{}={}", labels::GATEWAY, shared.gateway)]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&[filter].into()).build();
    let listed = live.client.docker.list_containers(Some(options));
    let listed = live.client.call("list containers", SLOW, listed).await?;
    let orphans: Vec<_> = listed
        .into_iter()
        .filter_map(|container| {
            let sandbox =
                labels::sandbox_of(&shared.gateway, container.labels.as_ref(), container.names.as_deref())?;
            if shared.owned().contains(&sandbox) { None } else { container.id }
        })
        .collect();
    let count = orphans.len();
    let removals = orphans.into_iter().map(|id| {
        let client = live.client.clone();
        async move { destroy::remove(&client, &id).await }
    });
    let mut removals = stream::iter(removals).buffer_unordered(AT_ONCE);
    let mut failed = None;
    while let Some(removed) = removals.next().await {
        if let Err(error) = removed {
            failed = Some(error);
        }
    }
    failed.map_or(Ok(count), Err)
}
