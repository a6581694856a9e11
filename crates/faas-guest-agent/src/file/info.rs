//! What an entry of a directory is.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::{FileType, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use faas_guest_protocol::files::{FileKind, FileStat, RawPath};

use super::{At as _, Failed, raw};
use crate::receiving::read_users;
use crate::users;

/// The names of users and groups, read when the first is asked for.
#[derive(Default)]
pub(super) struct Names {
    users: OnceCell<BTreeMap<u32, String>>,
    groups: OnceCell<BTreeMap<u32, String>>,
}

impl Names {
    fn user(&self, uid: u32) -> Option<String> {
        self.users.get_or_init(|| users::names(&read_users(users::PASSWD))).get(&uid).cloned()
    }

    fn group(&self, gid: u32) -> Option<String> {
        self.groups.get_or_init(|| users::names(&read_users(users::GROUP))).get(&gid).cloned()
    }
}

pub(super) fn kind(of: FileType) -> FileKind {
    if of.is_dir() {
        FileKind::Directory
    } else if of.is_symlink() {
        FileKind::Symlink
    } else if of.is_fifo() {
        FileKind::Fifo
    } else if of.is_socket() {
        FileKind::Socket
    } else if of.is_block_device() {
        FileKind::BlockDevice
    } else if of.is_char_device() {
        FileKind::CharDevice
    } else {
        FileKind::File
    }
}

/// The same path from the root on. No link is followed.
pub(super) fn absolute(path: &Path) -> PathBuf {
    if path.is_absolute() {
        return path.to_owned();
    }
    // Where the working directory is gone, so is everything that a relative path leads to.
    std::env::current_dir().unwrap_or_default().join(path)
}

/// The last part of a path, `/` for the root.
fn name(path: &Path) -> RawPath {
    let bytes = path.as_os_str().as_bytes();
    let parts = || bytes.split(|byte| *byte == b'/').rev().find(|part| !part.is_empty());
    RawPath(parts().unwrap_or(b"/").to_vec())
}

/// What `path`, an absolute one, is by its metadata.
pub(super) fn of(path: &Path, metadata: &Metadata, names: &Names) -> FileStat {
    let kind = kind(metadata.file_type());
    let target = match kind {
        // It may have been replaced meanwhile.
        FileKind::Symlink => std::fs::read_link(path).ok().map(raw),
        _ => None,
    };
    FileStat {
        path: raw(path),
        name: name(path),
        kind,
        size: metadata.len(),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        owner: names.user(metadata.uid()),
        group: names.group(metadata.gid()),
        modified_s: metadata.mtime(),
        modified_ns: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
        target,
    }
}

/// What is at `path`.
pub(super) fn stat(path: &Path) -> Result<FileStat, Failed> {
    let metadata = std::fs::symlink_metadata(path).at(path)?;
    Ok(of(&absolute(path), &metadata, &Names::default()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::name;

    #[test]
    fn the_name_is_the_last_part() {
        for (path, last) in [("/", "/"), ("/a/b", "b"), ("/a/b/", "b"), ("//", "/"), ("/a/..", "..")] {
            assert_eq!(name(Path::new(path)).0, last.as_bytes(), "{path}");
        }
    }
}
