//! Archives with images in them, as a directory or as a tar file: parts are found by their exact names, and nothing in
//! an archive says where a file goes.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use faas_tar::{Kind, TarReader};
use futures_util::StreamExt as _;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::error::ImageError;
use super::ingest::ByteStream;

/// The most entries of an archive: an image has a few for each layer.
const MAX_ENTRIES: usize = 100_000;

/// How many links may lead to one another.
const MAX_LINKS: usize = 8;

/// How much is read at once, and how many such pieces may wait.
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 4;

/// A part of an archive.
#[derive(Clone, Debug)]
pub(super) struct Part {
    file: Arc<File>,
    offset: u64,
    /// How long it is.
    pub(super) len: u64,
}

/// An archive.
#[derive(Debug)]
pub(super) enum Archive {
    /// A directory.
    Directory(OwnedFd),
    /// A tar file, uncompressed.
    Tar(TarIndex),
}

/// Where the parts of a tar file are.
#[derive(Debug)]
pub(super) struct TarIndex {
    file: Arc<File>,
    files: HashMap<String, (u64, u64)>,
    links: HashMap<String, String>,
}

fn invalid(reason: impl Into<String>) -> ImageError {
    ImageError::InvalidArchive { reason: reason.into() }
}

/// Brings a name to one form. `..` goes up within the archive: a name is only ever compared with other names.
fn normal(dir: &str, name: &str) -> Option<String> {
    let dir = if name.starts_with('/') { "" } else { dir };
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

impl Archive {
    /// Opens a directory. Blocks.
    pub(super) fn directory(path: &Path) -> Result<Self, ImageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty());
        dir.map(Self::Directory).map_err(|error| ImageError::io(path, error.into()))
    }

    /// Goes through a tar file. Blocks.
    pub(super) fn tar(file: File) -> Result<Self, ImageError> {
        let broken = |error: faas_tar::TarError| invalid(format!("its tar file is broken: {error}"));
        let mut index = TarIndex { file: Arc::new(file), files: HashMap::new(), links: HashMap::new() };
        let source = Arc::clone(&index.file);
        let mut reader = TarReader::seeking(&*source).map_err(|error| broken(error.into()))?;
        while let Some(entry) = reader.next_entry().map_err(broken)? {
            if index.files.len() + index.links.len() > MAX_ENTRIES {
                return Err(invalid(format!("it has more than {MAX_ENTRIES} entries")));
            }
            let name = String::from_utf8(entry.path).ok().and_then(|name| normal("", &name));
            let Some(name) = name else { continue };
            match entry.kind {
                Kind::File if entry.segments.is_none() => {
                    index.files.insert(name, reader.data_range());
                }
                Kind::HardLink | Kind::Symlink => {
                    let dir = match (entry.kind, name.rsplit_once('/')) {
                        (Kind::Symlink, Some((dir, _))) => dir,
                        _ => "",
                    };
                    let target = String::from_utf8(entry.link).ok().and_then(|link| normal(dir, &link));
                    if let Some(target) = target {
                        index.links.insert(name, target);
                    }
                }
                _ => {}
            }
        }
        Ok(Self::Tar(index))
    }

    /// Finds a part by its name; `None` when there is none. Blocks.
    pub(super) fn find(&self, name: &str) -> Result<Option<Part>, ImageError> {
        let name = match normal("", name) {
            Some(name) if !name.is_empty() => name,
            _ => return Err(invalid("it names a part that is outside of it")),
        };
        match self {
            Self::Directory(dir) => {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let opened = rustix::fs::openat2(dir, name.as_str(), flags, Mode::empty(), resolve);
                let failed =
                    |error: io::Error| invalid(format!("its part {} : {error}", name.escape_debug()));
                let file = match opened {
                    Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
                    other => File::from(other.map_err(|error| failed(error.into()))?),
                };
                let meta = file.metadata().map_err(failed)?;
                if !meta.is_file() {
                    return Ok(None);
                }
                Ok(Some(Part { file: Arc::new(file), offset: 0, len: meta.len() }))
            }
            Self::Tar(index) => {
                let mut name = &name;
                for _ in 0..MAX_LINKS {
                    if let Some((offset, len)) = index.files.get(name) {
                        return Ok(Some(Part { file: Arc::clone(&index.file), offset: *offset, len: *len }));
                    }
                    match index.links.get(name) {
                        Some(target) => name = target,
                        None => return Ok(None),
                    }
                }
                Ok(None)
            }
        }
    }
}

impl Part {
    /// The whole part, when that is at most `max_bytes`. Blocks.
    pub(super) fn read(&self, what: &str, max_bytes: u64) -> Result<Vec<u8>, ImageError> {
        if self.len > max_bytes {
            return Err(invalid(format!("{what} has more than {max_bytes} bytes")));
        }
        let len = usize::try_from(self.len).map_err(|_| invalid(format!("{what} is too large")))?;
        let mut bytes = vec![0; len];
        self.file
            .read_exact_at(&mut bytes, self.offset)
            .map_err(|error| invalid(format!("{what} cannot be read: {error}")))?;
        Ok(bytes)
    }

    /// The part as a stream, read by a thread of its own.
    pub(super) fn stream(self) -> ByteStream {
        let (sender, receiver) = tokio::sync::mpsc::channel(PIECES);
        tokio::task::spawn_blocking(move || {
            let (mut at, end) = (self.offset, self.offset + self.len);
            while at < end {
                let want = usize::try_from(end - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
                let mut piece = vec![0; want];
                let read = match self.file.read_at(&mut piece, at) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(invalid(format!("a layer cannot be read: {error}"))),
                    Ok(0) => Err(invalid("it is cut off in the middle of a layer")),
                    Ok(read) => {
                        piece.truncate(read);
                        at += read as u64;
                        Ok(Bytes::from(piece))
                    }
                };
                let failed = read.is_err();
                // A receiver that is gone wants no more.
                if sender.blocking_send(read).is_err() || failed {
                    return;
                }
            }
        });
        futures_util::stream::unfold(receiver, |mut receiver| async move {
            Some((receiver.recv().await?, receiver))
        })
        .boxed()
    }

    /// A whole file as a part. Blocks.
    pub(super) fn of_file(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), offset: 0, len })
    }
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn names_stay_in_the_archive() {
        assert_eq!(normal("", "./a//b").as_deref(), Some("a/b"));
        assert_eq!(normal("a/b", "../c/layer.tar").as_deref(), Some("a/c/layer.tar"));
        assert_eq!(normal("a", "/x").as_deref(), Some("x"));
        assert_eq!(normal("", "../x"), None);
        assert_eq!(normal("", "a/../../x"), None);
    }
}
