//! What is done by one at a time: an image is fetched, the processes of a lasting sandbox are ended or begun.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Turns by name. A name is there as long as somebody holds its turn or waits for it.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits until nobody else has the turn of this name.
    pub(super) async fn turn(&self, name: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody holds or waits for.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(name.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::Turns;

    #[tokio::test]
    async fn one_at_a_time_for_each_name() {
        let turns = Turns::default();
        let first = turns.turn("a").await;
        let _other = turns.turn("b").await;
        let waiting = turns.turn("a");
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        drop(first);
        let _second = waiting.await;
    }
}
