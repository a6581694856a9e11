//! A directory, or a file, as a tar archive.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use faas_guest_protocol::files::FileKind;
use faas_tar::{END, Entry, Kind, header, padding};

use super::{Answer, At as _, Failed, info, read};

struct Packer<'a> {
    answer: &'a mut Answer,
    /// The file system that it stays on.
    device: u64,
    /// Files with several names by device and inode: the first name of each.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

/// The archive of what is in a directory, with names from there on and itself as `./`; or of one file, by its name.
pub(super) fn pack(path: &Path, answer: &mut Answer) -> Result<(), Failed> {
    let metadata = std::fs::metadata(path).at(path)?;
    let is_dir = metadata.is_dir();
    if is_dir {
        // Whether it can be read at all is better known before the answer begins.
        std::fs::read_dir(path).at(path)?;
    } else {
        read::open_regular(path, 0)?;
    }
    answer.begin(())?;
    let mut packer = Packer { answer, device: metadata.dev(), linked: HashMap::new() };
    if is_dir {
        packer.entry(&metadata, b"./", Kind::Directory, 0, Vec::new())?;
        packer.directory(path, b"")?;
    } else {
        let name = path.file_name().map_or(b"file".to_vec(), |name| name.as_bytes().to_vec());
        packer.file(path, &metadata, name, 0)?;
    }
    answer.bytes(&END)
}

impl Packer<'_> {
    fn entry(
        &mut self,
        metadata: &Metadata,
        name: &[u8],
        kind: Kind,
        size: u64,
        link: Vec<u8>,
    ) -> Result<(), Failed> {
        let entry = Entry {
            kind,
            path: name.to_vec(),
            link,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid().into(),
            gid: metadata.gid().into(),
            mtime: (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or(0)),
            size,
            segments: None,
            xattrs: Vec::new(),
        };
        self.answer.bytes(&header(&entry))
    }

    /// What is in a directory whose name in the archive is `above`, with a slash at its end.
    fn directory(&mut self, path: &Path, above: &[u8]) -> Result<(), Failed> {
        for entry in std::fs::read_dir(path).at(path)? {
            let entry = entry.at(path)?;
            let path = entry.path();
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // It has just been removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Failed::at(&path, &error)),
            };
            let mut name = [above, entry.file_name().as_bytes()].concat();
            match info::kind(metadata.file_type()) {
                FileKind::Directory => {
                    name.push(b'/');
                    self.entry(&metadata, &name, Kind::Directory, 0, Vec::new())?;
                    if metadata.dev() == self.device {
                        unless_gone(self.directory(&path, &name))?;
                    }
                }
                FileKind::File => unless_gone(self.file(&path, &metadata, name, libc::O_NOFOLLOW))?,
                FileKind::Symlink => {
                    let target = match std::fs::read_link(&path) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                        other => other.at(&path)?,
                    };
                    let target = target.as_os_str().as_bytes().to_vec();
                    self.entry(&metadata, &name, Kind::Symlink, 0, target)?;
                }
                FileKind::Fifo => self.entry(&metadata, &name, Kind::Fifo, 0, Vec::new())?,
                // They stand for something of this sandbox alone.
                FileKind::Socket | FileKind::BlockDevice | FileKind::CharDevice => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, metadata: &Metadata, name: Vec<u8>, flags: i32) -> Result<(), Failed> {
        if metadata.nlink() > 1 {
            let identity = (metadata.dev(), metadata.ino());
            if let Some(first) = self.linked.get(&identity).cloned() {
                return self.entry(metadata, &name, Kind::HardLink, 0, first);
            }
        }
        let (mut file, metadata) = read::open_regular(path, flags)?;
        if metadata.nlink() > 1 {
            self.linked.insert((metadata.dev(), metadata.ino()), name.clone());
        }
        let size = metadata.len();
        self.entry(&metadata, &name, Kind::File, size, Vec::new())?;
        // One that grows meanwhile is as it was; of one that has become shorter there is no honest archive.
        if read::copy(&mut file, size, self.answer)? != size {
            return Err(Failed::Broken);
        }
        self.answer.bytes(&vec![0; padding(size)])
    }
}

/// What has just been removed is left out.
fn unless_gone(packed: Result<(), Failed>) -> Result<(), Failed> {
    match packed {
        Err(failed) if failed.is_absent() => Ok(()),
        other => other,
    }
}
