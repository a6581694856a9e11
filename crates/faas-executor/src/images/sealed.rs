//! Files of the store: a first line that says what follows, then that many bytes, whose digest it names.
//!
//! ```text
//! faas-image-store KIND VERSION LENGTH SHA256\n
//! ```
//!
//! A file is replaced as a whole or not at all; one that is damaged, of another kind or too large is refused before
//! anything of it is parsed.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};

use super::digest::Digest;

const MAGIC: &str = "faas-image-store";

/// The longest first line.
const MAX_HEAD_BYTES: usize = 160;

/// What a file holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal {
    /// The kind of file.
    pub(super) kind: &'static str,
    /// The version of its format.
    pub(super) version: u32,
    /// The most bytes behind the first line.
    pub(super) max_bytes: usize,
}

fn damaged(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

impl Seal {
    /// Reads `name` in the directory `dir`.
    pub(super) fn read(self, dir: impl AsFd, name: &str) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        self.read_file(File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?))
    }

    /// Reads an open file.
    pub(super) fn read_file(self, file: File) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        file.take((self.max_bytes + MAX_HEAD_BYTES) as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > self.max_bytes + MAX_HEAD_BYTES {
            return Err(damaged("it is larger than such a file can be"));
        }
        let end = bytes.iter().take(MAX_HEAD_BYTES).position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| damaged("it has no first line"))?;
        let payload = bytes.split_off(end + 1);
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| damaged("its first line is no text"))?;
        let mut words = head.split(' ');
        if words.next() != Some(MAGIC) || words.next() != Some(self.kind) {
            return Err(damaged("it is another kind of file"));
        }
        if words.next() != Some(self.version.to_string().as_str()) {
            return Err(damaged("it was written by another version of this program"));
        }
        let len = words.next().and_then(|len| len.parse::<usize>().ok());
        let digest = words.next().and_then(Digest::from_hex);
        if len != Some(payload.len()) || digest != Some(Digest::of(&payload)) || words.next().is_some() {
            return Err(damaged("it is damaged"));
        }
        Ok(payload)
    }

    /// Writes `name` in the directory `dir`, which must not have it, to the disk. `stamp`, where given, becomes its
    /// time of modification.
    pub(super) fn write(
        self,
        dir: impl AsFd,
        name: &str,
        payload: &[u8],
        stamp: Option<Timespec>,
    ) -> io::Result<()> {
        if payload.len() > self.max_bytes {
            return Err(damaged("it would be larger than such a file may be"));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(0o600))?);
        let digest = Digest::of(payload).hex();
        writeln!(file, "{MAGIC} {} {} {} {digest}", self.kind, self.version, payload.len())?;
        file.write_all(payload)?;
        if let Some(stamp) = stamp {
            rustix::fs::futimens(&file, &Timestamps { last_access: stamp, last_modification: stamp })?;
        }
        file.sync_all()
    }

    /// Replaces `name` in the directory `dir`. The caller sees to it that nobody else does so at the same time.
    pub(super) fn replace(
        self,
        dir: impl AsFd,
        name: &str,
        payload: &[u8],
        stamp: Option<Timespec>,
    ) -> io::Result<()> {
        let new = format!("{name}.new");
        match rustix::fs::unlinkat(&dir, new.as_str(), AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        self.write(&dir, &new, payload, stamp)?;
        rustix::fs::renameat(&dir, new.as_str(), &dir, name)?;
        // The rename is not on the disk before the directory is.
        Ok(rustix::fs::fsync(&dir)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::Seal;

    const SEAL: Seal = Seal { kind: "test", version: 1, max_bytes: 100 };

    #[test]
    fn only_a_whole_file_of_the_right_kind_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = File::open(dir.path()).unwrap();
        SEAL.replace(&at, "file", b"hello\n", None).unwrap();
        SEAL.replace(&at, "file", b"hello again\n", None).unwrap();
        assert_eq!(SEAL.read(&at, "file").unwrap(), b"hello again\n");
        assert!(Seal { kind: "other", ..SEAL }.read(&at, "file").is_err());
        assert!(Seal { version: 2, ..SEAL }.read(&at, "file").is_err());
        assert!(SEAL.replace(&at, "file", &[0; 101], None).is_err());
        let path = dir.path().join("file");
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(SEAL.read(&at, "file").is_err(), "cut to {cut}");
        }
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        std::fs::write(&path, flipped).unwrap();
        assert!(SEAL.read(&at, "file").is_err());
        std::fs::write(&path, vec![b'x'; 1000]).unwrap();
        assert!(SEAL.read(&at, "file").unwrap_err().to_string().contains("larger"));
    }
}
