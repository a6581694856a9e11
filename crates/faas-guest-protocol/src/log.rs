//! The newest output of one execution, both streams in one order, in bounded memory.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::FrameKind;

/// What a run of one stream costs beside its bytes.
const RUN_COST: usize = size_of::<Run>();

/// One of a program's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// The frames that carry it.
    #[must_use]
    pub const fn frame_kind(self) -> FrameKind {
        match self {
            Self::Stdout => FrameKind::Stdout,
            Self::Stderr => FrameKind::Stderr,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Run {
    start: u64,
    stream: OutputStream,
}

/// What is found at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Bytes of one stream.
    Bytes(OutputStream, &'a [u8]),
    /// They were dropped; the first that is there has this offset.
    Dropped {
        /// The offset.
        first: u64,
    },
    /// Nothing yet: it is the offset after the last byte, or beyond.
    End,
}

/// A log. Its memory grows with what it holds, up to about its capacity; a change of stream counts as a few bytes.
#[derive(Debug)]
pub struct Log {
    capacity: usize,
    bytes: VecDeque<u8>,
    /// Where the stream changes; the first run begins at `first` or before.
    runs: VecDeque<Run>,
    first: u64,
}

impl Log {
    /// An empty log that keeps about `capacity` bytes.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self { capacity, bytes: VecDeque::new(), runs: VecDeque::new(), first: 0 }
    }

    /// The offset of the first byte that is still there.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// The offset after the last byte.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.first + self.bytes.len() as u64
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn cost(&self) -> usize {
        self.bytes.len() + self.runs.len() * RUN_COST
    }

    /// How many bytes of one stream can be appended before the one at `offset` is dropped.
    #[must_use]
    pub fn room_behind(&self, offset: u64) -> usize {
        let kept = usize::try_from(self.next().saturating_sub(offset.max(self.first))).unwrap_or(usize::MAX);
        // The run that it lies in counts too.
        let runs = self.runs.len() - self.runs.partition_point(|run| run.start <= offset).saturating_sub(1);
        self.capacity.saturating_sub(kept.saturating_add((runs + 1) * RUN_COST))
    }

    /// Appends what a stream said. The oldest bytes are dropped for it, its own beginning too where it is longer than
    /// the log.
    pub fn append(&mut self, stream: OutputStream, said: &[u8]) {
        if said.is_empty() {
            return;
        }
        if self.runs.back().is_none_or(|run| run.stream != stream) {
            self.runs.push_back(Run { start: self.next(), stream });
        }
        let most = self.capacity.saturating_sub(RUN_COST);
        let kept = &said[said.len().saturating_sub(most)..];
        let passed_over = said.len() - kept.len();
        if passed_over > 0 {
            // All that is there is older.
            self.first = self.next() + passed_over as u64;
            self.bytes.clear();
            self.drop_runs();
        }
        // Before the bytes come, so that there are never more than there may be.
        while self.cost() + kept.len() > self.capacity && !self.bytes.is_empty() {
            let excess = self.cost() + kept.len() - self.capacity;
            // One run at a time: where one goes, what it cost is free too.
            let run = self
                .runs
                .get(1)
                .map_or(excess, |second| usize::try_from(second.start - self.first).unwrap_or(usize::MAX));
            self.drop_oldest(excess.min(run));
        }
        let needed = self.bytes.len() + kept.len();
        if needed > self.bytes.capacity() {
            let target = needed.max(self.bytes.capacity() * 2).min(self.capacity.max(needed));
            self.bytes.reserve_exact(target - self.bytes.len());
        }
        self.bytes.extend(kept);
    }

    /// Drops so many of the oldest bytes, or all.
    pub fn drop_oldest(&mut self, bytes: usize) {
        let dropped = bytes.min(self.bytes.len());
        self.bytes.drain(..dropped);
        self.first += dropped as u64;
        self.drop_runs();
    }

    /// Drops what lies before an offset. Memory beyond a little is given back once nothing is left.
    pub fn drop_before(&mut self, offset: u64) {
        const KEPT_BYTES: usize = 64 << 10;
        self.drop_oldest(usize::try_from(offset.saturating_sub(self.first)).unwrap_or(usize::MAX));
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_BYTES {
            self.drop_all();
        }
    }

    /// Drops everything and gives its memory back. Offsets stay.
    pub fn drop_all(&mut self) {
        self.first = self.next();
        self.bytes = VecDeque::new();
        self.runs = VecDeque::new();
    }

    fn drop_runs(&mut self) {
        while self.runs.get(1).is_some_and(|second| second.start <= self.first) {
            self.runs.pop_front();
        }
    }

    /// What there is at `offset`: the bytes of one stream from there on, at most `max` of them.
    #[must_use]
    pub fn at(&self, offset: u64, max: usize) -> Found<'_> {
        if offset < self.first {
            return Found::Dropped { first: self.first };
        }
        if offset >= self.next() {
            return Found::End;
        }
        let after = self.runs.partition_point(|run| run.start <= offset);
        // There is a run for every byte.
        let Some(run) = after.checked_sub(1).and_then(|place| self.runs.get(place)) else {
            return Found::End;
        };
        let end = self.runs.get(after).map_or(self.next(), |next| next.start);
        let index = |offset: u64| usize::try_from(offset - self.first).unwrap_or(usize::MAX);
        let (from, to) = (index(offset), index(end));
        let (front, back) = self.bytes.as_slices();
        let piece = match from.checked_sub(front.len()) {
            None => &front[from..to.min(front.len())],
            Some(from) => &back[from..to - front.len()],
        };
        Found::Bytes(run.stream, &piece[..piece.len().min(max)])
    }
}

impl Log {
    /// The same as [`Log::at`], in one piece wherever it lies.
    #[must_use]
    pub fn copy_at(&self, offset: u64, max: usize) -> Option<(OutputStream, Vec<u8>)> {
        let Found::Bytes(stream, piece) = self.at(offset, max) else { return None };
        let mut bytes = piece.to_vec();
        while bytes.len() < max {
            match self.at(offset + bytes.len() as u64, max - bytes.len()) {
                Found::Bytes(same, more) if same == stream => bytes.extend_from_slice(more),
                _ => break,
            }
        }
        Some((stream, bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Found, Log, OutputStream, RUN_COST};

    fn stream(is_stderr: bool) -> OutputStream {
        if is_stderr { OutputStream::Stderr } else { OutputStream::Stdout }
    }

    /// All that is there from `offset` on, byte by byte with its stream.
    fn all(log: &Log, mut offset: u64, max: usize) -> Vec<(OutputStream, u8)> {
        let mut found = Vec::new();
        loop {
            match log.at(offset, max) {
                Found::Bytes(stream, bytes) => {
                    assert!(!bytes.is_empty() && bytes.len() <= max);
                    found.extend(bytes.iter().map(|byte| (stream, *byte)));
                    offset += bytes.len() as u64;
                }
                Found::Dropped { first } => {
                    assert!(first > offset);
                    offset = first;
                }
                Found::End => return found,
            }
        }
    }

    proptest! {
        #[test]
        fn the_newest_bytes_are_kept_in_order_and_in_bounds(
            said in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..70)), 0..60),
            capacity in 40usize..400,
            max in 1usize..50,
        ) {
            let mut log = Log::new(capacity);
            let mut whole = Vec::new();
            for (is_stderr, bytes) in &said {
                log.append(stream(*is_stderr), bytes);
                whole.extend(bytes.iter().map(|byte| (stream(*is_stderr), *byte)));
                prop_assert!(log.cost() <= capacity.max(2 * RUN_COST), "{} of {capacity}", log.cost());
                prop_assert!(log.bytes.capacity() <= capacity);
                prop_assert_eq!(log.next(), whole.len() as u64);
                let first = usize::try_from(log.first()).unwrap();
                prop_assert_eq!(all(&log, 0, max), whole[first..].to_vec());
                if let Some((stream, bytes)) = log.copy_at(log.first(), max) {
                    let run = whole[first..].iter().take_while(|(other, _)| *other == stream).count();
                    prop_assert_eq!(bytes.len(), run.min(max));
                }
            }
        }

        #[test]
        fn what_fits_behind_an_offset_drops_nothing_from_there_on(
            said in proptest::collection::vec((any::<bool>(), 1usize..50), 1..40),
            back in 0u64..200,
        ) {
            let mut log = Log::new(400);
            for (is_stderr, len) in said {
                log.append(stream(is_stderr), &vec![0; len]);
            }
            let offset = log.next().saturating_sub(back).max(log.first());
            let room = log.room_behind(offset);
            log.append(OutputStream::Stderr, &vec![1; room]);
            prop_assert!(log.first() <= offset);
        }
    }

    #[test]
    fn a_change_of_stream_with_every_byte_stays_in_bounds() {
        let mut log = Log::new(1000);
        for n in 0..10_000 {
            log.append(stream(n % 2 == 0), b"x");
        }
        assert!(log.cost() <= 1000);
        assert!(all(&log, log.first(), 10).len() >= 50);
    }

    #[test]
    fn dropping_all_keeps_the_offsets() {
        let mut log = Log::new(100);
        log.append(OutputStream::Stdout, b"abc");
        log.drop_all();
        assert_eq!((log.first(), log.next(), log.held_bytes()), (3, 3, 0));
        assert_eq!(log.at(1, 9), Found::Dropped { first: 3 });
        log.append(OutputStream::Stderr, b"d");
        assert_eq!(log.at(3, 9), Found::Bytes(OutputStream::Stderr, b"d"));
    }
}
