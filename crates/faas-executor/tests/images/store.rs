//! A store in a directory of its own, and what a test looks at in it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use faas_executor::images::{ImageError, ImageLease, ImageStore, ImageStoreConfig, ImportSource};

use super::oci::Image;

/// The first id of what a root's store has on the disk.
pub(crate) const STORE_IDS: u32 = 0x6ffe_0000;

pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: ImageStoreConfig,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = ImageStoreConfig::new(std::env::current_exe().unwrap());
        Self { dir, config }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    pub(crate) async fn open(&self) -> ImageStore {
        ImageStore::open(&self.path(), self.config.clone()).await.unwrap()
    }

    /// That nothing is there that no image needs: no layer, no image, nothing half made.
    pub(crate) fn assert_empty(&self) {
        for name in ["layers", "images", "tmp"] {
            let left: Vec<_> =
                fs::read_dir(self.path().join(name)).unwrap().map(|e| e.unwrap().path()).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }

    pub(crate) fn assert_nothing_half_made(&self) {
        assert_eq!(fs::read_dir(self.path().join("tmp")).unwrap().count(), 0);
    }

    /// Waits for what is cleared up in the background.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        for _ in 0..600 {
            if is_so() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("never: {what}");
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        fs::read_dir(self.path().join(name)).unwrap().count()
    }
}

pub(crate) async fn import_tar(store: &ImageStore, bytes: Vec<u8>) -> Result<ImageLease, ImageError> {
    let source = ImportSource::Stream(Box::new(std::io::Cursor::new(bytes)));
    let mut leases = store.import(source, None, |_| {}).await?;
    assert_eq!(leases.len(), 1);
    Ok(leases.remove(0))
}

/// Imports an image of these tar streams.
pub(crate) async fn import(store: &ImageStore, image: &Image) -> Result<ImageLease, ImageError> {
    let dir = tempfile::tempdir().unwrap();
    image.write_layout(dir.path(), None);
    let mut leases = store.import(ImportSource::Path(dir.path().to_owned()), None, |_| {}).await?;
    Ok(leases.remove(0))
}

/// A tree as text: mode, owner, size or link target of everything, without times of access.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, dir: &Path, out: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let content = if meta.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if meta.is_file() && meta.len() < 4096 {
                String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
            } else {
                String::new()
            };
            let (uid, gid) = (meta.uid().wrapping_sub(STORE_IDS), meta.gid().wrapping_sub(STORE_IDS));
            out.insert(name, format!("{:o} {uid}:{gid} {} {content}", meta.mode(), meta.mtime()));
            if meta.is_dir() {
                walk(root, &path, out);
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(root, root, &mut out);
    out
}

/// The names in a tree.
pub(crate) fn names(root: &Path) -> Vec<String> {
    tree(root).into_keys().collect()
}

pub(crate) fn silent() -> impl Fn(faas_executor::images::Progress) + Send + Sync + 'static {
    |_| {}
}

pub(crate) fn text(lease: &ImageLease, path: &str) -> String {
    fs::read_to_string(lease.rootfs().join(path)).unwrap()
}

/// Remembers every step.
pub(crate) fn recorder() -> (
    Arc<std::sync::Mutex<Vec<faas_executor::images::Progress>>>,
    impl Fn(faas_executor::images::Progress) + Send + Sync + 'static,
) {
    let steps = Arc::new(std::sync::Mutex::new(Vec::new()));
    let recorded = Arc::clone(&steps);
    (steps, move |step| recorded.lock().unwrap().push(step))
}
