//! How much runs at once and how much may wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::EngineError;

/// The places of the engine.
#[derive(Debug)]
pub(super) struct Permits {
    places: Arc<Semaphore>,
    all: u32,
    waiting: AtomicUsize,
    max_waiting: usize,
}

/// Counts one that waits, for as long as it does.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Permits {
    pub(super) fn new(places: usize, max_waiting: usize) -> Self {
        let all = u32::try_from(places.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self {
            places: Arc::new(Semaphore::new(all as usize)),
            all,
            waiting: AtomicUsize::new(0),
            max_waiting,
        }
    }

    /// Waits for a place, in the order of the callers.
    ///
    /// # Errors
    /// [`EngineError::Overloaded`] when too many wait already, [`EngineError::ShuttingDown`] after [`Permits::close`].
    pub(super) async fn acquire(&self) -> Result<OwnedSemaphorePermit, EngineError> {
        let places = Arc::clone(&self.places);
        if let Ok(permit) = places.try_acquire_owned() {
            return Ok(permit);
        }
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _counted = Waiting(&self.waiting);
        if waiting >= self.max_waiting && !self.places.is_closed() {
            return Err(EngineError::Overloaded { waiting });
        }
        Arc::clone(&self.places).acquire_owned().await.map_err(|_closed| EngineError::ShuttingDown)
    }

    /// Gives no more places; whoever waits is refused.
    pub(super) fn close(&self) {
        self.places.close();
    }

    /// Resolves when no place is taken.
    pub(super) async fn all_returned(&self) {
        // A closed semaphore can only be looked at.
        while self.places.available_permits() < self.all as usize {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Permits;
    use crate::error::EngineError;

    #[tokio::test]
    async fn who_cannot_even_wait_is_refused() {
        let permits = Permits::new(1, 0);
        let held = permits.acquire().await.unwrap();
        assert!(matches!(permits.acquire().await, Err(EngineError::Overloaded { .. })));
        drop(held);
        drop(permits.acquire().await.unwrap());
    }

    #[tokio::test]
    async fn who_waits_is_refused_when_the_engine_closes() {
        let permits = std::sync::Arc::new(Permits::new(1, 1));
        let held = permits.acquire().await.unwrap();
        let other = std::sync::Arc::clone(&permits);
        let waiter = tokio::spawn(async move { other.acquire().await.map(drop) });
        tokio::task::yield_now().await;
        permits.close();
        assert!(matches!(waiter.await.unwrap(), Err(EngineError::ShuttingDown)));
        drop(held);
        permits.all_returned().await;
    }
}
