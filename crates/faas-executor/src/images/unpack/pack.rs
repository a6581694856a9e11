//! Writes a merged tree as one layer: what unpacking it would make again, as far as the store has it.
//!
//! Entries come in the order of their names, each directory before what is in it, so that the same tree is always the
//! same bytes. Several names of one file are hard links; of extended attributes there are `user.*`, since the store
//! keeps no others.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use faas_tar::{END, Entry, Kind, header, padding};
use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::entry::show;
use super::fsys;
use super::job::{JobError, Report};
use super::overlay::MAX_XATTR_BYTES;
use super::tree::nanoseconds;
use crate::images::digest::Digest;
use crate::images::marks::join;

const BUFFER: usize = 256 << 10;

/// How often progress is told.
const PROGRESS_BYTES: u64 = 8 << 20;

/// Counts and hashes what is written.
struct Output {
    file: File,
    hasher: Sha256,
    count: u64,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

struct Packer<'a> {
    output: BufWriter<Output>,
    /// Files with several names, by inode: the tree is on one file system.
    names: HashMap<u64, Vec<u8>>,
    entries: u64,
    told: u64,
    progress: &'a mut dyn FnMut(u64) -> io::Result<()>,
}

/// A directory on the way down: its path, itself, and the names in it that are still to come, the last first.
struct Level {
    path: Vec<u8>,
    dir: OwnedFd,
    names: Vec<Vec<u8>>,
}

/// Writes the tree `root` to `output`.
pub(super) fn pack(
    root: OwnedFd,
    output: OwnedFd,
    progress: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<Report, JobError> {
    let output = Output { file: File::from(output), hasher: Sha256::new(), count: 0 };
    let output = BufWriter::with_capacity(BUFFER, output);
    let mut packer = Packer { output, names: HashMap::new(), entries: 0, told: 0, progress };
    let mut levels = vec![packer.directory(Vec::new(), root)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.pop() else {
            levels.pop();
            continue;
        };
        let path = join(&level.path, &name);
        if let Some(below) = packer.entry(path, level.dir.as_fd(), &name)? {
            levels.push(below);
        }
    }
    let failed = |error| JobError::at("write the archive", error);
    packer.output.write_all(&END).map_err(failed)?;
    let output = packer.output.into_inner().map_err(|error| failed(error.into_error()))?;
    Ok(Report {
        digest: Some(Digest::finish(output.hasher)),
        bytes: output.count,
        entries: packer.entries,
        ..Report::default()
    })
}

impl Packer<'_> {
    /// Writes one entry; a directory is gone into.
    fn entry(
        &mut self,
        path: Vec<u8>,
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<Option<Level>, JobError> {
        let failed = |error: io::Error| JobError::at(format!("pack {}", show(&path)), error);
        let stat =
            rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(e.into()))?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let dir = fsys::open_dir(parent, name, OFlags::RDONLY).map_err(|e| failed(e.into()))?;
                return self.directory(path, dir).map(Some);
            }
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            // The store has no others.
            _ => return Ok(None),
        };
        if stat.st_nlink > 1 {
            if let Some(first) = self.names.get(&stat.st_ino) {
                let link = Entry { link: first.clone(), ..described(&path, Kind::HardLink, &stat) };
                return self.header(&link).map(|()| None).map_err(failed);
            }
            self.names.insert(stat.st_ino, path.clone());
        }
        let mut entry = described(&path, kind, &stat);
        match kind {
            Kind::File => self.file(entry, parent, name).map_err(failed)?,
            Kind::Symlink => {
                let target =
                    rustix::fs::readlinkat(parent, name, Vec::new()).map_err(|e| failed(e.into()))?;
                entry.link = target.into_bytes();
                self.header(&entry).map_err(failed)?;
            }
            _ => self.header(&entry).map_err(failed)?,
        }
        Ok(None)
    }

    /// Writes a directory's own entry, and finds out what is in it.
    fn directory(&mut self, path: Vec<u8>, dir: OwnedFd) -> Result<Level, JobError> {
        let mut write = || -> io::Result<Vec<Vec<u8>>> {
            let shown = if path.is_empty() { b"./".to_vec() } else { [path.as_slice(), b"/"].concat() };
            let mut entry = described(&shown, Kind::Directory, &rustix::fs::fstat(&dir)?);
            entry.xattrs = xattrs(dir.as_fd())?;
            self.header(&entry)?;
            let mut names: Vec<_> = fsys::list(dir.as_fd())?.into_iter().map(|(name, _)| name).collect();
            names.sort_unstable_by(|a, b| b.cmp(a));
            Ok(names)
        };
        let names = write().map_err(|error| JobError::at(format!("pack {}", show(&path)), error))?;
        Ok(Level { path, dir, names })
    }

    fn file(&mut self, mut entry: Entry, parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        let file = fsys::open_file(parent, name)?;
        entry.size = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or_default();
        entry.xattrs = xattrs(file.as_fd())?;
        self.header(&entry)?;
        let copied = io::copy(&mut File::from(file).take(entry.size), &mut self.output)?;
        if copied != entry.size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter meanwhile"));
        }
        self.output.write_all(&END[..padding(entry.size)])?;
        let done = self.output.get_ref().count;
        if done - self.told >= PROGRESS_BYTES {
            self.told = done;
            (self.progress)(done)?;
        }
        Ok(())
    }

    fn header(&mut self, entry: &Entry) -> io::Result<()> {
        self.entries += 1;
        self.output.write_all(&header(entry))
    }
}

/// What a `stat` tells.
fn described(path: &[u8], kind: Kind, stat: &Stat) -> Entry {
    Entry {
        kind,
        path: path.to_vec(),
        link: Vec::new(),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid.into(),
        gid: stat.st_gid.into(),
        mtime: (stat.st_mtime, u32::try_from(nanoseconds(stat.st_mtime_nsec)).unwrap_or_default()),
        size: 0,
        segments: None,
        xattrs: Vec::new(),
    }
}

/// The attributes `user.*` of a file, by name.
fn xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = Vec::with_capacity(MAX_XATTR_BYTES);
    match rustix::fs::flistxattr(file, rustix::buffer::spare_capacity(&mut names)) {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        let mut value = Vec::with_capacity(MAX_XATTR_BYTES);
        rustix::fs::fgetxattr(file, name, rustix::buffer::spare_capacity(&mut value))?;
        found.push((name.to_vec(), value));
    }
    found.sort_unstable();
    Ok(found)
}
