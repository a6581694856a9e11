//! Compression: found out from the first bytes, since media types lie and archives have none.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::images::digest::Digest;

/// How much is read at once.
const BUFFER: usize = 256 << 10;

/// The largest window of a zstd stream, as a power of two: what `zstd` takes without being told to take more. A
/// stream that wants more would need as much memory.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// Compression formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::images) enum Format {
    /// None that is known.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// One that is known and not supported.
    Unsupported(&'static str),
}

impl Format {
    /// How many bytes tell.
    pub(in crate::images) const MAGIC_BYTES: usize = 6;

    /// The format that begins so.
    pub(in crate::images) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable one before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Self::Unsupported("xz"),
            [b'B', b'Z', b'h', ..] => Self::Unsupported("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Unsupported("lz4"),
            _ => Self::Plain,
        }
    }
}

/// Reads what comes out of a decompressor, hashes and counts it.
pub(super) struct Decoder<'a> {
    inner: Box<dyn Read + 'a>,
    hasher: Sha256,
    count: u64,
    limit: u64,
}

/// More came out than allowed.
pub(super) const TOO_LARGE: &str = "more bytes come out of it than are allowed";

impl<'a> Decoder<'a> {
    /// Decompresses `source`; fails when more than `limit` bytes come out.
    pub(super) fn new(source: impl Read + 'a, limit: u64) -> io::Result<Self> {
        let mut start = Vec::with_capacity(Format::MAGIC_BYTES);
        let mut source = source;
        source.by_ref().take(Format::MAGIC_BYTES as u64).read_to_end(&mut start)?;
        let format = Format::of(&start);
        let source = BufReader::with_capacity(BUFFER, io::Cursor::new(start).chain(source));
        let inner: Box<dyn Read + 'a> = match format {
            Format::Plain => Box::new(source),
            Format::Gzip => Box::new(MultiGzDecoder::new(source)),
            Format::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
            Format::Unsupported(name) => {
                let reason =
                    format!("it is compressed with {name}, which is not supported: use gzip or zstd");
                return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
            }
        };
        Ok(Self { inner, hasher: Sha256::new(), count: 0, limit })
    }

    /// The digest of all that came out.
    pub(super) fn digest(self) -> Digest {
        Digest::finish(self.hasher)
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        if self.count > self.limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, TOO_LARGE));
        }
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// Reads `source` to its end.
pub(super) fn drain(mut source: impl BufRead) -> io::Result<()> {
    loop {
        match source.fill_buf() {
            Ok([]) => return Ok(()),
            Ok(some) => {
                let len = some.len();
                source.consume(len);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::Decoder;
    use crate::images::digest::Digest;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(bytes: &[u8], limit: u64) -> std::io::Result<Vec<u8>> {
        let mut decoder = Decoder::new(bytes, limit)?;
        let mut out = Vec::new();
        decoder.read_to_end(&mut out)?;
        assert_eq!(decoder.digest(), Digest::of(&out));
        Ok(out)
    }

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        let text = b"hello ".repeat(1000);
        let zstd = zstd::encode_all(text.as_slice(), 1).unwrap();
        for stream in [text.clone(), gzip(&text), zstd] {
            assert_eq!(decode(&stream, 10_000).unwrap(), text);
        }
        let members = [gzip(b"a"), gzip(b"b")].concat();
        assert_eq!(decode(&members, 10).unwrap(), b"ab", "several members, as parallel writers make them");
        assert!(decode(b"", 10).unwrap().is_empty());
    }

    #[test]
    fn bombs_cut_streams_and_garbage_behind_are_refused() {
        let text = vec![0u8; 100_000];
        let zstd = zstd::encode_all(text.as_slice(), 1).unwrap();
        for stream in [gzip(&text), zstd] {
            assert!(decode(&stream, 99_999).is_err());
            assert!(decode(&stream[..stream.len() - 1], 200_000).is_err());
            assert!(decode(&[stream.as_slice(), b"garbage"].concat(), 200_000).is_err());
        }
        assert!(decode(b"\xfd7zXZ\0", 10).unwrap_err().to_string().contains("xz"));
        assert!(decode(b"BZh91AY", 10).unwrap_err().to_string().contains("bzip2"));
    }
}
