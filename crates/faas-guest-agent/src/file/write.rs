//! A regular file from content: written without a name or under another one, then put in its place in one step.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use faas_guest_protocol::files::FilePut;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::Wanted;
use super::{At as _, Failed, info, input, place};
use crate::sys;

/// How many names are tried for one that nobody has.
const TRIES: usize = 16;

/// A file that is not yet in its place; removed when it does not come there.
pub(super) struct New {
    pub(super) file: File,
    /// The name that it has; none where its file system has files without one.
    name: Option<PathBuf>,
}

impl Drop for New {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            // Whoever waits for an answer gets the error that led here.
            match std::fs::remove_file(name) {
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// A name beside `path` that nobody has.
pub(super) fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = format!(".faas-{:016x}", sys::random()?).into_bytes();
    Ok(place::directory(path).join(std::ffi::OsString::from_vec(name)))
}

impl New {
    /// A file in the directory of `path`.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mode = Mode::from_raw_mode(0o600);
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::open(place::directory(path), flags, mode) {
            Ok(file) => return Ok(Self { file: File::from(file), name: None }),
            // The file system, or the kernel, has none without a name (open(2), `O_TMPFILE`).
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        let (file, name) =
            named(path, |name| File::options().write(true).create_new(true).mode(0o600).open(name))?;
        Ok(Self { file, name: Some(name) })
    }

    /// Puts it in its place.
    fn publish(mut self, path: &Path) -> io::Result<()> {
        let name = match self.name.take() {
            Some(name) => name,
            None => {
                let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                let link = |to: &Path| rustix::fs::linkat(CWD, &own, CWD, to, AtFlags::SYMLINK_FOLLOW);
                match link(path) {
                    Ok(()) => return Ok(()),
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                // A link replaces nothing, and a change of the name does.
                named(path, |name| link(name).map_err(io::Error::from))?.1
            }
        };
        let renamed = std::fs::rename(&name, path);
        if renamed.is_err() {
            self.name = Some(name);
        }
        renamed
    }
}

/// Makes something under a name beside `path`.
fn named<T>(path: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(T, PathBuf)> {
    for _ in 0..TRIES {
        let name = beside(path)?;
        match make(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return Ok((made?, name)),
        }
    }
    Err(Errno::EXIST.into())
}

/// What is at `path`, where that can be replaced by a file.
fn replaced(path: &Path) -> Result<Option<Metadata>, Failed> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata)),
        Ok(metadata) if metadata.is_dir() => {
            Err(Failed::new(Errno::ISDIR, format!("{}: it is a directory", path.display())))
        }
        Ok(_) => Err(Failed::new(Errno::INVAL, format!("{}: it is no regular file", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failed::at(path, &error)),
    }
}

pub(super) fn write(
    path: &Path,
    mode: Option<u32>,
    owner: Option<&str>,
    mut content: impl Read,
) -> Result<FilePut, Failed> {
    let wanted = Wanted::new(mode, owner)?;
    let target = place::behind_links(path)?;
    replaced(&target)?;
    place::make_dirs(place::directory(&target))?;
    let mut new = New::create(&target).at(path)?;
    input::copy(&mut content, &mut new.file).at(path)?;
    let before = replaced(&target)?;
    wanted.give(&new.file, before.as_ref(), path)?;
    new.publish(&target).at(path)?;
    Ok(FilePut { stat: info::stat(path)?, created: before.is_none() })
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::PathBuf;

    use super::write;
    use crate::file::Failed;

    /// Content that is cut off.
    struct Cut;

    impl Read for Cut {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("write-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    fn errno(failed: Failed) -> i32 {
        match failed {
            Failed::Told(failure) => failure.errno,
            Failed::Broken => 0,
        }
    }

    #[test]
    fn a_file_is_there_whole_or_as_it_was() {
        let dir = directory("whole");
        let path = dir.join("a/b/file");
        assert!(write(&path, None, None, &b"first"[..]).unwrap().created);
        assert!(write(&path, None, None, Cut.chain(&b""[..])).is_err());
        assert!(write(&path, None, None, (&b"half"[..]).chain(Cut)).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert!(!write(&path, Some(0o4711), None, &b"second"[..]).unwrap().created);
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert!(!write(&path, None, None, &b"third"[..]).unwrap().created);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o4711, "it keeps its mode");
        let names: Vec<_> = std::fs::read_dir(dir.join("a/b")).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_link_is_written_through_and_what_is_no_file_is_not_written() {
        let dir = directory("links");
        symlink("real", dir.join("link")).unwrap();
        symlink("link", dir.join("other")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        assert!(write(&dir.join("other"), None, None, &b"x"[..]).unwrap().created);
        assert!(dir.join("other").symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read(dir.join("real")).unwrap(), b"x");
        let refused = |name: &str| errno(write(&dir.join(name), None, None, &b"x"[..]).unwrap_err());
        assert_eq!(refused("loop"), libc::ELOOP);
        assert_eq!(refused(""), libc::EISDIR);
        assert_eq!(refused("new/"), libc::EISDIR);
        assert_eq!(refused("real/below"), libc::ENOTDIR);
        std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
        assert_eq!(refused("socket"), libc::EINVAL);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
