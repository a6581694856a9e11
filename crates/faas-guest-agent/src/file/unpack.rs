//! A directory filled from a tar archive. No entry leaves it, whatever its name and whatever links are there.

use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use faas_guest_protocol::files::{FileFailure, Unpacked};
use faas_tar::{Entry, Kind, TarError, TarReader};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::{At as _, Failed, place};

/// Links are followed as far as they stay below the directory (openat2(2)).
const WITHIN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// A directory's attributes, which it gets when all is in it.
struct Later {
    path: Vec<u8>,
    mode: u32,
    owner: Option<(Uid, Gid)>,
    times: Timestamps,
}

struct Unpacker {
    root: OwnedFd,
    /// Whether owners are those of the archive: only root may give files away.
    gives_owners: bool,
    later: Vec<Later>,
    done: Unpacked,
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn of_entry(name: &[u8], error: Errno) -> Failed {
    let why = match error {
        Errno::XDEV => "it leads out of the directory".to_owned(),
        error => io::Error::from(error).to_string(),
    };
    // What the kernel calls so has nothing to do with file systems here.
    let errno = if error == Errno::XDEV { Errno::INVAL } else { error };
    Failed::new(errno, format!("the entry {:?}: {why}", shown(name)))
}

fn of_archive(error: TarError) -> Failed {
    match error {
        TarError::Read(error) if error.raw_os_error().is_some() => {
            Failed::at(Path::new("the archive"), &error)
        }
        error => Failed::new(Errno::INVAL, format!("the archive: {error}")),
    }
}

/// A name from the directory on, without parts that say nothing.
fn clean(name: &[u8]) -> Result<Vec<u8>, Failed> {
    let refused =
        |why| Err(Failed::new(Errno::INVAL, format!("the entry {:?}: its name {why}", shown(name))));
    if name.first() == Some(&b'/') {
        return refused("is absolute");
    }
    if name.contains(&0) {
        return refused("has a NUL in it");
    }
    let parts: Vec<_> =
        name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return refused("leads out of the directory");
    }
    Ok(parts.join(&b'/'))
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn owner(entry: &Entry) -> Option<(Uid, Gid)> {
    let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    Some((Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?)))
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}

pub(super) fn unpack(path: &Path, content: impl Read) -> Result<Unpacked, Failed> {
    place::make_dirs(path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(path, flags, Mode::empty()).at(path)?;
    let gives_owners = rustix::process::geteuid().is_root();
    let mut unpacker = Unpacker { root, gives_owners, later: Vec::new(), done: Unpacked::default() };
    let mut reader = TarReader::new(content);
    while let Some(entry) = reader.next_entry().map_err(of_archive)? {
        unpacker.entry(&entry, &mut reader)?;
    }
    // What comes after the last entry has to come all the same: without it the archive is cut off.
    io::copy(&mut reader.into_rest(), &mut io::sink()).map_err(|error| of_archive(error.into()))?;
    unpacker.finish()
}

impl Unpacker {
    /// Opens a directory below the root; the empty path is the root.
    fn open_dir(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        loop {
            // EAGAIN: something was renamed meanwhile, somewhere on the machine, so that the kernel is not sure.
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), WITHIN) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return opened,
            }
        }
    }

    /// The same; what is missing of it is made.
    fn enter(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        match self.open_dir(path) {
            Err(Errno::NOENT) if !path.is_empty() => {}
            opened => return opened,
        }
        let (above, name) = split(path);
        let above = self.enter(above)?;
        match rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        self.open_dir(path)
    }

    fn entry<R: Read>(&mut self, entry: &Entry, reader: &mut TarReader<R>) -> Result<(), Failed> {
        let path = clean(&entry.path)?;
        if path.is_empty() {
            if entry.kind != Kind::Directory {
                return Err(Failed::new(Errno::INVAL, "an entry without a name is no directory"));
            }
            self.later(path, entry);
            return Ok(());
        }
        let failed = |error| of_entry(&entry.path, error);
        let (above, name) = split(&path);
        let dir = self.enter(above).map_err(failed)?;
        match entry.kind {
            Kind::Directory => {
                self.directory(&dir, &path, name).map_err(failed)?;
                self.later(path, entry);
            }
            Kind::File => self.file(&dir, name, entry, reader)?,
            Kind::HardLink => {
                let target = clean(&entry.link)?;
                if target == path {
                    return Ok(());
                }
                let (above, to) = split(&target);
                let from = self.open_dir(above).map_err(failed)?;
                let link = || rustix::fs::linkat(&from, to, &dir, name, AtFlags::empty());
                replace(&dir, name, link).map_err(failed)?;
            }
            Kind::Symlink => {
                let link = || rustix::fs::symlinkat(entry.link.as_slice(), &dir, name);
                replace(&dir, name, link).and_then(|()| self.describe(&dir, name, entry)).map_err(failed)?;
            }
            Kind::Fifo => {
                let mode = Mode::from_raw_mode(entry.mode & 0o777);
                let make = || rustix::fs::mknodat(&dir, name, FileType::Fifo, mode, 0);
                replace(&dir, name, make).and_then(|()| self.describe(&dir, name, entry)).map_err(failed)?;
            }
            Kind::Device => return Err(of_entry(&entry.path, Errno::PERM)),
        }
        self.done.files += 1;
        Ok(())
    }

    fn directory(&self, dir: &OwnedFd, path: &[u8], name: &[u8]) -> Result<(), Errno> {
        let make = || rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700));
        match self.open_dir(path) {
            // One that is there, or a link to one.
            Ok(_) => Ok(()),
            Err(Errno::NOENT | Errno::NOTDIR) => replace(dir, name, make),
            Err(error) => Err(error),
        }
    }

    fn file<R: Read>(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        reader: &mut TarReader<R>,
    ) -> Result<(), Failed> {
        let failed = |error| of_entry(&entry.path, error);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = || rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600));
        let mut file = std::fs::File::from(replace(dir, name, make).map_err(failed)?);
        match &entry.segments {
            None => self.done.bytes += data(&mut file, entry, u64::MAX, reader)?,
            Some(segments) => {
                for segment in segments {
                    let start = rustix::fs::SeekFrom::Start(segment.offset);
                    rustix::fs::seek(&file, start).map_err(failed)?;
                    self.done.bytes += data(&mut file, entry, segment.len, reader)?;
                }
                rustix::fs::ftruncate(&file, entry.size).map_err(failed)?;
            }
        }
        if let (true, Some((uid, gid))) = (self.gives_owners, owner(entry)) {
            rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(failed)?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode)).map_err(failed)?;
        rustix::fs::futimens(&file, &times(entry)).map_err(failed)
    }

    /// Gives something without content its owner and times.
    fn describe(&self, dir: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), Errno> {
        if let (true, Some((uid, gid))) = (self.gives_owners, owner(entry)) {
            rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        rustix::fs::utimensat(dir, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn later(&mut self, path: Vec<u8>, entry: &Entry) {
        let owner = owner(entry).filter(|_| self.gives_owners);
        self.later.push(Later { path, mode: entry.mode, owner, times: times(entry) });
    }

    /// Gives directories their attributes: those below before those above, which may not be entered any more then.
    fn finish(mut self) -> Result<Unpacked, Failed> {
        self.later.sort_by(|a, b| b.path.cmp(&a.path));
        for Later { path, mode, owner, times } in &self.later {
            let describe = || {
                let dir = self.open_dir(path)?;
                if let Some((uid, gid)) = owner {
                    rustix::fs::fchown(dir.as_fd(), Some(*uid), Some(*gid))?;
                }
                rustix::fs::fchmod(dir.as_fd(), Mode::from_raw_mode(*mode))?;
                rustix::fs::futimens(dir.as_fd(), times)
            };
            describe().map_err(|error| of_entry(path, error))?;
        }
        Ok(self.done)
    }
}

/// Makes something under a name; what has it already goes first, unless it is a directory with something in it.
fn replace<T>(dir: &OwnedFd, name: &[u8], make: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    match make() {
        Err(Errno::EXIST) => {}
        made => return made,
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?,
        removed => removed?,
    }
    make()
}

/// Writes up to `most` bytes of an entry's data. How many there were.
fn data<R: Read>(
    file: &mut std::fs::File,
    entry: &Entry,
    most: u64,
    reader: &mut TarReader<R>,
) -> Result<u64, Failed> {
    let mut written = 0;
    while written < most {
        let bytes = reader.data().map_err(of_archive)?;
        let room = usize::try_from(most - written).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        if bytes.is_empty() {
            break;
        }
        file.write_all(bytes).map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            let message = format!("the entry {:?}: {error}", shown(&entry.path));
            Failed::Told(FileFailure { errno, message, size: None })
        })?;
        let length = bytes.len();
        reader.consume(length);
        written += u64::try_from(length).unwrap_or(0);
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::path::PathBuf;

    use faas_tar::{END, Entry, Kind, header, padding};

    use super::{Failed, unpack};

    fn entry(kind: Kind, path: &str, link: &str, data: &[u8]) -> Vec<u8> {
        let own = std::fs::metadata("/proc/self").unwrap();
        let mut bytes = header(&Entry {
            kind,
            path: path.into(),
            link: link.into(),
            mode: 0o751,
            uid: own.uid().into(),
            gid: own.gid().into(),
            mtime: (1_000_000, 5),
            size: data.len() as u64,
            segments: None,
            xattrs: Vec::new(),
        });
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len() + padding(data.len() as u64), 0);
        bytes
    }

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("unpack-{name}-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("in")).unwrap();
        std::fs::create_dir_all(dir.join("out")).unwrap();
        dir
    }

    #[test]
    fn what_is_in_an_archive_is_there_as_it_says() {
        let dir = directory("all");
        let archive = [
            entry(Kind::Directory, "./", "", b""),
            entry(Kind::File, "new/deep/file", "", b"content"),
            entry(Kind::HardLink, "hard", "new/deep/file", b""),
            entry(Kind::Symlink, "soft", "/nowhere", b""),
            entry(Kind::Directory, "new/", "", b""),
            entry(Kind::Fifo, "fifo", "", b""),
            END.to_vec(),
        ];
        for _ in 0..2 {
            let done = unpack(&dir.join("in"), &archive.concat()[..]).unwrap();
            assert_eq!((done.files, done.bytes), (5, 7), "over what is there too");
        }
        let file = dir.join("in/new/deep/file").metadata().unwrap();
        assert_eq!((file.mode() & 0o7777, file.mtime(), file.nlink()), (0o751, 1_000_000, 2));
        assert_eq!(dir.join("in/new").metadata().unwrap().mtime(), 1_000_000);
        assert_eq!(dir.join("in/soft").read_link().unwrap(), PathBuf::from("/nowhere"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn nothing_comes_to_be_outside() {
        let dir = directory("out");
        let out = dir.join("out").to_str().unwrap().to_owned();
        std::fs::write(dir.join("out/secret"), "s").unwrap();
        symlink("../out", dir.join("in/there")).unwrap();
        for (name, entries) in [
            ("dots", vec![entry(Kind::File, "../out/x", "", b"x")]),
            ("inner dots", vec![entry(Kind::File, "a/../../out/x", "", b"x")]),
            ("absolute", vec![entry(Kind::File, &format!("{out}/x"), "", b"x")]),
            ("a link that was there", vec![entry(Kind::File, "there/x", "", b"x")]),
            (
                "a link of its own",
                vec![entry(Kind::Symlink, "l", &out, b""), entry(Kind::File, "l/x", "", b"x")],
            ),
            (
                "a directory over a link",
                vec![entry(Kind::Symlink, "m", &out, b""), entry(Kind::Directory, "m/x", "", b"")],
            ),
            ("a hard link", vec![entry(Kind::HardLink, "h", "../out/secret", b"")]),
            ("a hard link by a link", vec![entry(Kind::HardLink, "h", "there/secret", b"")]),
            ("a device", vec![entry(Kind::Device, "d", "", b"")]),
        ] {
            let archive = [entries.concat(), END.to_vec()].concat();
            assert!(matches!(unpack(&dir.join("in"), &archive[..]), Err(Failed::Told(_))), "{name}");
        }
        // A file takes the place of a link, and is not written through it.
        symlink(format!("{out}/secret"), dir.join("in/file")).unwrap();
        let archive = [entry(Kind::File, "file", "", b"new"), END.to_vec()].concat();
        unpack(&dir.join("in"), &archive[..]).unwrap();
        assert_eq!(std::fs::read(dir.join("in/file")).unwrap(), b"new");
        let names: Vec<_> = std::fs::read_dir(dir.join("out")).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(std::fs::read(dir.join("out/secret")).unwrap(), b"s");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let dir = directory("broken");
        for bytes in [&[1u8; 1024][..], &entry(Kind::File, "f", "", b"content")[..514]] {
            assert!(matches!(
                unpack(&dir.join("in"), bytes),
                Err(Failed::Told(failure)) if failure.errno == libc::EINVAL
            ));
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
