//! Files that are put in place before a program starts.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use faas_guest_protocol::ExecFile;

use crate::users::Identity;

/// Where secrets are.
const SECRETS: &str = "/run/secrets";

/// A file that could not be put in place.
#[derive(Debug)]
pub(crate) struct FileError {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    file: File,
    left: u64,
}

fn full_path(file: &ExecFile, cwd: &Path) -> io::Result<PathBuf> {
    if file.path.contains('\0') || file.path.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is empty or holds a NUL byte"));
    }
    if !file.secret {
        return Ok(cwd.join(&file.path));
    }
    if file.path.contains('/') || file.path == "." || file.path == ".." {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a secret's name is a single file name"));
    }
    Ok(Path::new(SECRETS).join(&file.path))
}

/// Makes the missing directories above `path`, as the owner's.
fn make_parents(path: &Path, identity: &Identity) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let mut missing = Vec::new();
    let mut at = parent;
    while !at.as_os_str().is_empty() && !at.exists() {
        missing.push(at);
        match at.parent() {
            Some(above) => at = above,
            None => break,
        }
    }
    for dir in missing.into_iter().rev() {
        if matches!(dir.file_name().map(OsStr::as_bytes), None | Some(b"..")) {
            continue;
        }
        match std::fs::DirBuilder::new().mode(0o755).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => {
                other?;
                std::os::unix::fs::chown(dir, Some(identity.uid), Some(identity.gid))?;
            }
        }
    }
    Ok(())
}

impl Target {
    /// Opens `file`, made or emptied, for `identity`. Paths are the sandbox's own: whatever a link leads to is inside.
    pub(crate) fn open(file: &ExecFile, cwd: &Path, identity: &Identity) -> Result<Self, FileError> {
        let path =
            full_path(file, cwd).map_err(|source| FileError { path: PathBuf::from(&file.path), source })?;
        Self::open_at(file, &path, identity).map_err(|source| FileError { path, source })
    }

    fn open_at(file: &ExecFile, path: &Path, identity: &Identity) -> io::Result<Self> {
        if file.secret {
            match std::fs::DirBuilder::new().mode(0o755).create(SECRETS) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        } else {
            make_parents(path, identity)?;
        }
        // Not blocking: a FIFO without a reader would never open.
        let opened = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        let kind = opened.metadata()?.file_type();
        if kind.is_fifo() || kind.is_char_device() || kind.is_block_device() || kind.is_socket() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is there and is no regular file"));
        }
        std::os::unix::fs::fchown(&opened, Some(identity.uid), Some(identity.gid))?;
        // After chown, which clears set-user-id.
        let mode = if file.secret { 0o400 } else { file.mode & 0o7777 };
        opened.set_permissions(std::fs::Permissions::from_mode(mode))?;
        Ok(Self { path: path.to_owned(), file: opened, left: file.size })
    }

    /// Writes as much of `bytes` as belongs to this file and returns the rest.
    pub(crate) fn write<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], FileError> {
        let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let (own, rest) = bytes.split_at(take);
        self.file.write_all(own).map_err(|source| FileError { path: self.path.clone(), source })?;
        self.left -= u64::try_from(take).unwrap_or(u64::MAX);
        Ok(rest)
    }

    /// Whether all of it has been written.
    pub(crate) fn is_whole(&self) -> bool {
        self.left == 0
    }
}
