//! A key while its request runs. However that ends, the store learns of it: also where the client has gone and the
//! request with it, and where the store cannot be reached at the moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use faas_executor::MayHaveBegun;
use faas_executor::store::{Begun, KeptAnswer, KeyClaim, Store as _, StoreError};
use faas_types::ErrorCode;
use tokio::sync::oneshot;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument as _;

use super::Keys;
use crate::error::ApiError;

/// How long the store is left alone after it failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Tenant and key.
type Name = (String, String);

/// Which keys requests of this server ask for, have, or still write the end of: each with how many do.
///
/// No other server writes to the store. So a key that the store takes to be running while nobody here is at it but the one
/// who asks is nobody's: it was taken by a request that never learnt of it, since the store's answer was lost.
#[derive(Clone, Debug, Default)]
pub(super) struct AtWork(Arc<Mutex<HashMap<Name, usize>>>);

impl AtWork {
    fn counts(&self) -> MutexGuard<'_, HashMap<Name, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, name: Name) -> Entry {
        *self.counts().entry(name.clone()).or_default() += 1;
        Entry { at_work: self.clone(), name }
    }
}

/// That somebody is at a key.
#[derive(Debug)]
struct Entry {
    at_work: AtWork,
    name: Name,
}

impl Entry {
    fn is_alone(&self) -> bool {
        self.at_work.counts().get(&self.name) == Some(&1)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut counts = self.at_work.counts();
        if let Some(count) = counts.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.name);
            }
        }
    }
}

/// A key that was taken. Dropped, it is given back, or marked as interrupted where something may have begun.
#[derive(Debug)]
pub(super) struct Claim {
    keys: Keys,
    taken: Option<Taken>,
    may_have_begun: MayHaveBegun,
    /// Who waits until nothing is to be written any more waits for this too.
    _open: TaskTrackerToken,
}

/// A key that is this request's.
#[derive(Debug)]
struct Taken(Entry);

/// What became of the request.
#[derive(Debug)]
enum Outcome {
    Answered(KeptAnswer),
    /// Something that outlives it may have begun, and how that ends is not known.
    Interrupted,
    /// It can be sent again.
    Nothing,
}

/// What a request that wants a key gets, where it is not refused.
#[derive(Debug)]
pub(super) enum Taking {
    Taken(Claim),
    /// The answer to the first request.
    Done(KeptAnswer),
}

impl Claim {
    fn new(keys: Keys, taken: Taken) -> Self {
        let open = keys.background.token();
        Self { keys, taken: Some(taken), may_have_begun: MayHaveBegun::default(), _open: open }
    }

    /// For what outlives the request, to say that it may have begun.
    pub(super) fn may_have_begun(&self) -> MayHaveBegun {
        self.may_have_begun.clone()
    }

    fn without_answer(&self) -> Outcome {
        if self.may_have_begun.get() { Outcome::Interrupted } else { Outcome::Nothing }
    }

    /// Keeps the answer; without one gives the key back, or marks it as interrupted. Returns when that is in the store, or
    /// when it has failed once: then it is tried again until it succeeds or the server ends. The answer goes out in any
    /// case, since what it tells of has happened; a key that the store still takes to be running answers `conflict`, and
    /// nothing is run twice.
    pub(super) async fn end(mut self, answer: Option<KeptAnswer>) {
        let Some(taken) = self.taken.take() else { return };
        let outcome = answer.map_or_else(|| self.without_answer(), Outcome::Answered);
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
            self.keys.write_behind(taken, self.without_answer(), None);
        }
    }
}

impl Keys {
    /// Takes a key. In a task of its own: a store that was asked may take it for a request that has gone meanwhile, and
    /// then it is given back.
    ///
    /// # Errors
    /// 409 where the first request has no answer, 422 where it was another one; those of the store.
    pub(super) async fn take(&self, asked: KeyClaim) -> Result<Taking, ApiError> {
        let keys = self.clone();
        let entry = self.at_work.enter((asked.tenant.clone(), asked.key.clone()));
        let taking = async move {
            let begun = keys.begin(&asked, &entry).await.map_err(|error| ApiError::from_store(&error))?;
            let refusal = match begun {
                Begun::New => return Ok(Taking::Taken(Claim::new(keys, Taken(entry)))),
                Begun::Done(kept) => return Ok(Taking::Done(kept)),
                Begun::Running => {
                    let detail = "the first request with this idempotency-key is still running";
                    ApiError::new(ErrorCode::Conflict, detail).retryable(true)
                }
                Begun::Mismatch => {
                    let detail = "this idempotency-key was used for another request: its path or its body is not the \
                                  same";
                    ApiError::new(ErrorCode::InvalidRequest, detail)
                }
                Begun::Interrupted => {
                    let detail = "the first request with this idempotency-key was interrupted: its server ended, or \
                                  lost sight of what it had begun. What it did is not known, and it may still run. \
                                  Look, and use another key";
                    ApiError::new(ErrorCode::Conflict, detail)
                }
            };
            Err(refusal)
        };
        let taking = self.background.spawn_on(taking.in_current_span(), &self.runtime);
        taking.await.unwrap_or_else(|error| Err(ApiError::internal(&error)))
    }

    /// Takes a key in the store; one that is nobody's is given back first.
    async fn begin(&self, asked: &KeyClaim, entry: &Entry) -> Result<Begun, StoreError> {
        let begun = self.store.begin_key(asked).await?;
        if !matches!(begun, Begun::Running) || !entry.is_alone() {
            return Ok(begun);
        }
        tracing::warn!(
            "an idempotency key was taken, and the answer of the store was lost; it is given back"
        );
        self.store.forget_key(&asked.tenant, &asked.key).await?;
        self.store.begin_key(asked).await
    }

    /// Writes in a task of its own, which the end of the request does not end; tells when it was tried once.
    fn write_behind(&self, taken: Taken, outcome: Outcome, mut tried: Option<oneshot::Sender<()>>) {
        let keys = self.clone();
        let writing = async move {
            loop {
                let written = keys.write(&taken, &outcome).await;
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

    async fn write(&self, taken: &Taken, outcome: &Outcome) -> Result<(), StoreError> {
        let (tenant, key) = &taken.0.name;
        let was_taken = match outcome {
            Outcome::Answered(answer) => self.store.finish_key(tenant, key, answer).await?,
            Outcome::Interrupted => self.store.interrupt_key(tenant, key).await?,
            Outcome::Nothing => self.store.forget_key(tenant, key).await?,
        };
        if !was_taken {
            tracing::error!("an idempotency key was not in the store any more when its request ended");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use faas_executor::store::{AnyStore, Begun, KeptAnswer, KeyClaim, Store as _, StoreLocation};
    use faas_types::{ErrorCode, RequestId};

    use super::{Claim, Keys, Taking};

    async fn keys() -> (tempfile::TempDir, Keys) {
        let dir = tempfile::tempdir().unwrap();
        let location = StoreLocation::File(dir.path().join("store.db"));
        let store = AnyStore::open(&location, "gateway").await.unwrap();
        (dir, Keys::new(store, Duration::from_secs(3600)))
    }

    fn asked(key: &str) -> KeyClaim {
        KeyClaim {
            tenant: "default".to_owned(),
            key: key.to_owned(),
            route: "POST /a".to_owned(),
            fingerprint: vec![1],
            at_ms: i64::MAX,
            rerun_interrupted: false,
        }
    }

    async fn taken(keys: &Keys, key: &str) -> Claim {
        match keys.take(asked(key)).await.unwrap() {
            Taking::Taken(claim) => claim,
            Taking::Done(kept) => panic!("{kept:?}"),
        }
    }

    /// What the same request gets once the first has ended: its answer, none where it is run, or the refusal.
    async fn again(keys: &Keys, key: &str) -> Result<Option<KeptAnswer>, String> {
        loop {
            match keys.take(asked(key)).await {
                Ok(Taking::Done(kept)) => return Ok(Some(kept)),
                Ok(Taking::Taken(claim)) => {
                    claim.end(None).await;
                    return Ok(None);
                }
                Err(error) => {
                    let problem = error.problem(&RequestId("r".to_owned()));
                    assert_eq!(problem.code, ErrorCode::Conflict, "{}", problem.detail);
                    if !problem.retryable {
                        return Err(problem.detail);
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_key_is_given_back_unless_something_may_have_begun() {
        let (_dir, keys) = keys().await;
        let answer = KeptAnswer { status: 200, headers: Vec::new(), body: Some(b"x".to_vec()) };
        drop(taken(&keys, "dropped").await);
        assert_eq!(again(&keys, "dropped").await, Ok(None));
        taken(&keys, "failed").await.end(None).await;
        assert_eq!(again(&keys, "failed").await, Ok(None));
        for (key, ends) in [("begun and dropped", false), ("begun and failed", true)] {
            let claim = taken(&keys, key).await;
            claim.may_have_begun().set(true);
            if ends {
                claim.end(None).await;
            } else {
                drop(claim);
            }
            assert!(again(&keys, key).await.unwrap_err().contains("interrupted"), "{key}");
        }
        let claim = taken(&keys, "refused").await;
        claim.may_have_begun().set(true);
        claim.may_have_begun().set(false);
        drop(claim);
        assert_eq!(again(&keys, "refused").await, Ok(None));
        let claim = taken(&keys, "answered").await;
        claim.may_have_begun().set(true);
        claim.end(Some(answer.clone())).await;
        assert_eq!(again(&keys, "answered").await, Ok(Some(answer)));
        keys.settle().await;
    }

    #[tokio::test]
    async fn a_key_whose_taking_was_never_answered_is_taken_by_the_next_and_no_other() {
        let (_dir, keys) = keys().await;
        let begun = keys.store.begin_key(&asked("lost")).await.unwrap();
        assert!(matches!(begun, Begun::New), "{begun:?}");
        let claim = taken(&keys, "lost").await;
        let refused = keys.take(asked("lost")).await.unwrap_err();
        assert!(refused.problem(&RequestId("r".to_owned())).detail.contains("still running"));
        claim.end(None).await;
        assert_eq!(again(&keys, "lost").await, Ok(None));
        keys.settle().await;
        assert!(keys.at_work.counts().is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_key_that_nobody_waits_for_any_more_is_given_back() {
        let (_dir, keys) = keys().await;
        for number in 0..100_u32 {
            let key = number.to_string();
            let patience = tokio::time::sleep(Duration::from_micros(u64::from(number) * 20));
            tokio::select! {
                biased;
                claim = taken(&keys, &key) => drop(claim),
                () = patience => {}
            }
        }
        for number in 0..100_u32 {
            assert_eq!(again(&keys, &number.to_string()).await, Ok(None));
        }
        let last = taken(&keys, "last").await;
        let settling = tokio::spawn({
            let keys = keys.clone();
            async move { keys.settle().await }
        });
        while !keys.background.is_closed() {
            tokio::task::yield_now().await;
        }
        drop(last);
        settling.await.unwrap();
        assert_eq!(again(&keys, "last").await, Ok(None), "written before nothing is to be written any more");
    }
}
