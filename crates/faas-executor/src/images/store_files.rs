//! The store's directory: where things are, who may change them when, and what a process that died has left.
//!
//! ```text
//! DIR/               0700
//!   store            sealed: which ids the files belong to
//!   lock             flock: held, briefly, by whoever changes the index or moves something in or out
//!   index            sealed JSON: the images, their names and layers
//!   layers/HEX/      a layer by the digest of its tar stream; a shared flock on it keeps it from being removed
//!     root/          its files
//!     meta           sealed: a line of JSON, then the layer's marks (see `marks.rs`)
//!   images/HEX/      an image by the digest of its configuration; a shared flock on it is a lease; its time of
//!     root/          modification is when it was last used
//!   tmp/NAME/        what is being made or removed; an exclusive flock on it says that somebody is at it
//! ```
//!
//! A layer or image is made in `tmp` and moved to its place as a whole. What stands in `layers` is complete; after a
//! crash of the machine it may not be, so only what the index names is taken at the first start. What `tmp` has and
//! nobody holds is removed by the next process that opens the store.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FlockOperation, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::{At as _, ImageError};
use super::marks;
use super::sealed::Seal;
use super::unpack::job::Ids;

/// A layer's file `meta`.
pub(super) const LAYER_SEAL: Seal =
    Seal { kind: "layer", version: 1, max_bytes: marks::MAX_BYTES + (64 << 10) };

const STORE_SEAL: Seal = Seal { kind: "store", version: 1, max_bytes: 4096 };

/// The two kinds of things that the store has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shelf {
    Layers,
    Images,
}

/// The open directories of a store.
#[derive(Debug)]
pub(super) struct StoreFiles {
    path: PathBuf,
    root: OwnedFd,
    layers: OwnedFd,
    images: OwnedFd,
    tmp: OwnedFd,
    ids: Ids,
}

/// The lock on the index and on the names in the directories; let go when it is dropped.
#[derive(Debug)]
pub(super) struct StoreLock(File);

impl Drop for StoreLock {
    fn drop(&mut self) {
        unlock(&self.0);
    }
}

/// Lets go of a lock by name: a process that is just being started may still have a copy of the descriptor.
fn unlock(fd: impl AsFd) {
    match rustix::fs::flock(fd, FlockOperation::Unlock) {
        // It fails only for what is no descriptor.
        Ok(()) | Err(_) => {}
    }
}

/// A directory of the store that is kept where it is for as long as this lives.
#[derive(Debug)]
pub(super) struct Pin(OwnedFd);

impl Drop for Pin {
    fn drop(&mut self) {
        unlock(&self.0);
    }
}

impl AsFd for Pin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A directory below `tmp`, held by this process.
#[derive(Debug)]
pub(super) struct Staging {
    name: String,
    dir: OwnedFd,
}

impl AsFd for Staging {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        unlock(&self.dir);
    }
}

/// What the file `store` holds.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Owner {
    /// The server's own uid.
    uid: u32,
    ids: Ids,
}

const TREE: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The mode of directories that sandboxes come through on their way to the root of an image: they have a mount of
/// `images`, and are somebody else there.
const PASSABLE: Mode = Mode::from_raw_mode(0o711);

fn open_dir(at: impl AsFd, name: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(at, name, TREE, Mode::empty())
}

fn make_dir(at: impl AsFd, name: &str) -> rustix::io::Result<()> {
    match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o700)) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

impl StoreFiles {
    /// Opens the store in `path`, which is made where it is missing. Blocks.
    pub(super) fn open(path: &Path, ids: Ids) -> Result<Self, ImageError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).at(path)?;
        let path = path.canonicalize().at(path)?;
        let root = open_dir(rustix::fs::CWD, &path.to_string_lossy()).or_else(|error| match error {
            // A path that is no text.
            Errno::NOENT => File::open(&path).map(OwnedFd::from).map_err(|_| error),
            error => Err(error),
        });
        let root = root.at(&path)?;
        rustix::fs::fchmod(&root, Mode::from_raw_mode(0o700)).at(&path)?;
        let make =
            |name: &str| make_dir(&root, name).and_then(|()| open_dir(&root, name)).at(&path.join(name));
        let (layers, images, tmp) = (make("layers")?, make("images")?, make("tmp")?);
        rustix::fs::fchmod(&images, PASSABLE).at(&path.join("images"))?;
        let files = Self { path, root, layers, images, tmp, ids };
        files.check_owner()?;
        Ok(files)
    }

    /// A store's files belong to one set of ids: with another they could be neither shown nor removed.
    fn check_owner(&self) -> Result<(), ImageError> {
        let _lock = self.lock()?;
        let path = self.path.join("store");
        let own = Owner { uid: rustix::process::geteuid().as_raw(), ids: self.ids.clone() };
        match STORE_SEAL.read(&self.root, "store") {
            Ok(bytes) => match serde_json::from_slice::<Owner>(&bytes) {
                Ok(owner) if owner == own => Ok(()),
                Ok(_) => Err(ImageError::Store {
                    reason: format!(
                        "the files in {} belong to other ids, since another user or another way to map ids made \
                         them; take another data directory or remove this one",
                        self.path.display()
                    ),
                }),
                Err(error) => Err(ImageError::io(&path, error.into())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let bytes = serde_json::to_vec(&own).map_err(io::Error::from).at(&path)?;
                STORE_SEAL.replace(&self.root, "store", &bytes, None).at(&path)
            }
            Err(error) => Err(ImageError::io(&path, error)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    fn shelf(&self, shelf: Shelf) -> &OwnedFd {
        match shelf {
            Shelf::Layers => &self.layers,
            Shelf::Images => &self.images,
        }
    }

    /// The path of something on a shelf.
    pub(super) fn path_of(&self, shelf: Shelf, digest: &Digest) -> PathBuf {
        let name = match shelf {
            Shelf::Layers => "layers",
            Shelf::Images => "images",
        };
        self.path.join(name).join(digest.hex())
    }

    /// Waits for the lock. Blocks.
    pub(super) fn lock(&self) -> Result<StoreLock, ImageError> {
        let path = self.path.join("lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.root, "lock", flags, Mode::from_raw_mode(0o600)).at(&path)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                other => break other.at(&path)?,
            }
        }
        Ok(StoreLock(file.into()))
    }

    /// Keeps something on a shelf where it is; `None` when it is not there or is just being removed.
    pub(super) fn pin(&self, shelf: Shelf, digest: &Digest) -> io::Result<Option<Pin>> {
        // Nobody holds an exclusive lock for longer than a rename takes.
        for _ in 0..10_000 {
            match self.take(shelf, digest, FlockOperation::NonBlockingLockShared) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                other => return other,
            }
        }
        Ok(None)
    }

    /// Takes something that nobody else holds: `None` when it is not there, `WouldBlock` when it is held.
    fn take_alone(&self, shelf: Shelf, digest: &Digest) -> io::Result<Option<Pin>> {
        self.take(shelf, digest, FlockOperation::NonBlockingLockExclusive)
    }

    fn take(&self, shelf: Shelf, digest: &Digest, how: FlockOperation) -> io::Result<Option<Pin>> {
        let (at, name) = (self.shelf(shelf), digest.hex());
        let fd = match open_dir(at, &name) {
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        rustix::fs::flock(&fd, how)?;
        let pin = Pin(fd);
        // It may have been moved away between the two calls.
        let held = rustix::fs::fstat(&pin)?;
        match rustix::fs::statat(at, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino) => Ok(Some(pin)),
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What is on a shelf. Other names there are nobody's and are left alone.
    pub(super) fn on_shelf(&self, shelf: Shelf) -> io::Result<Vec<Digest>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(self.shelf(shelf))? {
            let entry = entry?;
            found.extend(entry.file_name().to_str().ok().and_then(Digest::from_hex));
        }
        Ok(found)
    }

    /// Makes a directory below `tmp`.
    pub(super) fn staging(&self, _lock: &StoreLock) -> Result<Staging, ImageError> {
        let name = uuid::Uuid::now_v7().simple().to_string();
        let make = || {
            rustix::fs::mkdirat(&self.tmp, name.as_str(), Mode::from_raw_mode(0o700))?;
            let dir = open_dir(&self.tmp, &name)?;
            rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive)?;
            Ok::<_, Errno>(dir)
        };
        let dir = make().at(&self.path.join("tmp"))?;
        Ok(Staging { name, dir })
    }

    /// Makes `name/root` in `staging`, for files: it belongs to the unpack process's root.
    pub(super) fn make_tree(&self, staging: &Staging, name: &str) -> Result<OwnedFd, ImageError> {
        let make = || {
            make_dir(staging, name)?;
            let dir = open_dir(staging, name)?;
            make_dir(&dir, "root")?;
            let root = open_dir(&dir, "root")?;
            self.give_away(&root)?;
            Ok::<_, Errno>(root)
        };
        make().at(&self.path.join("tmp").join(&staging.name))
    }

    /// Gives the root of a tree to the root of the unpack process, where that is not this process's own user.
    fn give_away(&self, root: &OwnedFd) -> rustix::io::Result<()> {
        match self.ids {
            Ids::Range { base } => {
                rustix::fs::fchown(root, Some(Uid::from_raw(base)), Some(Gid::from_raw(base)))
            }
            Ids::Single | Ids::Subordinate { .. } => Ok(()),
        }
    }

    /// Opens the directory `name` in something that is held.
    pub(super) fn open_in(dir: impl AsFd, name: &str) -> io::Result<OwnedFd> {
        Ok(open_dir(dir, name)?)
    }

    /// Opens the root directory of a layer that is held, for the helper to go on from. In a user's store it may belong to
    /// another id and have a mode that lets only that one read it: the helper can, the server cannot.
    pub(super) fn open_root(layer: impl AsFd) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(layer, "root", TREE.union(OFlags::PATH), Mode::empty())?)
    }

    /// Moves `staging/name` to its place; `false` when there is one already. The caller pins it before the lock goes.
    pub(super) fn put(
        &self,
        _lock: &StoreLock,
        staging: &Staging,
        name: &str,
        shelf: Shelf,
        digest: &Digest,
    ) -> io::Result<bool> {
        let (to, hex) = (self.shelf(shelf), digest.hex());
        if matches!(shelf, Shelf::Images) {
            rustix::fs::chmodat(staging, name, PASSABLE, AtFlags::empty())?;
        }
        match rustix::fs::renameat_with(staging, name, to, hex.as_str(), RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves something to `staging`, from where it can be removed; `false` when somebody holds it.
    pub(super) fn discard(
        &self,
        _lock: &StoreLock,
        shelf: Shelf,
        digest: &Digest,
        staging: &Staging,
    ) -> io::Result<bool> {
        let _held = match self.take_alone(shelf, digest) {
            Ok(Some(held)) => held,
            Ok(None) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let name = match shelf {
            Shelf::Layers => format!("l-{}", digest.hex()),
            Shelf::Images => format!("i-{}", digest.hex()),
        };
        rustix::fs::renameat(self.shelf(shelf), digest.hex(), staging, name)?;
        Ok(true)
    }

    /// Whether nobody holds something.
    pub(super) fn is_free(&self, shelf: Shelf, digest: &Digest) -> io::Result<bool> {
        match self.take_alone(shelf, digest) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Directories below `tmp` whose process is gone.
    pub(super) fn abandoned(&self, _lock: &StoreLock) -> io::Result<Vec<Staging>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(&self.tmp)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name.starts_with('.') {
                continue;
            }
            let dir = match open_dir(&self.tmp, name) {
                Err(Errno::NOTDIR | Errno::NOENT | Errno::LOOP) => continue,
                other => other?,
            };
            match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => {}
                other => {
                    other?;
                    found.push(Staging { name: name.to_owned(), dir });
                }
            }
        }
        Ok(found)
    }

    /// The trees of files in `staging`: what the unpack process has to empty before it can be removed.
    pub(super) fn trees(&self, staging: &Staging) -> io::Result<Vec<OwnedFd>> {
        let mut trees = Vec::new();
        for entry in Dir::read_from(staging)? {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let below = match rustix::fs::openat(staging, entry.file_name(), TREE, Mode::empty()) {
                Err(Errno::NOTDIR | Errno::LOOP) => continue,
                other => other?,
            };
            match open_dir(&below, "root") {
                Ok(root) => {
                    // The process that made it may have died before this.
                    self.give_away(&root)?;
                    trees.push(root);
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(trees)
    }

    /// Removes a directory below `tmp` whose trees are empty.
    pub(super) fn remove_staging(&self, staging: &Staging) -> io::Result<()> {
        let gone = |result: rustix::io::Result<()>| match result {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        };
        for entry in Dir::read_from(staging)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match rustix::fs::openat(staging, name, TREE, Mode::empty()) {
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    gone(rustix::fs::unlinkat(staging, name, AtFlags::empty()))?
                }
                below => {
                    let below = below?;
                    gone(rustix::fs::unlinkat(&below, "root", AtFlags::REMOVEDIR))?;
                    gone(rustix::fs::unlinkat(&below, "meta", AtFlags::empty()))?;
                    gone(rustix::fs::unlinkat(staging, name, AtFlags::REMOVEDIR))?;
                }
            }
        }
        Ok(gone(rustix::fs::unlinkat(&self.tmp, staging.name.as_str(), AtFlags::REMOVEDIR))?)
    }

    /// Brings everything that was written to the disk. Blocks, long.
    pub(super) fn sync(&self) -> Result<(), ImageError> {
        rustix::fs::syncfs(&self.root).at(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::{Shelf, StoreFiles};
    use crate::images::digest::Digest;
    use crate::images::error::ImageError;
    use crate::images::unpack::job::Ids;

    #[test]
    fn what_somebody_holds_is_not_moved() {
        let dir = tempfile::tempdir().unwrap();
        let files = StoreFiles::open(dir.path(), Ids::Single).unwrap();
        let digest = Digest::of(b"x");
        let lock = files.lock().unwrap();
        let (staging, trash) = (files.staging(&lock).unwrap(), files.staging(&lock).unwrap());
        assert!(files.pin(Shelf::Layers, &digest).unwrap().is_none());
        files.make_tree(&staging, "new").unwrap();
        assert!(files.put(&lock, &staging, "new", Shelf::Layers, &digest).unwrap());
        files.make_tree(&staging, "new").unwrap();
        assert!(!files.put(&lock, &staging, "new", Shelf::Layers, &digest).unwrap(), "it is there already");
        let (one, two) =
            (files.pin(Shelf::Layers, &digest).unwrap(), files.pin(Shelf::Layers, &digest).unwrap());
        assert!(one.is_some() && two.is_some());
        drop(one);
        assert!(!files.discard(&lock, Shelf::Layers, &digest, &trash).unwrap());
        drop(two);
        assert!(files.discard(&lock, Shelf::Layers, &digest, &trash).unwrap());
        assert!(files.on_shelf(Shelf::Layers).unwrap().is_empty());
        assert!(files.abandoned(&lock).unwrap().is_empty(), "both are held");
        drop((staging, trash));
        assert_eq!(files.abandoned(&lock).unwrap().len(), 2);
    }

    #[test]
    fn a_store_of_other_ids_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        StoreFiles::open(dir.path(), Ids::Single).unwrap();
        StoreFiles::open(dir.path(), Ids::Single).unwrap();
        let other = StoreFiles::open(dir.path(), Ids::Range { base: 7 });
        assert!(matches!(other, Err(ImageError::Store { .. })));
    }
}
