//! Removing: what nobody wants any more, what there is no room for, what a process that died has left.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::digest::Digest;
use super::error::{At as _, ImageError};
use super::index::{ImageEntry, Index};
use super::lease::last_used_unix_ms;
use super::names::Wanted;
use super::store::Inner;
use super::store_files::{Shelf, Staging, StoreLock};

/// How often the removal of files is tried. A process that was killed a moment ago may still be making some.
const TRIES: u32 = 20;

/// How long to wait for what is being done in the background.
const SETTLE: Duration = Duration::from_secs(10);

/// How long between two tries.
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

impl Inner {
    /// Runs something that blocks.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let busy = self.busy();
        // When nobody waits any more, what the work made is dropped before this is: see `settled`.
        let done = tokio::task::spawn_blocking(move || (work(&busy.0), busy)).await;
        match done {
            Ok((result, _busy)) => result,
            Err(error) => Err(ImageError::Store { reason: format!("a thread failed: {error}") }),
        }
    }

    /// Counts as something that is being done.
    fn busy(self: &Arc<Self>) -> Busy {
        self.background.send_modify(|count| *count += 1);
        Busy(Arc::clone(self))
    }

    /// A directory of this process's own to work in.
    pub(super) async fn staging(self: &Arc<Self>) -> Result<StagingGuard, ImageError> {
        let guarded = Arc::clone(self);
        self.blocking(move |inner| {
            let staging = inner.files.staging(&inner.files.lock()?)?;
            Ok(StagingGuard { inner: guarded, staging: Some(staging) })
        })
        .await
    }

    /// Moves to `trash` what stands in its place and is in no index, unless somebody holds it.
    pub(super) fn sweep(&self, lock: &StoreLock, trash: &Staging) -> Result<(), ImageError> {
        let index = self.index()?;
        let layers = index.layers();
        for (shelf, is_wanted) in [
            (
                Shelf::Images,
                &(|digest: &Digest| index.images.contains_key(digest)) as &dyn Fn(&Digest) -> bool,
            ),
            (Shelf::Layers, &|digest: &Digest| layers.contains(digest)),
        ] {
            for digest in self.files.on_shelf(shelf).at(self.files.path())? {
                if !is_wanted(&digest) {
                    self.files
                        .discard(lock, shelf, &digest, trash)
                        .at(&self.files.path_of(shelf, &digest))?;
                }
            }
        }
        Ok(())
    }

    /// Removes what processes that are gone have left.
    pub(super) async fn clear_up(self: &Arc<Self>) -> Result<(), ImageError> {
        let left = self
            .blocking(|inner| {
                let lock = inner.files.lock()?;
                let mut left = inner.files.abandoned(&lock).at(inner.files.path())?;
                let trash = inner.files.staging(&lock)?;
                inner.sweep(&lock, &trash)?;
                left.push(trash);
                Ok(left)
            })
            .await?;
        for staging in left {
            self.discard(staging).await;
        }
        Ok(())
    }

    /// Does something that nobody waits for, unless by [`Self::settled`].
    pub(super) fn in_background(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let busy = self.busy();
        self.runtime.spawn(async move {
            work.await;
            drop(busy);
        });
    }

    /// Waits until nothing is being done, in the background or on a thread. Where others keep the store busy all the
    /// time, for no longer than [`SETTLE`].
    pub(super) async fn settled(&self) {
        let mut background = self.background.subscribe();
        let settled = background.wait_for(|count| *count == 0);
        if tokio::time::timeout(SETTLE, settled).await.is_err() {
            tracing::debug!("the image store is not at rest");
        }
    }

    /// Removes a directory below `tmp` with all that is in it. What cannot be removed is removed by the next process
    /// that opens the store.
    pub(super) async fn discard(self: &Arc<Self>, staging: Staging) {
        let mut staging = Arc::new(staging);
        for _ in 0..TRIES {
            match self.try_discard(&staging).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(%error, "cannot remove files of the image store at once");
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
            }
        }
        if let Err(error) = self.try_discard(&staging).await {
            tracing::warn!(%error, "cannot remove files of the image store; the next start tries again");
        }
        // Nobody else has it; the lock goes with it.
        let _last = Arc::get_mut(&mut staging);
    }

    async fn try_discard(self: &Arc<Self>, staging: &Arc<Staging>) -> Result<(), ImageError> {
        let held = Arc::clone(staging);
        let trees = self.blocking(move |inner| inner.files.trees(&held).at(inner.files.path())).await?;
        self.helper.remove_all_in(&trees).await?;
        let held = Arc::clone(staging);
        self.blocking(move |inner| inner.files.remove_staging(&held).at(inner.files.path())).await
    }

    /// Adds an image to the index, and takes out those that were not used for the longest time until there is room.
    pub(super) fn add(
        &self,
        lock: &StoreLock,
        id: Digest,
        image: ImageEntry,
        names: &[String],
    ) -> Result<(), ImageError> {
        let mut next = (*self.index()?).clone();
        match next.images.get_mut(&id) {
            // Known already: only under more names.
            Some(known) => known.repo_digests.extend(image.repo_digests),
            None => {
                next.images.insert(id, image);
            }
        }
        for name in names {
            next.names.insert(name.clone(), id);
        }
        let evicted = self.make_room(&mut next, id)?;
        for id in &evicted {
            tracing::info!(image = %id, "evicting an image: the store is full");
        }
        let Index { names, images, .. } = next;
        let change = move |index: &mut Index| (index.names, index.images) = (names, images);
        self.cache.change(self.files.root(), lock, change).at(&self.files.path().join("index"))
    }

    fn make_room(&self, index: &mut Index, wanted: Digest) -> Result<Vec<Digest>, ImageError> {
        let mut evicted = Vec::new();
        if index.bytes() <= self.config.max_bytes {
            return Ok(evicted);
        }
        let mut candidates = Vec::new();
        for id in index.images.keys().filter(|id| **id != wanted) {
            if self.files.is_free(Shelf::Images, id).at(&self.files.path_of(Shelf::Images, id))? {
                candidates.push((last_used_unix_ms(&self.files, id), *id));
            }
        }
        candidates.sort_unstable();
        let mut candidates = candidates.into_iter();
        while index.bytes() > self.config.max_bytes {
            let Some((_, id)) = candidates.next() else {
                return Err(ImageError::TooLarge {
                    what: format!("image {wanted}"),
                    reason: format!(
                        "with all that is in use the store would have {} bytes and may have {}",
                        index.bytes(),
                        self.config.max_bytes
                    ),
                });
            };
            index.remove(&id);
            evicted.push(id);
        }
        Ok(evicted)
    }

    /// Takes a name from an image, and the image itself with its last name. Blocks.
    pub(super) fn forget(&self, wanted: &Wanted, trash: &Staging) -> Result<(), ImageError> {
        let lock = self.files.lock()?;
        let index = self.index()?;
        let missing = || ImageError::NotFound { image: wanted.to_string() };
        let id = index.find(wanted).ok_or_else(missing)?;
        let name = match wanted {
            Wanted::Name(name) => Some(name.to_string()).filter(|name| index.names.contains_key(name)),
            Wanted::Id(_) => None,
        };
        let is_last = match &name {
            Some(name) => index.names_of(&id) == std::slice::from_ref(name),
            None => true,
        };
        if is_last && !self.files.is_free(Shelf::Images, &id).at(&self.files.path_of(Shelf::Images, &id))? {
            return Err(ImageError::InUse { image: name.unwrap_or_else(|| id.to_string()) });
        }
        self.cache
            .change(self.files.root(), &lock, |index| match name {
                Some(name) if !is_last => {
                    index.names.remove(&name);
                }
                _ => index.remove(&id),
            })
            .at(&self.files.path().join("index"))?;
        self.sweep(&lock, trash)
    }
}

/// Something is being done for as long as this lives.
struct Busy(Arc<Inner>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.background.send_modify(|count| *count -= 1);
    }
}

/// A directory below `tmp` that is removed when this is dropped, in the background; [`Self::remove`] waits for it.
#[derive(Debug)]
pub(super) struct StagingGuard {
    inner: Arc<Inner>,
    staging: Option<Staging>,
}

impl StagingGuard {
    /// The directory.
    pub(super) fn get(&self) -> Result<&Staging, ImageError> {
        self.staging.as_ref().ok_or_else(|| ImageError::Store { reason: "a directory is gone".to_owned() })
    }

    /// Removes it now.
    pub(super) async fn remove(mut self) {
        if let Some(staging) = self.staging.take() {
            self.inner.discard(staging).await;
        }
    }

    /// Gives it to a thread that blocks, and takes it back.
    pub(super) async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Inner, &Staging) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let Some(staging) = self.staging.take() else {
            return Err(ImageError::Store { reason: "a directory is gone".to_owned() });
        };
        // Comes back through the thread, so that it is never lost: when this future is dropped, the thread's end
        // drops it.
        let lent = StagingGuard { inner: Arc::clone(&self.inner), staging: Some(staging) };
        let (mut lent, result) = self
            .inner
            .blocking(move |inner| {
                let result = lent.get().and_then(|staging| work(inner, staging));
                Ok((lent, result))
            })
            .await?;
        self.staging = lent.staging.take();
        result
    }
}

impl Drop for StagingGuard {
    fn drop(&mut self) {
        if let Some(staging) = self.staging.take() {
            let inner = Arc::clone(&self.inner);
            // Where there is no runtime any more the next process that opens the store does it.
            self.inner.in_background(async move { inner.discard(staging).await });
        }
    }
}
