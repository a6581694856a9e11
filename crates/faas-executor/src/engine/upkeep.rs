//! What grows in the store by itself is held to a size: events, and the tombstones of instances.

use std::sync::Arc;
use std::time::Duration;

use super::Inner;
use super::instances::now_ms;
use crate::store::{Store as _, StoreError};

/// How often what is old is looked for.
const EVERY: Duration = Duration::from_secs(600);

/// How long it is known that there was an instance.
const TOMBSTONES_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many lifecycle events are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRetention {
    /// At most so many.
    pub max_events: u32,
    /// At most for so long.
    pub ttl: Duration,
}

/// Removes what is old, again and again, until the engine closes.
pub(super) async fn keep_small(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            pruned = prune(&inner) => if let Err(error) = pruned {
                tracing::warn!(%error, "what is old could not be removed from the store; it is tried again");
            },
            () = inner.closed.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = inner.closed.cancelled() => return,
        }
    }
}

async fn prune(inner: &Inner) -> Result<(), StoreError> {
    let EventRetention { max_events, ttl } = inner.config.events;
    let events = inner.store.prune_events(before(ttl), max_events).await?;
    let tombstones = inner.store.prune_tombstones(before(TOMBSTONES_FOR)).await?;
    if events + tombstones > 0 {
        tracing::debug!(events, tombstones, "removed from the store, being old");
    }
    Ok(())
}

/// The time so long ago, in milliseconds since 1970.
fn before(ago: Duration) -> i64 {
    let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    i64::try_from(now_ms().saturating_sub(ago)).unwrap_or(i64::MAX)
}
