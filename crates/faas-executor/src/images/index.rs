//! The index: which images there are, under which names, from which layers. The file on the disk is the truth; each
//! process keeps what it read last and looks at the file's identity before it believes it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, RwLock};

use rustix::fs::{AtFlags, Timespec};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::config::ImageConfig;
use super::digest::Digest;
use super::names::Wanted;
use super::sealed::Seal;
use super::store_files::StoreLock;

const NAME: &str = "index";

const SEAL: Seal = Seal { kind: "index", version: 1, max_bytes: 64 << 20 };

/// A layer of an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LayerEntry {
    pub(super) diff_id: Digest,
    /// Disk that it takes.
    pub(super) bytes: u64,
}

/// An image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ImageEntry {
    pub(super) config: Arc<ImageConfig>,
    /// The lowest first.
    pub(super) layers: Vec<LayerEntry>,
    /// Disk that it takes beside its layers.
    pub(super) own_bytes: u64,
    /// When it came to the store, in milliseconds since 1970.
    pub(super) added_unix_ms: u64,
    /// `REGISTRY/REPOSITORY@DIGEST` of manifests and indexes that lead to it.
    pub(super) repo_digests: BTreeSet<String>,
}

/// All images.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    /// How often the index was changed.
    generation: u64,
    pub(super) names: BTreeMap<String, Digest>,
    pub(super) images: BTreeMap<Digest, ImageEntry>,
}

impl Index {
    /// The image that is meant.
    pub(super) fn find(&self, wanted: &Wanted) -> Option<Digest> {
        match wanted {
            Wanted::Id(id) => self.images.contains_key(id).then_some(*id),
            Wanted::Name(name) => {
                let name = name.to_string();
                if let Some(id) = self.names.get(&name) {
                    return Some(*id);
                }
                if !name.contains('@') {
                    return None;
                }
                // Pulled by a tag, asked for by what that tag stood for.
                self.images.iter().find(|(_, image)| image.repo_digests.contains(&name)).map(|(id, _)| *id)
            }
        }
    }

    /// The names of an image.
    pub(super) fn names_of(&self, id: &Digest) -> Vec<String> {
        self.names.iter().filter(|(_, image)| *image == id).map(|(name, _)| name.clone()).collect()
    }

    /// Layers that an image is made from.
    pub(super) fn layers(&self) -> HashSet<Digest> {
        self.images.values().flat_map(|image| image.layers.iter().map(|layer| layer.diff_id)).collect()
    }

    /// Disk that all images take; a layer of several counts once.
    pub(super) fn bytes(&self) -> u64 {
        let layers: BTreeMap<Digest, u64> = self
            .images
            .values()
            .flat_map(|image| image.layers.iter().map(|layer| (layer.diff_id, layer.bytes)))
            .collect();
        layers.values().chain(self.images.values().map(|image| &image.own_bytes)).sum()
    }

    /// Forgets an image and its names.
    pub(super) fn remove(&mut self, id: &Digest) {
        self.images.remove(id);
        self.names.retain(|_, image| image != id);
    }
}

/// What tells one version of the file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
    size: i64,
}

/// The index as this process knows it.
#[derive(Debug, Default)]
pub(super) struct IndexCache(RwLock<(Option<Version>, Arc<Index>)>);

fn version(root: BorrowedFd<'_>) -> io::Result<Option<Version>> {
    match rustix::fs::statat(root, NAME, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Version {
            inode: stat.st_ino,
            seconds: stat.st_mtime,
            nanoseconds: i64::try_from(stat.st_mtime_nsec).unwrap_or_default(),
            size: stat.st_size,
        })),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl IndexCache {
    fn cached(&self) -> (Option<Version>, Arc<Index>) {
        // What is behind the lock is replaced as a whole, so a writer that panicked has left nothing half done.
        let cached = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        (cached.0, Arc::clone(&cached.1))
    }

    fn keep(&self, version: Option<Version>, index: &Arc<Index>) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = (version, Arc::clone(index));
    }

    /// The index as it is now. One `stat` where nothing has changed since the last time.
    pub(super) fn current(&self, root: BorrowedFd<'_>) -> io::Result<Arc<Index>> {
        let now = version(root)?;
        let (known, index) = self.cached();
        if now == known {
            return Ok(index);
        }
        // Identity before content: a change between the two is seen the next time.
        let index = Arc::new(match SEAL.read(root, NAME) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Index::default(),
            Err(error) => return Err(error),
        });
        self.keep(now, &index);
        Ok(index)
    }

    /// Changes the index, on the disk too.
    pub(super) fn change<T>(
        &self,
        root: BorrowedFd<'_>,
        _lock: &StoreLock,
        change: impl FnOnce(&mut Index) -> T,
    ) -> io::Result<T> {
        let mut index = (*self.current(root)?).clone();
        let result = change(&mut index);
        index.generation += 1;
        let bytes = serde_json::to_vec(&index)?;
        // The time is made up, so that two versions never look the same, however fast one follows the other and
        // whatever inode it gets.
        let generation = i64::try_from(index.generation).unwrap_or_default();
        let stamp = Timespec { tv_sec: generation / 1_000_000_000, tv_nsec: generation % 1_000_000_000 };
        SEAL.replace(root, NAME, &bytes, Some(stamp))?;
        self.keep(version(root)?, &Arc::new(index));
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::{ImageEntry, Index, IndexCache, LayerEntry};
    use crate::images::digest::Digest;
    use crate::images::names::Wanted;
    use crate::images::store_files::StoreFiles;
    use crate::images::unpack::job::Ids;

    fn image(layers: &[(&str, u64)], repo_digest: &str) -> ImageEntry {
        let layer =
            |(name, bytes): &(&str, u64)| LayerEntry { diff_id: Digest::of(name.as_bytes()), bytes: *bytes };
        ImageEntry {
            config: Arc::default(),
            layers: layers.iter().map(layer).collect(),
            own_bytes: 1,
            added_unix_ms: 0,
            repo_digests: BTreeSet::from([repo_digest.to_owned()]),
        }
    }

    #[test]
    fn a_shared_layer_counts_once() {
        let mut index = Index::default();
        index.images.insert(Digest::of(b"1"), image(&[("base", 100), ("a", 10)], ""));
        index.images.insert(Digest::of(b"2"), image(&[("base", 100), ("b", 20)], ""));
        assert_eq!(index.bytes(), 132);
        assert_eq!(index.layers().len(), 3);
        index.remove(&Digest::of(b"1"));
        assert_eq!((index.bytes(), index.layers().len()), (121, 2));
    }

    #[test]
    fn an_image_is_found_by_name_id_and_digest() {
        let id = Digest::of(b"1");
        let pinned = format!("docker.io/library/a@{}", Digest::of(b"manifest"));
        let mut index = Index::default();
        index.images.insert(id, image(&[], &pinned));
        index.names.insert("docker.io/library/a:latest".to_owned(), id);
        for text in ["a", "docker.io/a:latest", &pinned, &id.to_string()] {
            assert_eq!(index.find(&Wanted::parse(text).unwrap()), Some(id), "{text}");
        }
        for text in ["b", "a:1", &format!("b@{}", Digest::of(b"manifest")), &Digest::of(b"2").to_string()] {
            assert_eq!(index.find(&Wanted::parse(text).unwrap()), None, "{text}");
        }
    }

    #[test]
    fn every_process_sees_the_changes_of_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let files = StoreFiles::open(dir.path(), Ids::Single).unwrap();
        let (here, there) = (IndexCache::default(), IndexCache::default());
        for turn in 0..100 {
            let (writer, reader) = if turn % 2 == 0 { (&here, &there) } else { (&there, &here) };
            let lock = files.lock().unwrap();
            let name = format!("name-{turn}");
            writer
                .change(files.root(), &lock, |index| index.names.insert(name.clone(), Digest::of(b"")))
                .unwrap();
            drop(lock);
            let seen = reader.current(files.root()).unwrap();
            assert!(seen.names.contains_key(&name) && seen.names.len() == turn + 1);
        }
    }
}
