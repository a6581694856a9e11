//! Leases: an image that is leased stays where it is.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Timespec, Timestamps};

use super::config::ImageConfig;
use super::digest::Digest;
use super::error::{At as _, ImageError};
use super::store_files::{Pin, Shelf, StoreFiles};

/// How often the time of last use is noted, in milliseconds.
const NOTE_EVERY_MS: u64 = 60_000;

/// One image that this process holds, however many leases there are.
#[derive(Debug)]
pub(super) struct Held {
    id: Digest,
    config: Arc<ImageConfig>,
    rootfs: PathBuf,
    /// Opened with `O_PATH`.
    root: OwnedFd,
    /// A shared lock on the image's directory.
    pin: Pin,
    noted_unix_ms: AtomicU64,
}

impl Held {
    /// Holds an image; `None` when it is gone.
    pub(super) fn take(
        files: &StoreFiles,
        id: Digest,
        config: Arc<ImageConfig>,
    ) -> Result<Option<Self>, ImageError> {
        let path = files.path_of(Shelf::Images, &id);
        let Some(pin) = files.pin(Shelf::Images, &id).at(&path)? else { return Ok(None) };
        let flags = rustix::fs::OFlags::PATH
            | rustix::fs::OFlags::DIRECTORY
            | rustix::fs::OFlags::NOFOLLOW
            | rustix::fs::OFlags::CLOEXEC;
        let root = rustix::fs::openat(&pin, "root", flags, rustix::fs::Mode::empty()).at(&path)?;
        let rootfs = path.join("root");
        Ok(Some(Self { id, config, rootfs, root, pin, noted_unix_ms: AtomicU64::new(0) }))
    }

    /// Notes that the image is used now, unless that was noted a moment ago.
    pub(super) fn note_use(&self) {
        let now = now_unix_ms();
        let noted = self.noted_unix_ms.load(Ordering::Relaxed);
        if now.saturating_sub(noted) < NOTE_EVERY_MS {
            return;
        }
        self.noted_unix_ms.store(now, Ordering::Relaxed);
        let time = Timespec {
            tv_sec: i64::try_from(now / 1000).unwrap_or_default(),
            tv_nsec: i64::try_from(now % 1000 * 1_000_000).unwrap_or_default(),
        };
        let times = Timestamps { last_access: time, last_modification: time };
        if let Err(error) = rustix::fs::futimens(&self.pin, &times) {
            // Only the order in which images are evicted suffers.
            tracing::debug!(%error, image = %self.id, "cannot note the use of an image");
        }
    }
}

/// An image that stays in the store for as long as this lives. A clone is another lease.
#[derive(Clone, Debug)]
pub struct ImageLease(pub(super) Arc<Held>);

impl ImageLease {
    /// The image's id: the digest of its configuration.
    #[must_use]
    pub fn id(&self) -> Digest {
        self.0.id
    }

    /// The root of its file system, all layers merged. Nobody may write there. Its files belong to the store's ids
    /// (see [`super::UnpackMode`]).
    #[must_use]
    pub fn rootfs(&self) -> &Path {
        &self.0.rootfs
    }

    /// The same, as a descriptor opened with `O_PATH`.
    #[must_use]
    pub fn rootfs_fd(&self) -> BorrowedFd<'_> {
        self.0.root.as_fd()
    }

    /// Another lock of those that keep it there, for a process that may outlive this one: the lease's own is given up
    /// with it, by whomever it is shared.
    pub(crate) fn lock_again(&self) -> std::io::Result<OwnedFd> {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let dir = rustix::fs::openat(&self.0.pin, ".", flags, rustix::fs::Mode::empty())?;
        rustix::fs::flock(&dir, rustix::fs::FlockOperation::NonBlockingLockShared)?;
        Ok(dir)
    }

    /// What the image says of itself.
    #[must_use]
    pub fn config(&self) -> &ImageConfig {
        &self.0.config
    }
}

/// When an image was last used, in milliseconds since 1970; 0 when it is gone.
pub(super) fn last_used_unix_ms(files: &StoreFiles, id: &Digest) -> u64 {
    let modified = File::open(files.path_of(Shelf::Images, id)).and_then(|dir| dir.metadata()?.modified());
    let since = modified.ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Now, in milliseconds since 1970.
pub(super) fn now_unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
