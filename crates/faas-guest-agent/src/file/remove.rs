//! Removal.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::{At as _, Failed};

/// Whether a path is the root, whatever leads there.
fn is_root(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity =
        |path: &Path| path.symlink_metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
    identity(path).is_some_and(|own| identity(Path::new("/")) == Some(own))
}

pub(super) fn remove(path: &Path, recursive: bool) -> Result<(), Failed> {
    let metadata = std::fs::symlink_metadata(path).at(path)?;
    if !metadata.is_dir() {
        return std::fs::remove_file(path).at(path);
    }
    if is_root(path) {
        return Err(Failed::new(Errno::INVAL, "the root directory cannot be removed"));
    }
    match std::fs::remove_dir(path) {
        Err(error) if recursive && error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            // It follows no link, and goes only down.
            std::fs::remove_dir_all(path).at(path)
        }
        done => done.at(path),
    }
}
