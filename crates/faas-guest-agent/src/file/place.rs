//! Where something goes: directories that are made for it, and the file that a link leads to.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use faas_guest_protocol::files::FilePut;
use rustix::io::Errno;

use super::{At as _, Failed, info};

/// How many links are followed, as the kernel does (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Makes a directory with those above it. Whether it was not there.
pub(super) fn make_dirs(path: &Path) -> Result<bool, Failed> {
    let made = DirBuilder::new().mode(0o755).create(path);
    match made {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = path.parent().filter(|above| !above.as_os_str().is_empty());
            make_dirs_above(above, path, &error)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(false),
            _ => Err(Failed::at(path, &error)),
        },
        Err(error) => Err(Failed::at(path, &error)),
    }
}

fn make_dirs_above(above: Option<&Path>, path: &Path, error: &io::Error) -> Result<bool, Failed> {
    let Some(above) = above else { return Err(Failed::at(path, error)) };
    make_dirs(above)?;
    // Once more, and no more often: somebody may be removing them.
    match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(error) => Err(Failed::at(path, &error)),
    }
}

/// A directory with those above it; its mode is that of one that is made.
pub(super) fn make_dir(path: &Path, mode: Option<u32>) -> Result<FilePut, Failed> {
    let created = make_dirs(path)?;
    if let (true, Some(mode)) = (created, mode) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).at(path)?;
    }
    Ok(FilePut { stat: info::stat(path)?, created })
}

/// The directory that something is in, by its path.
pub(super) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => Path::new("/"),
    }
}

/// Where a file is written: what `path` is, or what the link there leads to in the end, whether that is there or not.
pub(super) fn behind_links(path: &Path) -> Result<PathBuf, Failed> {
    let mut at = path.to_owned();
    for _ in 0..MAX_LINKS {
        let last = at.as_os_str().as_bytes();
        if last.ends_with(b"/") || at.file_name().is_none() {
            return Err(Failed::new(Errno::ISDIR, format!("{}: it is a directory", path.display())));
        }
        match std::fs::read_link(&at) {
            Ok(target) => at = directory(&at).join(target),
            // No link, or nothing.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => {
                return Ok(at);
            }
            Err(error) => return Err(Failed::at(path, &error)),
        }
    }
    Err(Failed::at(path, &Errno::LOOP.into()))
}
