//! One file of output: where it begins in the output is its name.
//!
//! ```text
//! file:    magic "FAASOUT1" | start offset u64 | records
//! record:  offset u64 | time u64 | length u32, the highest bit set for stderr | crc32 of all that and the bytes u32 | bytes
//! ```
//!
//! Numbers are little-endian, times in milliseconds since 1970. A record is whole or the last that is read.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use faas_guest_protocol::OutputStream;

const MAGIC: &[u8; 8] = b"FAASOUT1";
pub(super) const HEADER_BYTES: usize = 16;
const RECORD_BYTES: usize = 24;
const STDERR: u32 = 1 << 31;

/// The longest record: what is longer is written as several.
pub(super) const MOST_RECORD_BYTES: usize = 64 << 10;

/// What a program said at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Where its first byte is in the output.
    pub(crate) offset: u64,
    /// When it was read, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// Which of its streams.
    pub(crate) stream: OutputStream,
    /// What.
    pub(crate) bytes: Vec<u8>,
}

impl Record {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// The segments of a directory by their start; none where there is no directory.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(start) = path.file_name().and_then(OsStr::to_str).and_then(start_of) {
            found.push((start, path));
        }
    }
    found.sort();
    Ok(found)
}

fn start_of(name: &str) -> Option<u64> {
    (name.len() == 16).then(|| u64::from_str_radix(name, 16).ok())?
}

/// Removes a segment, which may have gone with its directory.
pub(super) fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "old output could not be removed"),
    }
}

/// Makes a segment that begins at an offset.
pub(super) fn create(dir: &Path, start: u64) -> io::Result<(PathBuf, File)> {
    let path = dir.join(format!("{start:016x}"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..].copy_from_slice(&start.to_le_bytes());
    if let Err(error) = file.write_all(&header) {
        remove(&path);
        return Err(error);
    }
    Ok((path, file))
}

fn checksum(head: &[u8], bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(bytes);
    hasher.finalize()
}

/// A record as it is written.
pub(super) fn encode(offset: u64, at_ms: u64, stream: OutputStream, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let of = match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => STDERR,
    };
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut record = Vec::with_capacity(RECORD_BYTES + bytes.len());
    record.extend_from_slice(&offset.to_le_bytes());
    record.extend_from_slice(&at_ms.to_le_bytes());
    record.extend_from_slice(&(length | of).to_le_bytes());
    record.extend_from_slice(&checksum(&record, bytes).to_le_bytes());
    record.extend_from_slice(bytes);
    Ok(record)
}

/// A segment that is read from its beginning on.
#[derive(Debug)]
pub(super) struct SegmentReader {
    file: io::BufReader<File>,
    /// Behind the last whole record, in the file.
    position: u64,
    /// The same in the output.
    next: u64,
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl SegmentReader {
    /// None where it is no segment: its header was not yet written, or it is gone.
    pub(super) fn open(path: &Path, start: u64) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut file = io::BufReader::with_capacity(8 << 10, file);
        let mut header = [0; HEADER_BYTES];
        match file.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        if header[..8] != *MAGIC || number(&header[8..]) != start {
            return Ok(None);
        }
        Ok(Some(Self { file, position: HEADER_BYTES as u64, next: start }))
    }

    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// The next record that is whole, if there is one. Later there may be.
    pub(super) fn read(&mut self) -> io::Result<Option<Record>> {
        let mut head = [0; RECORD_BYTES];
        let whole = self.fill(&mut head)?;
        let length = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
        let size = usize::try_from(length & !STDERR).unwrap_or(usize::MAX);
        let offset = number(&head[..8]);
        if !whole || offset != self.next || size == 0 || size > MOST_RECORD_BYTES {
            return self.back();
        }
        let mut bytes = vec![0; size];
        if !self.fill(&mut bytes)? || checksum(&head[..20], &bytes).to_le_bytes() != head[20..] {
            return self.back();
        }
        self.position += (RECORD_BYTES + size) as u64;
        self.next += size as u64;
        let stream = if length & STDERR == 0 { OutputStream::Stdout } else { OutputStream::Stderr };
        Ok(Some(Record { offset, at_ms: number(&head[8..16]), stream, bytes }))
    }

    /// Whether there was so much.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        match self.file.read_exact(bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn back(&mut self) -> io::Result<Option<Record>> {
        self.file.seek(SeekFrom::Start(self.position))?;
        Ok(None)
    }
}
