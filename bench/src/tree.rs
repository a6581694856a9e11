//! What a directory holds, in one digest: whether two trees have the same files.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use faas_executor::images::Digest;
use serde::{Deserialize, Serialize};

/// All directories, files and symbolic links below a directory. Device nodes do not count: the image store leaves them
/// out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tree {
    pub(crate) entries: usize,
    /// The sum of the sizes of its files.
    pub(crate) bytes: u64,
    /// Of their names, modes, contents and targets.
    digest: String,
}

impl Tree {
    /// Reads all of it.
    pub(crate) fn of(root: &Path) -> io::Result<Self> {
        let mut tree = Self { entries: 0, bytes: 0, digest: String::new() };
        let mut said = Vec::new();
        tree.add(root, root, &mut said)?;
        tree.digest = Digest::of(&said).hex();
        Ok(tree)
    }

    fn add(&mut self, root: &Path, dir: &Path, said: &mut Vec<u8>) -> io::Result<()> {
        let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            let meta = fs::symlink_metadata(&path)?;
            let content = if meta.is_dir() {
                "directory".to_owned()
            } else if meta.is_symlink() {
                fs::read_link(&path)?.to_string_lossy().into_owned()
            } else if meta.is_file() {
                self.bytes += meta.len();
                Digest::of(&fs::read(&path)?).hex()
            } else {
                continue;
            };
            self.entries += 1;
            let name = path.strip_prefix(root).unwrap_or(&path).as_os_str();
            said.extend_from_slice(name.as_bytes());
            said.extend_from_slice(format!("\0{:o}\0{content}\n", meta.mode()).as_bytes());
            if meta.is_dir() {
                self.add(root, &path, said)?;
            }
        }
        Ok(())
    }

    /// Whether the tree below `root` is the same, or how it differs.
    pub(crate) fn check(&self, root: &Path) -> Result<(), String> {
        let found = Self::of(root).map_err(|error| format!("{}: {error}", root.display()))?;
        if found == *self {
            return Ok(());
        }
        Err(format!("{} holds {found:?} and not {self:?}", root.display()))
    }
}

/// Brings what was written to the file system of `path` to the disk.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    let dir = fs::File::open(path)?;
    // SAFETY: the descriptor is open for as long as the call takes.
    if unsafe { libc::syncfs(dir.as_raw_fd()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::Tree;

    #[test]
    fn any_difference_is_one() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for root in [one.path(), two.path()] {
            fs::create_dir(root.join("d")).unwrap();
            fs::write(root.join("d/file"), "text").unwrap();
            symlink("d/file", root.join("link")).unwrap();
        }
        let tree = Tree::of(one.path()).unwrap();
        assert_eq!((tree.entries, tree.bytes), (3, 4));
        tree.check(two.path()).unwrap();
        let file = two.path().join("d/file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        tree.check(two.path()).unwrap_err();
        fs::set_permissions(&file, fs::metadata(one.path().join("d/file")).unwrap().permissions()).unwrap();
        tree.check(two.path()).unwrap();
        fs::write(&file, "txet").unwrap();
        tree.check(two.path()).unwrap_err();
        fs::remove_file(&file).unwrap();
        tree.check(two.path()).unwrap_err();
    }
}
