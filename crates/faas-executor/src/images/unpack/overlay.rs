//! Merges layers on the disk: directories are made, everything else is a hard link to the layer's.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Uid, XattrFlags};
use rustix::io::Errno;

use super::entry::show;
use super::fsys;
use super::job::{JobError, Report};
use crate::images::marks::{Marks, join};
use crate::images::merge::{self, Surface};

/// What a directory takes on the disk, and what a name does.
const DIRECTORY_BYTES: u64 = 4096;
const NAME_BYTES: u64 = 32;

/// The largest list of names, and the largest value, of extended attributes (xattr(7), "Limits").
pub(super) const MAX_XATTR_BYTES: usize = 64 << 10;

struct Disk<'a> {
    layers: &'a [OwnedFd],
    target: OwnedFd,
    dir: Vec<u8>,
    /// The current directory in the merged tree, and in the layers that were listed.
    here: OwnedFd,
    there: Vec<Option<OwnedFd>>,
    /// Files that had to be copied, by layer and inode, with where the copy is: further names of one are links to it.
    copies: HashMap<(usize, u64), Vec<u8>>,
    report: Report,
}

/// Merges layers, the lowest first, into the empty directory `target`.
pub(super) fn merge(layers: &[OwnedFd], marks: &[Marks], target: OwnedFd) -> Result<Report, JobError> {
    let here = fsys::open_dir(&target, b"", OFlags::RDONLY)
        .map_err(|error| JobError::at("open the merged tree", error))?;
    let mut disk = Disk {
        layers,
        target,
        dir: Vec::new(),
        here,
        there: layers.iter().map(|_| None).collect(),
        copies: HashMap::new(),
        report: Report::default(),
    };
    merge::merge(marks, &mut disk)?;
    Ok(disk.report)
}

impl Disk<'_> {
    fn failed(&self, what: &str, name: &[u8], error: impl Into<io::Error>) -> JobError {
        JobError::at(format!("{what} {}", show(&join(&self.dir, name))), error)
    }

    fn there(&self, layer: usize) -> Result<BorrowedFd<'_>, JobError> {
        let fd = self.there.get(layer).and_then(Option::as_ref).map(OwnedFd::as_fd);
        fd.ok_or_else(|| JobError::Failed("a layer was not listed".to_owned()))
    }

    /// Links to an earlier copy, or makes one: the file has as many links as the file system allows, or is on another.
    fn copy(&mut self, layer: usize, name: &[u8]) -> Result<(), Copying> {
        let from = self.there(layer).map_err(Copying::Job)?;
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if let Some(path) = self.copies.get(&(layer, stat.st_ino)) {
            match rustix::fs::linkat(&self.target, path.as_slice(), &self.here, name, AtFlags::empty()) {
                Err(Errno::MLINK) => {}
                other => return Ok(other?),
            }
        }
        copy_node(from, &self.here, name, &stat)?;
        self.report.bytes += u64::try_from(stat.st_size).unwrap_or(0).next_multiple_of(DIRECTORY_BYTES);
        let path = join(&self.dir, name);
        if stat.st_nlink > 1 {
            self.copies.insert((layer, stat.st_ino), path);
        }
        Ok(())
    }
}

enum Copying {
    Job(JobError),
    Io(io::Error),
}

impl<E: Into<io::Error>> From<E> for Copying {
    fn from(error: E) -> Self {
        Self::Io(error.into())
    }
}

impl Surface for Disk<'_> {
    type Error = JobError;

    fn begin(&mut self, dir: &[u8]) -> Result<(), JobError> {
        self.dir = dir.to_vec();
        self.here = fsys::open_dir(&self.target, dir, OFlags::RDONLY)
            .map_err(|error| self.failed("open", b"", error))?;
        self.there.fill_with(|| None);
        self.report.bytes += DIRECTORY_BYTES;
        self.report.entries += 1;
        Ok(())
    }

    fn list(&mut self, layer: usize, dir: &[u8]) -> Result<Vec<(Vec<u8>, bool)>, JobError> {
        let fd = fsys::open_dir(&self.layers[layer], dir, OFlags::RDONLY)
            .map_err(|error| self.failed("open a layer's", b"", error))?;
        let entries = fsys::list(fd.as_fd()).map_err(|error| self.failed("list a layer's", b"", error))?;
        self.there[layer] = Some(fd);
        Ok(entries)
    }

    fn take(&mut self, layer: usize, name: &[u8]) -> Result<(), JobError> {
        self.report.bytes += NAME_BYTES;
        self.report.entries += 1;
        match rustix::fs::linkat(self.there(layer)?, name, &self.here, name, AtFlags::empty()) {
            Err(Errno::MLINK | Errno::XDEV) => match self.copy(layer, name) {
                Err(Copying::Io(error)) => Err(self.failed("copy", name, error)),
                Err(Copying::Job(error)) => Err(error),
                Ok(()) => Ok(()),
            },
            other => other.map_err(|error| self.failed("link", name, error)),
        }
    }

    fn make_dir(&mut self, name: &[u8]) -> Result<(), JobError> {
        rustix::fs::mkdirat(&self.here, name, Mode::from_raw_mode(0o700))
            .map_err(|error| self.failed("make", name, error))
    }

    fn finish(&mut self, dir: &[u8], attributes: Option<usize>) -> Result<(), JobError> {
        let describe = || -> Result<(), io::Error> {
            let Some(layer) = attributes else {
                rustix::fs::fchown(&self.here, Some(Uid::ROOT), Some(Gid::ROOT))?;
                rustix::fs::fchmod(&self.here, Mode::from_raw_mode(0o755))?;
                let none = Timespec { tv_sec: 0, tv_nsec: 0 };
                return Ok(rustix::fs::futimens(&self.here, &fsys::times(none))?);
            };
            let opened;
            let from = match &self.there[layer] {
                Some(fd) => fd.as_fd(),
                None => {
                    opened = fsys::open_dir(&self.layers[layer], dir, OFlags::RDONLY)?;
                    opened.as_fd()
                }
            };
            Ok(copy_attributes(from, self.here.as_fd(), &rustix::fs::fstat(from)?)?)
        };
        describe().map_err(|error| self.failed("describe", b"", error))
    }
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn mtime(stat: &Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime, tv_nsec: super::tree::nanoseconds(stat.st_mtime_nsec) }
}

/// Gives `to` the attributes that `from` has: owner, mode, `user.*`, time.
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(to, uid, gid)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut names = Vec::with_capacity(MAX_XATTR_BYTES);
    match rustix::fs::flistxattr(from, rustix::buffer::spare_capacity(&mut names)) {
        Ok(_) | Err(Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error),
    }
    for name in names.split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        let mut value = Vec::with_capacity(MAX_XATTR_BYTES);
        rustix::fs::fgetxattr(from, name, rustix::buffer::spare_capacity(&mut value))?;
        rustix::fs::fsetxattr(to, name, &value, XattrFlags::empty())?;
    }
    rustix::fs::futimens(to, &fsys::times(mtime(stat)))
}

/// Makes `name` in `to` as it is in `from`.
fn copy_node(from: BorrowedFd<'_>, to: &OwnedFd, name: &[u8], stat: &Stat) -> io::Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let source = fsys::open_file(from, name)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let copy = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
            // Where the file system can share blocks between files, this does.
            io::copy(
                &mut std::fs::File::from(source.try_clone()?),
                &mut std::fs::File::from(copy.try_clone()?),
            )?;
            return Ok(copy_attributes(source.as_fd(), copy.as_fd(), stat)?);
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target.as_c_str(), to, name)?;
        }
        FileType::Fifo => {
            rustix::fs::mknodat(to, name, FileType::Fifo, Mode::from_raw_mode(stat.st_mode & 0o7777), 0)?;
        }
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "it is of no kind that a layer has")),
    }
    let (uid, gid) = owner(stat);
    rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(rustix::fs::utimensat(to, name, &fsys::times(mtime(stat)), AtFlags::SYMLINK_NOFOLLOW)?)
}
