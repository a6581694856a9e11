//! What happens to a file or in directories, as the kernel tells it (inotify(7)).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use faas_guest_protocol::files::{ChangeKind, FileChange, FileKind, RawPath};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::{Answer, At as _, Failed, info, raw};

const WATCHED: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MOVE_SELF);

/// How long the second half of a move is waited for, in nanoseconds: the two are told one after the other, though not
/// always in the same read.
const MOVE_WITHIN_NS: i64 = 20_000_000;

const BUFFER_BYTES: usize = 64 << 10;

/// The first half of a move.
struct Leaving {
    cookie: u32,
    path: PathBuf,
    is_dir: bool,
}

struct Watcher<'a> {
    answer: &'a mut Answer,
    inotify: OwnedFd,
    /// What is watched, by number.
    watched: BTreeMap<i32, PathBuf>,
    root: (i32, PathBuf),
    recursive: bool,
    leaving: Option<Leaving>,
    /// What was told last since all was told that there was: the same again says nothing.
    last: Option<FileChange>,
}

fn known_kind(path: &Path, is_dir: bool) -> Option<FileKind> {
    if is_dir {
        return Some(FileKind::Directory);
    }
    path.symlink_metadata().ok().map(|metadata| info::kind(metadata.file_type()))
}

/// Tells until what is watched is gone.
pub(super) fn watch(path: &Path, recursive: bool, answer: &mut Answer) -> Result<(), Failed> {
    let path = info::absolute(path);
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).at(&path)?;
    let root = inotify::add_watch(&inotify, &path, WATCHED).at(&path)?;
    let mut watcher = Watcher {
        answer,
        inotify,
        watched: BTreeMap::from([(root, path.clone())]),
        root: (root, path.clone()),
        recursive,
        leaving: None,
        last: None,
    };
    if recursive && path.is_dir() {
        watcher.add_below(&path, false)?;
    }
    watcher.answer.begin(())?;
    watcher.run()
}

impl Watcher<'_> {
    fn run(&mut self) -> Result<(), Failed> {
        let copy = self.inotify.try_clone().map_err(|_| Failed::Broken)?;
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = inotify::Reader::new(copy, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                    let (number, events, cookie) = (event.wd(), event.events(), event.cookie());
                    if self.take(number, events, cookie, name.as_deref())? {
                        return self.answer.flush();
                    }
                }
                Err(Errno::WOULDBLOCK) => self.wait()?,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Failed::Broken),
            }
        }
    }

    /// Waits until there is more, with all told that there is.
    fn wait(&mut self) -> Result<(), Failed> {
        if self.leaving.is_some() && !self.is_ready(Some(MOVE_WITHIN_NS))? {
            self.left()?;
        }
        self.last = None;
        self.answer.flush()?;
        if self.leaving.is_none() {
            self.is_ready(None)?;
        }
        Ok(())
    }

    fn is_ready(&self, within_ns: Option<i64>) -> Result<bool, Failed> {
        let mut fds = [PollFd::from_borrowed_fd(self.inotify.as_fd(), PollFlags::IN)];
        let within = within_ns.map(|tv_nsec| Timespec { tv_sec: 0, tv_nsec });
        match rustix::event::poll(&mut fds, within.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(true),
            Err(_) => Err(Failed::Broken),
        }
    }

    fn tell(
        &mut self,
        change: ChangeKind,
        path: &Path,
        from: Option<&Path>,
        kind: Option<FileKind>,
    ) -> Result<(), Failed> {
        let told = FileChange { change, path: raw(path), from: from.map(raw), kind };
        if change == ChangeKind::Modified && self.last.as_ref() == Some(&told) {
            return Ok(());
        }
        self.answer.line(&told)?;
        self.last = Some(told);
        Ok(())
    }

    /// Takes in one event. Whether it was the last.
    fn take(
        &mut self,
        number: i32,
        events: ReadFlags,
        cookie: u32,
        name: Option<&OsStr>,
    ) -> Result<bool, Failed> {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.left()?;
            self.answer.line(&FileChange {
                change: ChangeKind::Overflow,
                path: RawPath::default(),
                from: None,
                kind: None,
            })?;
            self.last = None;
            if self.recursive {
                // Directories may have come that nobody told of.
                let root = self.root.1.clone();
                self.add_below(&root, false)?;
            }
            return Ok(false);
        }
        let arrives = events.contains(ReadFlags::MOVED_TO);
        if !(arrives && self.leaving.as_ref().is_some_and(|leaving| leaving.cookie == cookie)) {
            self.left()?;
        }
        if number == self.root.0 {
            let gone =
                ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED;
            if events.intersects(gone) {
                let path = self.root.1.clone();
                self.tell(ChangeKind::Deleted, &path, None, None)?;
                return Ok(true);
            }
        }
        if events.contains(ReadFlags::IGNORED) {
            self.watched.remove(&number);
            return Ok(false);
        }
        let Some(above) = self.watched.get(&number).cloned() else { return Ok(false) };
        let is_dir = events.contains(ReadFlags::ISDIR);
        let path = match name {
            Some(name) => above.join(name),
            // The directory itself, of which the one above tells where it is watched too.
            None if number != self.root.0 => return Ok(false),
            None => above,
        };
        if arrives {
            self.arrived(cookie, &path, is_dir)?;
        } else if events.contains(ReadFlags::MOVED_FROM) {
            self.leaving = Some(Leaving { cookie, path, is_dir });
        } else if events.contains(ReadFlags::CREATE) {
            self.created(&path, is_dir)?;
        } else if events.contains(ReadFlags::DELETE) {
            self.tell(ChangeKind::Deleted, &path, None, is_dir.then_some(FileKind::Directory))?;
        } else if events.intersects(ReadFlags::ATTRIB | ReadFlags::CLOSE_WRITE | ReadFlags::MODIFY) {
            let kind = known_kind(&path, is_dir);
            self.tell(ChangeKind::Modified, &path, None, kind)?;
        }
        Ok(false)
    }

    fn created(&mut self, path: &Path, is_dir: bool) -> Result<(), Failed> {
        self.tell(ChangeKind::Created, path, None, known_kind(path, is_dir))?;
        if is_dir && self.recursive {
            self.add(path, true)?;
        }
        Ok(())
    }

    fn arrived(&mut self, cookie: u32, path: &Path, is_dir: bool) -> Result<(), Failed> {
        match self.leaving.take() {
            Some(leaving) if leaving.cookie == cookie => {
                for watched in self.watched.values_mut() {
                    if let Ok(rest) = watched.strip_prefix(&leaving.path) {
                        let moved = path.join(rest);
                        // A path joined with nothing would end in a slash.
                        *watched = if rest.as_os_str().is_empty() { path.to_owned() } else { moved };
                    }
                }
                self.tell(ChangeKind::Moved, path, Some(&leaving.path), known_kind(path, is_dir))
            }
            _ => self.created(path, is_dir),
        }
    }

    /// What was about to move has gone out of sight.
    fn left(&mut self) -> Result<(), Failed> {
        let Some(Leaving { path, is_dir, .. }) = self.leaving.take() else { return Ok(()) };
        let below: Vec<i32> = (self.watched.iter())
            .filter(|(_, watched)| is_dir && watched.starts_with(&path))
            .map(|(number, _)| *number)
            .collect();
        for number in below {
            self.watched.remove(&number);
            // It may be gone by itself.
            match inotify::remove_watch(&self.inotify, number) {
                Ok(()) | Err(_) => {}
            }
        }
        self.tell(ChangeKind::Deleted, &path, None, is_dir.then_some(FileKind::Directory))
    }

    /// Watches a directory and those below it. `tells`: what is in it has come since it is watched.
    fn add(&mut self, path: &Path, tells: bool) -> Result<(), Failed> {
        let flags = WATCHED | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
        match inotify::add_watch(&self.inotify, path, flags) {
            Ok(number) => {
                self.watched.insert(number, path.to_owned());
                self.add_below(path, tells)
            }
            // It has gone, is nothing for this user to see, or nothing that can be named.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::NAMETOOLONG | Errno::LOOP) => Ok(()),
            Err(error) => Err(error).at(path),
        }
    }

    fn add_below(&mut self, path: &Path, tells: bool) -> Result<(), Failed> {
        let Ok(entries) = std::fs::read_dir(path) else { return Ok(()) };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            if tells {
                self.tell(ChangeKind::Created, &path, None, Some(info::kind(kind)))?;
            }
            if kind.is_dir() {
                self.add(&path, tells)?;
            }
        }
        Ok(())
    }
}
