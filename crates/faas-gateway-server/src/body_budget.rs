//! How much of the server's memory request bodies may take: each at most so long, and the large ones together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A body up to this length is not counted: as many of them as there are connections do no harm.
const SMALL_BYTES: u64 = 64 << 10;

/// The unit of the count: a semaphore counts to 2^61, but takes at most 2^32 at a time.
const UNIT_BYTES: u64 = 1 << 10;

/// The rules.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    max_bytes: u64,
    places: Arc<Semaphore>,
}

/// The room of one body, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct BodyRoom {
    _places: Option<OwnedSemaphorePermit>,
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

impl BodyBudget {
    /// `max_bytes` for one body, `total_bytes` for all large ones; the second is not less than the first.
    pub(crate) fn new(max_bytes: u64, total_bytes: u64) -> Self {
        Self { max_bytes, places: Arc::new(Semaphore::new(units(total_bytes) as usize)) }
    }

    /// The longest body.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Waits until there is room for a body of `declared` bytes; one that does not say how long it is may become as
    /// long as any.
    pub(crate) async fn room(&self, declared: Option<u64>) -> BodyRoom {
        let bytes = declared.unwrap_or(self.max_bytes);
        if bytes <= SMALL_BYTES {
            return BodyRoom { _places: None };
        }
        // The semaphore is never closed.
        let places = Arc::clone(&self.places).acquire_many_owned(units(bytes)).await;
        BodyRoom { _places: places.ok() }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::BodyBudget;

    #[tokio::test]
    async fn a_large_body_waits_for_room_and_a_small_one_does_not() {
        let budget = BodyBudget::new(1 << 20, 1 << 20);
        let held = budget.room(Some(600 << 10)).await;
        assert!(budget.room(Some(600 << 10)).now_or_never().is_none());
        assert!(budget.room(None).now_or_never().is_none());
        assert!(budget.room(Some(1 << 10)).now_or_never().is_some());
        drop(held);
        assert!(budget.room(None).now_or_never().is_some());
    }
}
