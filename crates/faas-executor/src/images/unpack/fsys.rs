//! Opening what is in a directory without ever leaving it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

/// No symbolic link is followed, no mount is entered, and nothing above the directory is reached (openat2(2)).
const WITHIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Opens the directory `path`, relative to `dir`; the empty path is `dir` itself.
pub(super) fn open_dir(dir: impl AsFd, path: &[u8], more: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b".".as_slice() } else { path };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW | more;
    loop {
        // EAGAIN: something was renamed meanwhile, somewhere on the machine, so that the kernel is not sure.
        match rustix::fs::openat2(&dir, path, flags, Mode::empty(), WITHIN) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens the file `name` in `dir` for reading.
pub(super) fn open_file(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    loop {
        match rustix::fs::openat2(&dir, name, flags, Mode::empty(), WITHIN) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// The names in a directory and whether each is a directory.
pub(super) fn list(dir: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, bool)>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let is_dir = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            }
            kind => kind == FileType::Directory,
        };
        entries.push((name.to_bytes().to_vec(), is_dir));
    }
    Ok(entries)
}

/// How many directories are kept open on the way down. Those above are opened again on the way up: a sandbox may have
/// made more of them in each other than a process can have open.
const KEPT_OPEN: usize = 256;

/// A directory that is being emptied.
struct Level {
    name: Vec<u8>,
    entries: Vec<(Vec<u8>, bool)>,
    /// Its device and inode.
    identity: (u64, u64),
    fd: Option<OwnedFd>,
}

impl Level {
    fn new(name: Vec<u8>, fd: OwnedFd) -> io::Result<Self> {
        let entries = list(fd.as_fd())?;
        Ok(Self { name, entries, identity: identity(&fd)?, fd: Some(fd) })
    }
}

fn identity(fd: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The directory above `below`, which must be the one that was gone through on the way down.
fn open_again(below: &OwnedFd, wanted: (u64, u64)) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = rustix::fs::openat(below, "..", flags, Mode::empty())?;
    if identity(&above)? == wanted { Ok(above) } else { Err(Errno::STALE.into()) }
}

/// Removes everything in a directory, however deep.
pub(super) fn remove_all_in(dir: BorrowedFd<'_>) -> io::Result<()> {
    let mut stack = vec![Level::new(Vec::new(), open_dir(dir, b"", OFlags::RDONLY)?)?];
    while let Some(level) = stack.last_mut() {
        let fd = level.fd.as_ref().ok_or(Errno::BADF)?;
        match level.entries.pop() {
            Some((name, false)) => rustix::fs::unlinkat(fd, name.as_slice(), AtFlags::empty())?,
            Some((name, true)) => {
                let below = open_dir(fd, &name, OFlags::RDONLY)?;
                stack.push(Level::new(name, below)?);
                if let Some(far) = stack.len().checked_sub(KEPT_OPEN + 1) {
                    stack[far].fd = None;
                }
            }
            None => {
                let Some(Level { name, fd: Some(done), .. }) = stack.pop() else { continue };
                let Some(parent) = stack.last_mut() else { continue };
                let above = match parent.fd.take() {
                    Some(above) => above,
                    None => open_again(&done, parent.identity)?,
                };
                rustix::fs::unlinkat(&above, name.as_slice(), AtFlags::REMOVEDIR)?;
                parent.fd = Some(above);
            }
        }
    }
    Ok(())
}

/// Both times of a file.
pub(super) const fn times(time: Timespec) -> Timestamps {
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd as _;

    use rustix::fs::OFlags;

    #[test]
    fn what_is_deeper_than_a_process_can_open_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root: std::os::fd::OwnedFd = fs::File::open(dir.path()).unwrap().into();
        let mut at = root.try_clone().unwrap();
        for depth in 0..2 * super::KEPT_OPEN {
            for name in ["a", "d", "z"] {
                rustix::fs::mkdirat(&at, name, rustix::fs::Mode::from_raw_mode(0o700)).unwrap();
            }
            fs::write(format!("/proc/self/fd/{}/file", std::os::fd::AsRawFd::as_raw_fd(&at)), [0]).unwrap();
            at =
                super::open_dir(&at, b"d", OFlags::RDONLY).unwrap_or_else(|error| panic!("{depth}: {error}"));
        }
        super::remove_all_in(root.as_fd()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_outside_of_a_directory_is_opened_or_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        fs::create_dir_all(inside.join("a/b/c")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("keep"), "x").unwrap();
        fs::write(inside.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        std::os::unix::fs::symlink("/", inside.join("a/root")).unwrap();
        let fd = fs::File::open(&inside).unwrap();
        for path in [b"link".as_slice(), b"..", b"a/root", b"a/../..", b"/", b"link/x"] {
            assert!(super::open_dir(&fd, path, OFlags::RDONLY).is_err(), "{path:?}");
        }
        super::open_dir(&fd, b"a/b/c", OFlags::RDONLY).unwrap();
        super::remove_all_in(fd.as_fd()).unwrap();
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 0);
        assert!(outside.join("keep").exists());
    }
}
