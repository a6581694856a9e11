//! Reads the output of one execution, from any offset, while it is being written.

use std::io;
use std::path::PathBuf;

use super::segment::{self, Record, SegmentReader};

/// What is found at an offset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// It goes on with this.
    Record(Record),
    /// What lies before `to` is not held any more.
    Gap {
        /// From where on something is held, or may come.
        to: u64,
    },
    /// That was all so far.
    End,
}

/// A place in the output of an execution. It holds a descriptor while it reads, and no memory beyond a record.
#[derive(Debug)]
pub(crate) struct OutputReader {
    dir: PathBuf,
    offset: u64,
    segment: Option<SegmentReader>,
}

impl OutputReader {
    pub(super) const fn new(dir: PathBuf, offset: u64) -> Self {
        Self { dir, offset, segment: None }
    }

    /// The offset of what is read next.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Lets go of its descriptor until the next read.
    pub(crate) fn rest(&mut self) {
        self.segment = None;
    }

    /// What there is next, of output that goes up to `next` as was told by who writes it. Blocks.
    ///
    /// # Errors
    /// [`io::Error`].
    pub(crate) fn read(&mut self, next: u64) -> io::Result<Read> {
        if self.offset >= next {
            return Ok(Read::End);
        }
        // Twice: the first may be at the end of the segment that it is in.
        for is_again in [false, true] {
            if self.segment.is_none()
                && let Some(gap) = self.find(next)?
            {
                self.offset = gap;
                return Ok(Read::Gap { to: gap });
            }
            let Some(segment) = &mut self.segment else { break };
            while let Some(record) = segment.read()? {
                if record.end() > self.offset {
                    return Ok(Read::Record(self.take(record)));
                }
            }
            self.segment = None;
            if is_again {
                break;
            }
        }
        // It was told and is nowhere: it could not be written, or went just now.
        self.offset = self.beyond(next)?;
        Ok(Read::Gap { to: self.offset })
    }

    fn take(&mut self, mut record: Record) -> Record {
        // Only the first after a seek begins before.
        let before = usize::try_from(self.offset.saturating_sub(record.offset)).unwrap_or(usize::MAX);
        if before > 0 {
            record.bytes.drain(..before);
            record.offset = self.offset;
        }
        self.offset = record.end();
        record
    }

    /// Opens the segment that the offset is in, or says where the first is after it.
    fn find(&mut self, next: u64) -> io::Result<Option<u64>> {
        let held = segment::list(&self.dir)?;
        let behind = held.partition_point(|(start, _)| *start <= self.offset);
        let Some((start, path)) = behind.checked_sub(1).and_then(|index| held.get(index)) else {
            return Ok(Some(held.first().map_or(next, |(start, _)| (*start).min(next))));
        };
        self.segment = SegmentReader::open(path, *start)?;
        Ok(None)
    }

    /// Where the next segment begins.
    fn beyond(&self, next: u64) -> io::Result<u64> {
        let held = segment::list(&self.dir)?;
        let later = held.iter().map(|(start, _)| *start).find(|start| *start > self.offset);
        Ok(later.map_or(next, |start| start.min(next)))
    }
}
