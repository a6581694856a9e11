//! The output of lasting executions on the disk: bounded for each and for all together.
//!
//! One directory for each instance, one in it for each execution, in that its segments (`segment.rs` has their layout).
//! The oldest segments go first: those of an execution that has more than it may have, and of all where all have more.
//! Nothing here is in memory that a later process would need: what is held is what the directory says.
//!
//! It survives the end of the process at any moment, not a power cut: the sandboxes do not either.

mod reader;
mod segment;
mod writer;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use reader::{OutputReader, Read};
pub(crate) use writer::OutputWriter;

/// The smallest segment: what is kept of an execution is counted in a few of them.
const LEAST_SEGMENT_BYTES: u64 = 64 << 10;

/// The largest.
const MOST_SEGMENT_BYTES: u64 = 4 << 20;

/// What a file takes on a disk, however short.
const LEAST_FILE_BYTES: u64 = 4 << 10;

/// How many segments an execution's share is made of.
const SEGMENTS: u64 = 4;

/// How much output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputBudget {
    /// Of one execution, in bytes, to a segment.
    pub each_bytes: u64,
    /// Of all of them, in bytes, to a segment of each that runs.
    pub all_bytes: u64,
}

impl Default for OutputBudget {
    fn default() -> Self {
        Self { each_bytes: 8 << 20, all_bytes: 1 << 30 }
    }
}

/// A segment that nobody appends to any more.
#[derive(Debug)]
struct Closed {
    path: PathBuf,
    bytes: u64,
}

#[derive(Debug, Default)]
struct All {
    bytes: u64,
    /// The oldest first.
    segments: VecDeque<Closed>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    budget: OutputBudget,
    all: Mutex<All>,
}

/// All output that is kept. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub(crate) struct OutputLogs(Arc<Inner>);

fn lock(mutex: &Mutex<All>) -> MutexGuard<'_, All> {
    // Each change is whole before anything could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is not there is no error.
fn absent<T: Default>(error: io::Error) -> io::Result<T> {
    if error.kind() == io::ErrorKind::NotFound { Ok(T::default()) } else { Err(error) }
}

impl OutputLogs {
    /// What a directory has, of which `keep` (instance, execution) is still wanted: the rest is removed. Blocks.
    ///
    /// # Errors
    /// [`io::Error`].
    pub(crate) fn open(
        dir: &Path,
        budget: OutputBudget,
        keep: impl Fn(&str, &str) -> bool,
    ) -> io::Result<Self> {
        let mut found = Vec::new();
        for instance in std::fs::read_dir(dir)? {
            let instance = instance?;
            let mut some = false;
            for execution in std::fs::read_dir(instance.path())? {
                let execution = execution?;
                let names = (instance.file_name(), execution.file_name());
                if !names.0.to_str().zip(names.1.to_str()).is_some_and(|(of, id)| keep(of, id)) {
                    std::fs::remove_dir_all(execution.path())?;
                    continue;
                }
                some = true;
                for (_, path) in segment::list(&execution.path())? {
                    let metadata = std::fs::metadata(&path)?;
                    found.push((metadata.modified()?, Closed { path, bytes: metadata.len() }));
                }
            }
            if !some {
                std::fs::remove_dir_all(instance.path())?;
            }
        }
        found.sort_by_key(|(modified, _)| *modified);
        let logs = Self(Arc::new(Inner { dir: dir.to_owned(), budget, all: Mutex::default() }));
        for (_, closed) in found {
            logs.close(closed);
        }
        Ok(logs)
    }

    fn place(&self, instance: &str, execution: &str) -> PathBuf {
        self.0.dir.join(instance).join(execution)
    }

    /// Goes on where the output of an execution ends, or begins it. Blocks.
    ///
    /// # Errors
    /// [`io::Error`].
    pub(crate) fn writer(&self, instance: &str, execution: &str) -> io::Result<OutputWriter> {
        let dir = self.place(instance, execution);
        let writer = OutputWriter::open(self.clone(), dir)?;
        // What is appended to is not closed.
        if let Some(path) = writer.path() {
            let mut all = lock(&self.0.all);
            if let Some(index) = all.segments.iter().position(|closed| closed.path == *path)
                && let Some(closed) = all.segments.remove(index)
            {
                all.bytes -= closed.bytes;
            }
        }
        Ok(writer)
    }

    /// Reads the output of an execution from an offset on.
    pub(crate) fn reader(&self, instance: &str, execution: &str, offset: u64) -> OutputReader {
        OutputReader::new(self.place(instance, execution), offset)
    }

    /// The offset of the first byte that is held, of an execution whose output ends at `next`. Blocks.
    ///
    /// # Errors
    /// [`io::Error`].
    pub(crate) fn first(&self, instance: &str, execution: &str, next: u64) -> io::Result<u64> {
        let held = segment::list(&self.place(instance, execution))?;
        Ok(held.first().map_or(next, |(start, _)| (*start).min(next)))
    }

    /// Removes the output of an execution, or of all executions of an instance. Nothing there is as good. Blocks.
    ///
    /// # Errors
    /// [`io::Error`].
    pub(crate) fn remove(&self, instance: &str, execution: Option<&str>) -> io::Result<()> {
        let dir = match execution {
            Some(execution) => self.place(instance, execution),
            None => self.0.dir.join(instance),
        };
        std::fs::remove_dir_all(&dir).or_else(absent)?;
        let mut all = lock(&self.0.all);
        let All { bytes, segments } = &mut *all;
        segments.retain(|closed| {
            let stays = !closed.path.starts_with(&dir);
            if !stays {
                *bytes -= closed.bytes;
            }
            stays
        });
        Ok(())
    }

    fn segment_bytes(&self) -> u64 {
        (self.0.budget.each_bytes / SEGMENTS).clamp(LEAST_SEGMENT_BYTES, MOST_SEGMENT_BYTES)
    }

    /// Takes in a segment that nobody appends to any more, and removes the oldest ones for it.
    fn close(&self, closed: Closed) {
        let mut doomed = Vec::new();
        {
            let mut all = lock(&self.0.all);
            // A file takes a block at least.
            let closed = Closed { bytes: closed.bytes.max(LEAST_FILE_BYTES), ..closed };
            all.bytes += closed.bytes;
            all.segments.push_back(closed);
            while all.bytes > self.0.budget.all_bytes
                && let Some(oldest) = all.segments.pop_front()
            {
                all.bytes -= oldest.bytes;
                doomed.push(oldest.path);
            }
        }
        for path in doomed {
            segment::remove(&path);
        }
    }

    /// A segment that its execution may not have any more.
    fn drop_segment(&self, path: &Path) {
        segment::remove(path);
        let mut all = lock(&self.0.all);
        if let Some(index) = all.segments.iter().position(|closed| closed.path == path)
            && let Some(closed) = all.segments.remove(index)
        {
            all.bytes -= closed.bytes;
        }
    }
}

#[cfg(test)]
mod tests;
