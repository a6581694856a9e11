//! Appends to the output of one execution.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use faas_guest_protocol::OutputStream;

use super::segment::{self, MOST_RECORD_BYTES, SegmentReader};
use super::{Closed, OutputLogs};

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    bytes: u64,
}

/// The end of the output of an execution. One for each that runs.
#[derive(Debug)]
pub(crate) struct OutputWriter {
    logs: OutputLogs,
    dir: PathBuf,
    segment: Option<Open>,
    next: u64,
}

impl OutputWriter {
    pub(super) fn open(logs: OutputLogs, dir: PathBuf) -> io::Result<Self> {
        let mut writer = Self { logs, dir, segment: None, next: 0 };
        let mut held = segment::list(&writer.dir)?;
        while let Some((start, path)) = held.pop() {
            let Some(mut read) = SegmentReader::open(&path, start)? else {
                // Its header was not whole; nothing of it was ever told.
                writer.logs.drop_segment(&path);
                continue;
            };
            while read.read()?.is_some() {}
            let mut file = OpenOptions::new().write(true).open(&path)?;
            // What is behind was being written when the process ended.
            file.set_len(read.position())?;
            file.seek(SeekFrom::End(0))?;
            writer.segment = Some(Open { path, file, bytes: read.position() });
            writer.next = read.next();
            break;
        }
        Ok(writer)
    }

    pub(super) fn path(&self) -> Option<&PathBuf> {
        self.segment.as_ref().map(|open| &open.path)
    }

    /// The offset after the last byte.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// Appends what was said at `offset`, at or after [`OutputWriter::next`]; what lies between was lost. Where this
    /// fails, what was to be written is lost as well, and the output goes on after it. Blocks.
    ///
    /// # Errors
    /// [`io::Error`]: the disk is full, for example.
    pub(crate) fn append(
        &mut self,
        offset: u64,
        at_ms: u64,
        stream: OutputStream,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.skip_to(offset);
        for piece in bytes.chunks(MOST_RECORD_BYTES) {
            let at = self.next;
            let written = self.write(at, at_ms, stream, piece);
            self.next = at + piece.len() as u64;
            if let Err(error) = written {
                self.close();
                self.next = offset + bytes.len() as u64;
                return Err(error);
            }
        }
        Ok(())
    }

    /// What lies before `offset` was lost.
    pub(crate) fn skip_to(&mut self, offset: u64) {
        if offset > self.next {
            self.close();
            self.next = offset;
        }
    }

    fn write(&mut self, offset: u64, at_ms: u64, stream: OutputStream, bytes: &[u8]) -> io::Result<()> {
        if self.segment.as_ref().is_some_and(|open| open.bytes >= self.logs.segment_bytes()) {
            self.close();
        }
        if self.segment.is_none() {
            self.keep_within_budget()?;
        }
        let record = segment::encode(offset, at_ms, stream, bytes)?;
        let open = match &mut self.segment {
            Some(open) => open,
            None => {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
                let (path, mut file) = segment::create(&self.dir, offset)?;
                let bytes = file.stream_position()?;
                self.segment.insert(Open { path, file, bytes })
            }
        };
        if let Err(error) = open.file.write_all(&record) {
            // Whoever reads it stops before what is half written; the next segment begins after it.
            open.file.set_len(open.bytes)?;
            if open.bytes <= segment::HEADER_BYTES as u64 {
                segment::remove(&open.path);
                self.segment = None;
            }
            return Err(error);
        }
        open.bytes += record.len() as u64;
        Ok(())
    }

    fn keep_within_budget(&self) -> io::Result<()> {
        let held = segment::list(&self.dir)?;
        let most = self.logs.0.budget.each_bytes / self.logs.segment_bytes();
        // The one that comes next counts.
        let most = usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(1).max(1);
        for (_, path) in held.iter().take(held.len().saturating_sub(most)) {
            self.logs.drop_segment(path);
        }
        Ok(())
    }

    fn close(&mut self) {
        if let Some(open) = self.segment.take() {
            self.logs.close(Closed { path: open.path, bytes: open.bytes });
        }
    }
}

impl Drop for OutputWriter {
    fn drop(&mut self) {
        self.close();
    }
}
