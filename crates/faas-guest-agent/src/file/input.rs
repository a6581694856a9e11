//! Content that comes in chunks, and whether it came whole.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::AsFd as _;

use super::Failed;

/// How much is read, and written, at once: as much as a pipe holds.
const BUFFER_BYTES: usize = 64 << 10;

/// Content: the bytes of all chunks. An error where it is cut off.
pub(super) struct Input<R> {
    source: R,
    /// What is left of the current chunk.
    left: u32,
    ended: bool,
}

/// That of standard input.
pub(super) fn stdin() -> Result<Input<BufReader<File>>, Failed> {
    let copy = rustix::stdio::stdin().as_fd().try_clone_to_owned();
    let file = File::from(copy.map_err(|_| Failed::Broken)?);
    Ok(Input::new(BufReader::with_capacity(BUFFER_BYTES, file)))
}

/// Writes all of `content`.
pub(super) fn copy(content: &mut impl Read, file: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => file.write_all(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl<R: Read> Input<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, left: 0, ended: false }
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            let mut length = [0u8; 4];
            self.source.read_exact(&mut length)?;
            self.left = u32::from_le_bytes(length);
            self.ended = self.left == 0;
        }
        if self.ended {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.source.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= u32::try_from(read).unwrap_or(0);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _};

    use super::Input;

    #[test]
    fn content_is_whole_or_an_error() {
        let whole = b"\x03\0\0\0abc\x01\0\0\0d\0\0\0\0ignored";
        let mut content = Vec::new();
        Input::new(&whole[..]).read_to_end(&mut content).unwrap();
        assert_eq!(content, b"abcd");
        for cut in [0, 2, 4, 6, 7, 9, 12, 15] {
            let error = Input::new(&whole[..cut]).read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{cut}");
        }
    }
}
