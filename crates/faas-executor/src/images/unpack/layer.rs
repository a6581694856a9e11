//! Unpacks one layer: a tar stream, plain or compressed, into an empty directory.
//!
//! The rules (OCI image specification, "Image Layer Filesystem Changeset"):
//! - names are relative, whatever they begin with; `..` is refused;
//! - a later entry of the same name replaces an earlier one, with all that is in it where that is a directory; two
//!   directories become one;
//! - an entry below something that is no directory in this layer is refused, a symbolic link there too: it is never
//!   followed;
//! - a hard link is one to an earlier entry of this layer, found in the same way, or refused;
//! - whiteouts and opaque marks go to the [`Marks`] and touch nothing in the layer itself;
//! - device nodes are left out and counted: a sandbox's `/dev` is its own; sockets cannot be in a tar stream;
//! - of extended attributes only `user.*` are kept, less overlayfs' own;
//! - set-id bits are kept; images are mounted `nosuid`.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd as _, OwnedFd};

use faas_tar::{Entry, Kind, TarError, TarReader};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Uid, XattrFlags};
use rustix::io::Errno;

use super::decode::{self, Decoder};
use super::entry::{self, Place, clean, show, split};
use super::fsys;
use super::job::{JobError, LeftOut, Report};
use super::tree::Tree;
use crate::images::marks::{Marks, MarksError};

/// The id that stands for all that a sandbox does not have (user_namespaces(7), "Unmapped user and group IDs").
const OVERFLOW_ID: u32 = 65534;

/// How often progress is told.
const PROGRESS_BYTES: u64 = 8 << 20;

/// What an entry takes beside its data: an inode and a name.
const ENTRY_BYTES: u64 = 512;

/// Disks are given out in blocks of this size.
const BLOCK_BYTES: u64 = 4096;

/// The latest time that every file system of Linux can hold (ext4 with 256-byte inodes, the year 2446).
const LAST_SECOND: i64 = 0x3_7fff_ffff;

/// What bounds a layer.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) max_bytes: u64,
    pub(super) max_entries: u64,
    /// How many ids files may have. With one, owners are dropped.
    pub(super) ids: u32,
}

struct Unpacker<'a> {
    tree: Tree,
    marks: Marks,
    bounds: Bounds,
    report: Report,
    told: u64,
    progress: &'a mut dyn FnMut(u64) -> std::io::Result<()>,
}

fn corrupt(error: &TarError) -> JobError {
    match error {
        TarError::Read(error) if error.to_string() == decode::TOO_LARGE => {
            JobError::TooLarge(error.to_string())
        }
        _ => JobError::Corrupt(format!("its archive is broken: {error}")),
    }
}

fn too_many(error: MarksError) -> JobError {
    JobError::TooLarge(error.to_string())
}

/// Unpacks `source` into the empty directory `root`.
pub(super) fn unpack(
    source: impl Read,
    root: OwnedFd,
    bounds: Bounds,
    progress: &mut dyn FnMut(u64) -> std::io::Result<()>,
) -> Result<(Report, Marks), JobError> {
    // What is left out of a layer takes no disk and must not come without end either.
    let limit = bounds.max_bytes.saturating_add(bounds.max_entries.saturating_mul(2048));
    let mut decoder = Decoder::new(source, limit).map_err(|error| corrupt(&error.into()))?;
    let mut marks = Marks::default();
    let tree = Tree::new(root, &mut marks)?;
    let mut unpacker = Unpacker { tree, marks, bounds, report: Report::default(), told: 0, progress };
    let mut reader = TarReader::new(&mut decoder);
    while let Some(entry) = reader.next_entry().map_err(|error| corrupt(&error))? {
        unpacker.entry(&entry, &mut reader)?;
    }
    // What comes after the last entry belongs to the digest.
    decode::drain(reader.into_rest()).map_err(|error| corrupt(&error.into()))?;
    let Unpacker { tree, marks, mut report, .. } = unpacker;
    tree.finish()?;
    report.digest = Some(decoder.digest());
    Ok((report, marks))
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, entry: &Entry, reader: &mut TarReader<R>) -> Result<(), JobError> {
        let place = entry::place(&entry.path)
            .map_err(|error| JobError::Corrupt(format!("the name {} {error}", show(&entry.path))))?;
        self.charge(0, 1)?;
        match place {
            Place::Ignored => Ok(()),
            Place::Whiteout(path) => self.marks.add_whiteout(&path).map_err(too_many),
            Place::Opaque(dir) => {
                let made = self.tree.enter(&dir, &mut self.marks)?;
                self.charge(0, made)?;
                self.marks.add_opaque(&dir).map_err(too_many)
            }
            Place::Root if entry.kind == Kind::Directory => {
                self.tree.enter(b"", &mut self.marks)?;
                self.describe_dir(b"", entry)
            }
            Place::Root => Err(JobError::Corrupt("an entry without a name is no directory".to_owned())),
            Place::Path(path) => self.make(&path, entry, reader),
        }
    }

    /// Counts what goes to the disk.
    fn charge(&mut self, data: u64, entries: u64) -> Result<(), JobError> {
        self.report.entries += entries;
        if self.report.entries > self.bounds.max_entries {
            return Err(JobError::TooLarge(format!("it has more than {} entries", self.bounds.max_entries)));
        }
        let data = data.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX);
        self.report.bytes = self.report.bytes.saturating_add(data).saturating_add(entries * ENTRY_BYTES);
        if self.report.bytes > self.bounds.max_bytes {
            return Err(JobError::TooLarge(format!("it takes more than {} bytes", self.bounds.max_bytes)));
        }
        if self.report.bytes - self.told >= PROGRESS_BYTES {
            self.told = self.report.bytes;
            (self.progress)(self.told).map_err(|error| JobError::at("tell progress", error))?;
        }
        Ok(())
    }

    /// The owner and group on the disk.
    fn owner(&mut self, entry: &Entry) -> (u32, u32) {
        if self.bounds.ids == 1 {
            return (0, 0);
        }
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id < self.bounds.ids);
        let (uid, gid) = (id(entry.uid), id(entry.gid));
        if uid.is_none() || gid.is_none() {
            self.report.left_out.owners += 1;
        }
        let overflow = OVERFLOW_ID.min(self.bounds.ids - 1);
        (uid.unwrap_or(overflow), gid.unwrap_or(overflow))
    }

    fn make<R: Read>(
        &mut self,
        path: &[u8],
        entry: &Entry,
        reader: &mut TarReader<R>,
    ) -> Result<(), JobError> {
        if entry.kind == Kind::Device {
            self.report.left_out.devices += 1;
            return Ok(());
        }
        let (dir, name) = split(path);
        let made = self.tree.enter(dir, &mut self.marks)?;
        self.charge(0, made)?;
        match entry.kind {
            Kind::Directory => self.directory(path, name, entry),
            Kind::File => self.file(path, name, entry, reader),
            Kind::HardLink => self.hard_link(path, name, entry),
            Kind::Symlink => {
                // A link whose target the kernel would not take is no use to anybody.
                if entry.link.is_empty() || entry.link.len() > 4095 || entry.link.contains(&0) {
                    return Err(JobError::Corrupt(format!("the target of link {} is no path", show(path))));
                }
                self.charge(if entry.link.len() < 60 { 0 } else { 1 }, 0)?;
                self.node(path, name, entry, |dir| rustix::fs::symlinkat(entry.link.as_slice(), dir, name))
            }
            Kind::Fifo => self.node(path, name, entry, |dir| {
                rustix::fs::mknodat(dir, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            }),
            Kind::Device => Ok(()),
        }
    }

    /// Makes something under a name; what has the name already goes first.
    fn create<T>(
        &mut self,
        path: &[u8],
        name: &[u8],
        make: impl Fn(&mut Tree) -> Result<T, Errno>,
    ) -> Result<T, JobError> {
        let made = match make(&mut self.tree) {
            Err(Errno::EXIST) => {
                self.tree.remove(name)?;
                make(&mut self.tree)
            }
            other => other,
        };
        made.map_err(|error| JobError::at(format!("make {}", show(path)), error))
    }

    fn directory(&mut self, path: &[u8], name: &[u8], entry: &Entry) -> Result<(), JobError> {
        let there = self.tree.place();
        let is_dir = match rustix::fs::statat(there.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            Err(Errno::NOENT) => false,
            Err(error) => return Err(JobError::at(format!("look at {}", show(path)), error)),
        };
        if is_dir {
            self.tree.enter(path, &mut self.marks)?;
        } else {
            self.charge(1, 0)?;
            self.create(path, name, |tree| tree.make_dir(name))?;
        }
        self.describe_dir(path, entry)
    }

    /// Gives the current directory, which is `path`, what its entry says.
    fn describe_dir(&mut self, path: &[u8], entry: &Entry) -> Result<(), JobError> {
        self.marks.remove_implied(path);
        let owner = self.owner(entry);
        self.tree.set_attributes(entry.mode, owner, time(entry))?;
        let place = self.tree.place();
        let left_out = &mut self.report.left_out;
        set_xattrs(place.dir, entry, left_out).map_err(|error| JobError::at(show(path), error))
    }

    fn file<R: Read>(
        &mut self,
        path: &[u8],
        name: &[u8],
        entry: &Entry,
        reader: &mut TarReader<R>,
    ) -> Result<(), JobError> {
        let failed = |error: Errno| JobError::at(format!("write {}", show(path)), error);
        // The holes of a file take no disk, but whoever reads it has to go through them.
        if entry.size > self.bounds.max_bytes {
            return Err(JobError::TooLarge(format!("{} is larger than a whole layer may be", show(path))));
        }
        let (_, stored) = reader.data_range();
        self.charge(stored, 0)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let file = self.create(path, name, |tree| rustix::fs::openat(tree.place().dir, name, flags, mode))?;
        match &entry.segments {
            None => write_all(&file, reader, u64::MAX).map_err(|error| error.of(path))?,
            Some(segments) => {
                for segment in segments {
                    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(segment.offset)).map_err(failed)?;
                    write_all(&file, reader, segment.len).map_err(|error| error.of(path))?;
                }
                rustix::fs::ftruncate(&file, entry.size).map_err(failed)?;
            }
        }
        let owner = self.owner(entry);
        let gives_group = self.tree.place().gives_group;
        if owner != (0, 0) || gives_group {
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(failed)?;
        }
        // After the owner, a change of which takes the set-id bits away.
        if entry.mode & 0o7000 != 0 {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode)).map_err(failed)?;
        }
        set_xattrs(file.as_fd(), entry, &mut self.report.left_out).map_err(failed)?;
        rustix::fs::futimens(&file, &fsys::times(time(entry))).map_err(failed)
    }

    fn hard_link(&mut self, path: &[u8], name: &[u8], entry: &Entry) -> Result<(), JobError> {
        let refused =
            |why: &str| JobError::Corrupt(format!("hard link {} to {} {why}", show(path), show(&entry.link)));
        let target = clean(&entry.link).map_err(|error| refused(&error.to_string()))?;
        if target.is_empty() || target == path {
            return Err(refused("is one to itself or to the layer's root"));
        }
        let missing = |error: Errno| match error {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => refused("is one to nothing in this layer"),
            error => JobError::at(format!("link {}", show(path)), error),
        };
        let (target_dir, target_name) = split(&target);
        let from = self.tree.find(target_dir).map_err(missing)?;
        let stat = rustix::fs::statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(missing)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(refused("is one to a directory"));
        }
        let link = |tree: &mut Tree| {
            rustix::fs::linkat(&from, target_name, tree.place().dir, name, AtFlags::empty())
        };
        match link(&mut self.tree) {
            Err(Errno::EXIST) => {
                self.tree.remove(name)?;
                link(&mut self.tree).map_err(missing)
            }
            Err(Errno::MLINK) => Err(refused("is one more than the file system allows")),
            other => other.map_err(missing),
        }
    }

    /// Makes something without data.
    fn node(
        &mut self,
        path: &[u8],
        name: &[u8],
        entry: &Entry,
        make: impl Fn(std::os::fd::BorrowedFd<'_>) -> Result<(), Errno>,
    ) -> Result<(), JobError> {
        self.create(path, name, |tree| make(tree.place().dir))?;
        let owner = self.owner(entry);
        let place = self.tree.place();
        let describe = || {
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            rustix::fs::chownat(place.dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            if entry.kind == Kind::Fifo {
                // It has just been made, and nobody else is here to put a link in its place.
                rustix::fs::chmodat(place.dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
            }
            let times = fsys::times(time(entry));
            rustix::fs::utimensat(place.dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        };
        describe().map_err(|error: Errno| JobError::at(format!("describe {}", show(path)), error))
    }
}

/// A write that failed.
enum WriteError {
    Tar(TarError),
    File(std::io::Error),
}

impl WriteError {
    fn of(self, path: &[u8]) -> JobError {
        match self {
            Self::Tar(error) => corrupt(&error),
            Self::File(error) => JobError::at(format!("write {}", show(path)), error),
        }
    }
}

/// Writes the entry's data to `file`, at most `limit` bytes of it.
fn write_all<R: Read>(file: &OwnedFd, reader: &mut TarReader<R>, limit: u64) -> Result<(), WriteError> {
    let mut left = limit;
    while left > 0 {
        let data = reader.data().map_err(WriteError::Tar)?;
        let len = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if len == 0 {
            return if limit == u64::MAX { Ok(()) } else { Err(WriteError::Tar(TarError::Truncated)) };
        }
        let written = loop {
            match rustix::io::write(file, &data[..len]) {
                Err(Errno::INTR) => {}
                other => break other.map_err(|error| WriteError::File(error.into()))?,
            }
        };
        if written == 0 {
            return Err(WriteError::File(std::io::ErrorKind::WriteZero.into()));
        }
        reader.consume(written);
        left -= written as u64;
    }
    Ok(())
}

/// The entry's time, as far as file systems can hold it.
fn time(entry: &Entry) -> Timespec {
    let (seconds, nanoseconds) = entry.mtime;
    match seconds {
        0..=LAST_SECOND => Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) },
        ..0 => Timespec { tv_sec: 0, tv_nsec: 0 },
        _ => Timespec { tv_sec: LAST_SECOND, tv_nsec: 0 },
    }
}

fn set_xattrs(file: std::os::fd::BorrowedFd<'_>, entry: &Entry, left_out: &mut LeftOut) -> Result<(), Errno> {
    for (name, value) in &entry.xattrs {
        let is_kept = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") && !name.contains(&0);
        if !is_kept {
            left_out.xattrs += 1;
            continue;
        }
        match rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) => {}
            // Too many or too large for this file system, which says it in several ways, or not of its kind. A disk
            // that is really full says so again at the next file.
            Err(Errno::OPNOTSUPP | Errno::TOOBIG | Errno::RANGE | Errno::NOSPC | Errno::PERM) => {
                left_out.xattrs += 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Decompresses `source` into `output`.
pub(super) fn decompress(
    source: impl Read,
    output: OwnedFd,
    max_bytes: u64,
    progress: &mut dyn FnMut(u64) -> std::io::Result<()>,
) -> Result<Report, JobError> {
    let broken = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::FileTooLarge => JobError::TooLarge(error.to_string()),
        _ => JobError::Corrupt(format!("it cannot be decompressed: {error}")),
    };
    let mut decoder = Decoder::new(source, max_bytes).map_err(broken)?;
    let mut output = File::from(output);
    let mut buffer = vec![0; 256 << 10];
    let mut told = 0;
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => std::io::Write::write_all(&mut output, &buffer[..read])
                .map_err(|error| JobError::at("write the archive", error))?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(error)),
        }
        if decoder.count() - told >= PROGRESS_BYTES {
            told = decoder.count();
            progress(told).map_err(|error| JobError::at("tell progress", error))?;
        }
    }
    Ok(Report { bytes: decoder.count(), ..Report::default() })
}
