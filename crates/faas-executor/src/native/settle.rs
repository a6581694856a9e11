//! A slot between two sandboxes.

use std::sync::Arc;
use std::time::Duration;

use super::slots::Slot;

/// The most memory that may be charged to a slot when the next sandbox comes.
const SETTLED_BYTES: u64 = 16 << 20;

/// How often a slot is looked at while the kernel frees what its sandbox had, and how long apart.
const SETTLE_TRIES: u32 = 50;
const SETTLE_STEP: Duration = Duration::from_millis(20);

/// Waits until the memory of the sandbox that was in a slot is free again: the kernel does some of it later (shared
/// memory, mounts), and files that were read stay in its cache. Whether the slot is fit for another.
pub(super) async fn settle(slot: &Slot) -> bool {
    let Some(cgroup) = &slot.cgroup else { return true };
    for _ in 0..SETTLE_TRIES {
        match cgroup.memory_now() {
            Ok(bytes) if bytes <= SETTLED_BYTES => return true,
            Ok(bytes) => {
                let cgroup = Arc::clone(cgroup);
                let reclaimed = tokio::task::spawn_blocking(move || cgroup.reclaim(bytes - SETTLED_BYTES));
                if !matches!(reclaimed.await, Ok(Ok(()))) {
                    return false;
                }
            }
            Err(_) => return false,
        }
        tokio::time::sleep(SETTLE_STEP).await;
    }
    false
}
