//! A key while its request runs. However that ends, the store learns of it: also where the client has gone and the
//! request with it, and where the store cannot be reached at the moment.

use std::time::Duration;

use faas_executor::store::{KeptAnswer, Store as _, StoreError};
use tokio::sync::oneshot;

use super::Keys;

/// How long the store is left alone after it failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A key that was taken. Dropped, it is given back.
#[derive(Debug)]
pub(super) struct Claim {
    keys: Keys,
    taken: Option<Taken>,
}

#[derive(Debug)]
struct Taken {
    tenant: String,
    key: String,
}

/// What became of the request; none where it can be sent again.
type Outcome = Option<KeptAnswer>;

impl Claim {
    pub(super) fn new(keys: Keys, tenant: String, key: String) -> Self {
        Self { keys, taken: Some(Taken { tenant, key }) }
    }

    /// Keeps the answer, or gives the key back. Returns when it is in the store, or when that has failed once: then it
    /// is tried again until it succeeds or the server ends. The answer goes out in any case, since what it tells of has
    /// happened; a key that the store still takes to be running answers `conflict`, and nothing is run twice.
    pub(super) async fn end(mut self, outcome: Outcome) {
        let Some(taken) = self.taken.take() else { return };
        let (tried, first) = oneshot::channel();
        self.keys.write_behind(taken, outcome, Some(tried));
        // An error is a task that ended before its first try: a runtime that goes down.
        match first.await {
            Ok(()) | Err(_) => {}
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take() {
            self.keys.write_behind(taken, None, None);
        }
    }
}

impl Keys {
    /// Writes in a task of its own, which the end of the request does not end; tells when it was tried once.
    fn write_behind(&self, taken: Taken, outcome: Outcome, mut tried: Option<oneshot::Sender<()>>) {
        let keys = self.clone();
        let writing = async move {
            loop {
                let written = keys.write(&taken, outcome.as_ref()).await;
                if let Some(tried) = tried.take() {
                    // Who waited may have gone.
                    match tried.send(()) {
                        Ok(()) | Err(()) => {}
                    }
                }
                let Err(error) = written else { return };
                tracing::warn!(%error, "the end of a request with an idempotency key cannot be written");
                tokio::select! {
                    () = tokio::time::sleep(RETRY_AFTER) => {}
                    () = keys.stopping.cancelled() => return,
                }
            }
        };
        self.background.spawn_on(writing, &self.runtime);
    }

    async fn write(&self, taken: &Taken, outcome: Option<&KeptAnswer>) -> Result<(), StoreError> {
        let was_taken = match outcome {
            Some(answer) => self.store.finish_key(&taken.tenant, &taken.key, answer).await?,
            None => self.store.forget_key(&taken.tenant, &taken.key).await?,
        };
        if !was_taken {
            tracing::error!("an idempotency key was not in the store any more when its request ended");
        }
        Ok(())
    }
}
