//! Goes through the entries of a tar stream.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use super::header::Header;
use super::pax::Extensions;
use super::sparse::{self, Map, Segment, Segments};
use super::{BLOCK, number};

/// The most bytes of names, attributes and maps that come before one entry.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// How much is read at once.
const BUFFER: usize = 256 << 10;

/// Why a stream is no archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes are not those of a tar archive.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// It ends in the middle of something.
    #[error("it is cut off")]
    Truncated,
    /// One entry has more names and attributes than anybody needs.
    #[error("an entry's names and attributes are longer than {MAX_EXTENSION_BYTES} bytes")]
    TooLong,
    /// A kind of entry that is not supported.
    #[error("an entry is of the unknown kind {:?}", char::from(*.0))]
    UnknownKind(u8),
    /// The stream could not be read.
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file with data.
    File,
    /// Another name for an earlier file.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A character or block device.
    Device,
}

/// One entry; its data is read from the reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its name as it stands in the archive.
    pub path: Vec<u8>,
    /// The target of a link.
    pub link: Vec<u8>,
    /// Permission bits, set-id and sticky bits among them.
    pub mode: u32,
    /// The owner.
    pub uid: u64,
    /// The group.
    pub gid: u64,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// The length of the file, holes included.
    pub size: u64,
    /// Where the data of a file with holes goes; `None` for a file without.
    pub segments: Option<Vec<Segment>>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Goes on behind some bytes.
type Skip<R> = fn(&mut BufReader<R>, i64) -> io::Result<()>;

/// Reads a tar stream.
pub struct TarReader<R> {
    source: BufReader<R>,
    /// Bytes read so far.
    position: u64,
    /// What is left of the current entry's data, and of the padding after it.
    data: u64,
    padding: u64,
    ended: bool,
    /// Skips bytes of the source without reading them, where it can.
    skip: Option<Skip<R>>,
}

impl<R: Read + Seek> TarReader<R> {
    /// Reads a file, and skips data by going on behind it.
    ///
    /// # Errors
    /// When its beginning cannot be gone to.
    pub fn seeking(mut source: R) -> io::Result<Self> {
        source.seek(SeekFrom::Start(0))?;
        Ok(Self { skip: Some(|source, len| source.seek_relative(len)), ..Self::new(source) })
    }
}

impl<R: Read> TarReader<R> {
    /// Reads a stream from where it stands.
    pub fn new(source: R) -> Self {
        let source = BufReader::with_capacity(BUFFER, source);
        Self { source, position: 0, data: 0, padding: 0, ended: false, skip: None }
    }

    /// The next entry, or `None` after the last one. What is left of the data of the one before is skipped.
    ///
    /// # Errors
    /// [`TarError`]; then nothing more can be read.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let mut extensions = Extensions::default();
        let (mut long_path, mut long_link) = (None, None);
        let mut extension_bytes = 0u64;
        loop {
            self.skip_data()?;
            let mut block = [0u8; BLOCK];
            if !self.read_block(&mut block)? || block.iter().all(|byte| *byte == 0) {
                self.ended = true;
                return Ok(None);
            }
            let header = Header::parse(&block)?;
            let kind = header.kind();
            if !matches!(kind, b'x' | b'g' | b'L' | b'K') {
                return self.entry(&header, &extensions, long_path, long_link).map(Some);
            }
            self.begin_data(header.size()?)?;
            extension_bytes = extension_bytes.saturating_add(self.data).saturating_add(BLOCK as u64);
            if extension_bytes > MAX_EXTENSION_BYTES {
                return Err(TarError::TooLong);
            }
            let mut bytes = self.read_data()?;
            match kind {
                b'x' => extensions.parse(&bytes)?,
                // Defaults for all entries: what writers put there (comments) is of no consequence here.
                b'g' => {}
                _ => {
                    bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
                    *(if kind == b'L' { &mut long_path } else { &mut long_link }) = Some(bytes);
                }
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header<'_>,
        extensions: &Extensions,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let own = |key: &[u8]| extensions.get(key).map(<[u8]>::to_vec);
        let number = |key: &[u8], what| match extensions.get(key) {
            Some(value) => number::decimal(value).map(Some).ok_or(TarError::Malformed(what)),
            None => Ok(None),
        };
        let path = own(b"GNU.sparse.name").or_else(|| own(b"path")).or(long_path);
        let path = path.unwrap_or_else(|| header.path());
        let link = own(b"linkpath").or(long_link).unwrap_or_else(|| header.link());
        let kind = match header.kind() {
            // Before there was a kind for directories they were files whose name ends so.
            0 | b'0' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(TarError::UnknownKind(other)),
        };
        let stored = match kind {
            Kind::File => match number(b"size", "a size")? {
                Some(size) => size,
                None => header.size()?,
            },
            _ => 0,
        };
        let mtime = match extensions.get(b"mtime") {
            Some(text) => number::time(text).ok_or(TarError::Malformed("a time"))?,
            None => (header.mtime()?, 0),
        };
        let mut entry = Entry {
            kind,
            path,
            link,
            mode: header.mode()?,
            uid: number(b"uid", "an owner")?.map_or_else(|| header.uid(), Ok)?,
            gid: number(b"gid", "a group")?.map_or_else(|| header.gid(), Ok)?,
            mtime,
            size: stored,
            segments: None,
            xattrs: extensions.xattrs(),
        };
        if header.kind() == b'S' {
            let mut segments = Segments::default();
            sparse::old_gnu(header.sparse_pieces(), &mut segments)?;
            let mut goes_on = header.sparse_goes_on();
            while goes_on {
                let mut block = [0u8; BLOCK];
                if !self.read_block(&mut block)? {
                    return Err(TarError::Truncated);
                }
                let before = segments.len();
                sparse::old_gnu(&block[..504], &mut segments)?;
                goes_on = block[504] != 0 && segments.len() > before;
            }
            entry.size = header.sparse_size()?;
            entry.segments = Some(segments.finish(entry.size, stored)?);
        }
        self.begin_data(stored)?;
        if kind == Kind::File && entry.segments.is_none() {
            match sparse::of_pax(extensions, stored)? {
                Map::Dense => {}
                Map::Known { segments, size } => (entry.size, entry.segments) = (size, Some(segments)),
                Map::InData { size } => {
                    entry.segments = Some(self.map_in_data(size)?);
                    entry.size = size;
                }
            }
        }
        Ok(entry)
    }

    /// Reads the map at the beginning of a file's data: a count, then offsets and lengths, one on each line, up to a
    /// whole number of blocks.
    fn map_in_data(&mut self, size: u64) -> Result<Vec<Segment>, TarError> {
        const MALFORMED: TarError = TarError::Malformed("a sparse file's map");
        let start = self.data;
        let line = |reader: &mut Self| {
            let mut value = 0u64;
            for _ in 0..21 {
                if start - reader.data >= MAX_EXTENSION_BYTES {
                    return Err(TarError::TooLong);
                }
                let byte = *reader.data()?.first().ok_or(MALFORMED)?;
                reader.consume(1);
                match byte {
                    b'0'..=b'9' => {
                        let more = value.checked_mul(10).and_then(|v| v.checked_add((byte - b'0').into()));
                        value = more.ok_or(MALFORMED)?;
                    }
                    b'\n' => return Ok(value),
                    _ => return Err(MALFORMED),
                }
            }
            Err(MALFORMED)
        };
        let mut segments = Segments::default();
        for _ in 0..line(self)? {
            let (offset, len) = (line(self)?, line(self)?);
            segments.push(offset, len)?;
        }
        let read = start - self.data;
        let mut rest = read.next_multiple_of(BLOCK as u64) - read;
        while rest > 0 {
            let some = self.data()?.len().min(usize::try_from(rest).unwrap_or(BLOCK));
            if some == 0 {
                return Err(MALFORMED);
            }
            self.consume(some);
            rest -= some as u64;
        }
        segments.finish(size, self.data)
    }

    /// Some more of the current entry's data, as long as there is any; empty at its end. [`Self::consume`] takes it.
    ///
    /// # Errors
    /// [`TarError`].
    pub fn data(&mut self) -> Result<&[u8], TarError> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let available = fill(&mut self.source)?;
        if available.is_empty() {
            return Err(TarError::Truncated);
        }
        let len = usize::try_from(self.data).unwrap_or(usize::MAX).min(available.len());
        Ok(&available[..len])
    }

    /// Takes `len` bytes of what [`Self::data`] gave.
    pub fn consume(&mut self, len: usize) {
        self.source.consume(len);
        self.data -= len as u64;
        self.position += len as u64;
    }

    /// Where the current entry's data begins in the stream, and how much of it there is.
    pub fn data_range(&self) -> (u64, u64) {
        (self.position, self.data)
    }

    /// All of the current entry's data, when that is at most `limit` bytes.
    #[cfg(test)]
    pub fn read_all(&mut self, limit: u64) -> Result<Vec<u8>, TarError> {
        if self.data > limit { Err(TarError::TooLong) } else { self.read_data() }
    }

    /// Gives back the stream behind the entries.
    pub fn into_rest(self) -> BufReader<R> {
        self.source
    }

    fn begin_data(&mut self, size: u64) -> Result<(), TarError> {
        self.padding =
            size.checked_next_multiple_of(BLOCK as u64).ok_or(TarError::Malformed("a size"))? - size;
        self.data = size;
        Ok(())
    }

    fn read_data(&mut self) -> Result<Vec<u8>, TarError> {
        let mut bytes = Vec::new();
        loop {
            let some = self.data()?;
            if some.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(some);
            let len = some.len();
            self.consume(len);
        }
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        let mut left = self.data.checked_add(self.padding).ok_or(TarError::Malformed("a size"))?;
        (self.data, self.padding) = (0, 0);
        if let Some(skip) = self.skip {
            let len = i64::try_from(left).map_err(|_| TarError::Malformed("a size"))?;
            skip(&mut self.source, len)?;
            self.position += left;
            return Ok(());
        }
        while left > 0 {
            let available = fill(&mut self.source)?.len();
            if available == 0 {
                return Err(TarError::Truncated);
            }
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(available);
            self.source.consume(len);
            self.position += len as u64;
            left -= len as u64;
        }
        Ok(())
    }

    /// Reads a block; `false` at the end of the stream.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut read = 0;
        while read < BLOCK {
            let available = fill(&mut self.source)?;
            if available.is_empty() {
                return if read == 0 { Ok(false) } else { Err(TarError::Truncated) };
            }
            let len = available.len().min(BLOCK - read);
            block[read..read + len].copy_from_slice(&available[..len]);
            self.source.consume(len);
            read += len;
        }
        self.position += BLOCK as u64;
        Ok(true)
    }
}

/// Fills the buffer, through interrupts.
fn fill<R: Read>(source: &mut BufReader<R>) -> io::Result<&[u8]> {
    while source.buffer().is_empty() {
        match source.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    Ok(source.buffer())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Kind, Segment, TarError, TarReader};

    /// A header with the given kind and size, and the data after it.
    fn raw(kind: u8, name: &[u8], data: &[u8]) -> Vec<u8> {
        let mut block = [0u8; 512];
        block[..name.len()].copy_from_slice(name);
        block[100..108].copy_from_slice(b"0000644\0");
        block[108..116].copy_from_slice(b"0001750\0");
        block[116..124].copy_from_slice(b"0001751\0");
        block[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        block[136..148].copy_from_slice(b"00000000012\0");
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        sum(&mut block);
        let mut bytes = block.to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn sum(block: &mut [u8]) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    fn record(key: &str, value: &str) -> Vec<u8> {
        let rest = format!(" {key}={value}\n");
        let mut len = rest.len() + 1;
        while len.to_string().len() + rest.len() != len {
            len = len.to_string().len() + rest.len();
        }
        format!("{len}{rest}").into_bytes()
    }

    fn all_data<R: std::io::Read>(reader: &mut TarReader<R>) -> Vec<u8> {
        reader.read_all(1 << 20).unwrap()
    }

    #[test]
    fn names_and_numbers_of_extended_headers_win() {
        let long = "d/".repeat(200) + "file";
        let mut archive = raw(b'x', b"pax", &[record("path", &long), record("uid", "70000")].concat());
        archive.extend(raw(b'0', b"short", b"hello"));
        archive.extend(raw(b'L', b"././@LongLink", b"gnu/long\0"));
        archive.extend(raw(b'0', b"short", b""));
        archive.extend(raw(b'5', b"dir/", b""));
        archive.extend([0u8; 1024]);
        archive.extend(b"garbage");
        let mut reader = TarReader::new(archive.as_slice());
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!((entry.path, entry.uid, entry.gid), (long.into_bytes(), 70_000, 0o1751));
        assert_eq!((entry.kind, entry.mode, entry.mtime), (Kind::File, 0o644, (10, 0)));
        assert_eq!(all_data(&mut reader), b"hello");
        assert_eq!(reader.next_entry().unwrap().unwrap().path, b"gnu/long");
        assert_eq!(reader.next_entry().unwrap().unwrap().kind, Kind::Directory);
        assert!(reader.next_entry().unwrap().is_none());
        assert!(reader.next_entry().unwrap().is_none());
    }

    #[test]
    fn all_four_sparse_formats_are_read() {
        let pieces = [Segment { offset: 512, len: 3 }, Segment { offset: 1024, len: 2 }];
        let maps = [
            [record("GNU.sparse.size", "2000"), record("GNU.sparse.map", "512,3,1024,2")].concat(),
            [
                record("GNU.sparse.size", "2000"),
                record("GNU.sparse.offset", "512"),
                record("GNU.sparse.numbytes", "3"),
                record("GNU.sparse.offset", "1024"),
                record("GNU.sparse.numbytes", "2"),
            ]
            .concat(),
        ];
        let mut archives: Vec<Vec<u8>> =
            maps.iter().map(|map| [raw(b'x', b"pax", map), raw(b'0', b"file", b"abcde")].concat()).collect();
        let one = [
            record("GNU.sparse.major", "1"),
            record("GNU.sparse.minor", "0"),
            record("GNU.sparse.name", "file"),
            record("GNU.sparse.realsize", "2000"),
        ];
        let mut data = b"2\n512\n3\n1024\n2\n".to_vec();
        data.resize(512, 0);
        data.extend(b"abcde");
        archives.push([raw(b'x', b"pax", &one.concat()), raw(b'0', b"GNUSparseFile/file", &data)].concat());
        let mut old = raw(b'S', b"file", b"abcde");
        old[257..265].copy_from_slice(b"ustar  \0");
        for (at, number) in [(386, 512), (398, 3), (483, 2000)] {
            old[at..at + 12].copy_from_slice(format!("{number:011o}\0").as_bytes());
        }
        old[482] = 1;
        sum(&mut old[..512]);
        let mut more = vec![0u8; 512];
        for (at, number) in [(0, 1024), (12, 2)] {
            more[at..at + 12].copy_from_slice(format!("{number:011o}\0").as_bytes());
        }
        old.splice(512..512, more);
        archives.push(old);
        for (format, archive) in archives.iter().enumerate() {
            let mut reader = TarReader::new(archive.as_slice());
            let entry = reader.next_entry().unwrap().unwrap();
            assert_eq!(entry.path, b"file", "format {format}");
            assert_eq!(entry.segments.as_deref(), Some(pieces.as_slice()), "format {format}");
            assert_eq!(entry.size, 2000, "format {format}");
            assert_eq!(all_data(&mut reader), b"abcde", "format {format}");
            assert!(reader.next_entry().unwrap().is_none());
        }
    }

    #[test]
    fn what_is_too_long_cut_off_or_no_archive_is_refused() {
        let mut endless = raw(b'L', b"x", b"");
        endless[124..136].copy_from_slice(b"77777777777\0");
        sum(&mut endless[..512]);
        assert!(matches!(TarReader::new(endless.as_slice()).next_entry(), Err(TarError::TooLong)));
        let file = raw(b'0', b"file", b"hello");
        let mut reader = TarReader::new(&file[..514]);
        reader.next_entry().unwrap().unwrap();
        assert_eq!(reader.data().unwrap(), b"he");
        reader.consume(2);
        assert!(matches!(reader.data(), Err(TarError::Truncated)));
        assert!(matches!(TarReader::new(&file[..100]).next_entry(), Err(TarError::Truncated)));
        assert!(matches!(TarReader::new([1u8; 512].as_slice()).next_entry(), Err(TarError::Malformed(_))));
        let unknown = raw(b'V', b"label", b"");
        assert!(matches!(TarReader::new(unknown.as_slice()).next_entry(), Err(TarError::UnknownKind(b'V'))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            kinds in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..600)), 0..6),
            flip in any::<prop::sample::Index>(),
        ) {
            let mut archive: Vec<u8> =
                kinds.iter().flat_map(|(kind, data)| raw(*kind, b"n", data)).collect();
            if !archive.is_empty() {
                let at = flip.index(archive.len());
                archive[at] ^= 0x55;
            }
            let mut reader = TarReader::new(archive.as_slice());
            while let Ok(Some(_)) = reader.next_entry() {
                while let Ok([_, ..]) = reader.data() {
                    reader.consume(1);
                }
            }
        }
    }
}
