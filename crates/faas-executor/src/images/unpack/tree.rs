//! The directories of a layer while it is unpacked.
//!
//! Directories from the root to where the last entry went are kept open, so that the next entry, which is mostly in the
//! same one, costs no look-up. Each is opened from the one above by its name alone and is never a symbolic link. A
//! directory's time of modification is given back to it when it is left, since every entry made in it changes it.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Uid};
use rustix::io::Errno;

use super::entry::show;
use super::fsys;
use super::job::JobError;
use crate::images::marks::{Marks, join};

/// The time of directories that a layer says nothing of.
const NO_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The mode of directories that a layer says nothing of.
const IMPLIED_MODE: u32 = 0o755;

struct Level {
    name: Vec<u8>,
    fd: OwnedFd,
    mtime: Timespec,
    /// Whether the time has to be given back.
    is_changed: bool,
    /// Whether what is made in it gets its group.
    gives_group: bool,
}

/// The directories of a layer.
pub(super) struct Tree {
    root: Level,
    levels: Vec<Level>,
}

/// The directory that the next entry goes to.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) dir: BorrowedFd<'a>,
    /// Whether what is made in it gets its group.
    pub(super) gives_group: bool,
}

impl Tree {
    /// The layer's root: an empty directory.
    pub(super) fn new(root: OwnedFd, marks: &mut Marks) -> Result<Self, JobError> {
        marks.add_implied(b"").map_err(|error| JobError::TooLarge(error.to_string()))?;
        let root = Level { name: Vec::new(), fd: root, mtime: NO_TIME, is_changed: true, gives_group: false };
        let mut tree = Self { root, levels: Vec::new() };
        tree.set_attributes(IMPLIED_MODE, (0, 0), NO_TIME)?;
        Ok(tree)
    }

    fn top(&mut self) -> &mut Level {
        self.levels.last_mut().unwrap_or(&mut self.root)
    }

    /// Goes to the directory `path`. Parts of it that are not there are made; how many is returned.
    pub(super) fn enter(&mut self, path: &[u8], marks: &mut Marks) -> Result<u64, JobError> {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
        let same = self.levels.iter().zip(&parts).take_while(|(level, part)| level.name == **part).count();
        self.leave_down_to(same)?;
        let mut made = 0;
        for depth in same..parts.len() {
            let below = parts[..depth].join(&b'/');
            made += u64::from(self.descend(&below, parts[depth], marks)?);
        }
        Ok(made)
    }

    /// Goes to the directory `name` of the current one; makes it where it is not there and says so.
    fn descend(&mut self, dir: &[u8], name: &[u8], marks: &mut Marks) -> Result<bool, JobError> {
        let path = || show(&join(dir, name));
        let top = self.top();
        match fsys::open_dir(&top.fd, name, OFlags::RDONLY) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd).map_err(|error| JobError::at(path(), error))?;
                let mtime = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds(stat.st_mtime_nsec) };
                let gives_group = stat.st_mode & libc::S_ISGID != 0;
                self.levels.push(Level { name: name.to_vec(), fd, mtime, is_changed: false, gives_group });
                Ok(false)
            }
            Err(Errno::NOENT) => {
                self.make_dir(name).map_err(|error| JobError::at(path(), error))?;
                self.set_attributes(IMPLIED_MODE, (0, 0), NO_TIME)?;
                let implied = marks.add_implied(&join(dir, name));
                implied.map_err(|error| JobError::TooLarge(error.to_string()))?;
                Ok(true)
            }
            Err(Errno::LOOP | Errno::NOTDIR) => Err(JobError::Corrupt(format!(
                "an entry is below {}, which is no directory in this layer",
                path()
            ))),
            Err(error) => Err(JobError::at(path(), error)),
        }
    }

    /// Makes the directory `name` in the current one, which must not have it, and goes there.
    pub(super) fn make_dir(&mut self, name: &[u8]) -> Result<(), Errno> {
        let top = self.top();
        rustix::fs::mkdirat(&top.fd, name, Mode::from_raw_mode(0o700))?;
        top.is_changed = true;
        let fd = fsys::open_dir(&top.fd, name, OFlags::RDONLY)?;
        self.levels.push(Level {
            name: name.to_vec(),
            fd,
            mtime: NO_TIME,
            is_changed: true,
            gives_group: false,
        });
        Ok(())
    }

    /// Sets the attributes of the current directory.
    pub(super) fn set_attributes(
        &mut self,
        mode: u32,
        (uid, gid): (u32, u32),
        mtime: Timespec,
    ) -> Result<(), JobError> {
        let level = self.top();
        let set = || {
            rustix::fs::fchown(&level.fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            rustix::fs::fchmod(&level.fd, Mode::from_raw_mode(mode))
        };
        set().map_err(|error: Errno| JobError::at("set a directory's attributes", error))?;
        (level.mtime, level.is_changed, level.gives_group) = (mtime, true, mode & libc::S_ISGID != 0);
        Ok(())
    }

    /// The current directory, in which an entry is going to be made.
    pub(super) fn place(&mut self) -> Place<'_> {
        let level = self.top();
        level.is_changed = true;
        Place { dir: level.fd.as_fd(), gives_group: level.gives_group }
    }

    /// Opens the directory `path` without going there; it must be there.
    pub(super) fn find(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        fsys::open_dir(&self.root.fd, path, OFlags::PATH)
    }

    /// Removes `name` from the current directory, with all that is in it.
    pub(super) fn remove(&mut self, name: &[u8]) -> Result<(), JobError> {
        let level = self.top();
        level.is_changed = true;
        let removed = match rustix::fs::unlinkat(&level.fd, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => fsys::open_dir(&level.fd, name, OFlags::RDONLY)
                .map_err(std::io::Error::from)
                .and_then(|dir| fsys::remove_all_in(dir.as_fd()))
                .and_then(|()| Ok(rustix::fs::unlinkat(&level.fd, name, AtFlags::REMOVEDIR)?)),
            other => other.map_err(std::io::Error::from),
        };
        removed.map_err(|error| JobError::at(format!("replace {}", show(name)), error))
    }

    /// Leaves all directories.
    pub(super) fn finish(mut self) -> Result<(), JobError> {
        self.leave_down_to(0)?;
        give_back_time(&self.root)
    }

    fn leave_down_to(&mut self, depth: usize) -> Result<(), JobError> {
        while self.levels.len() > depth {
            if let Some(level) = self.levels.pop() {
                give_back_time(&level)?;
            }
        }
        Ok(())
    }
}

fn give_back_time(level: &Level) -> Result<(), JobError> {
    if !level.is_changed {
        return Ok(());
    }
    rustix::fs::futimens(&level.fd, &fsys::times(level.mtime))
        .map_err(|error| JobError::at("set a directory's time", error))
}

/// The part of a second in a `stat`, whose type differs between architectures.
pub(super) fn nanoseconds(raw: impl TryInto<i64>) -> i64 {
    raw.try_into().unwrap_or_default()
}
