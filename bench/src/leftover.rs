//! Whether a run has left something behind: in the server while it lives, on the machine after it has ended.
//!
//! Only what can be traced to this run counts, by descent or by a mark in its name, so that other work on the machine
//! does not disturb the verdict.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::BenchError;
use crate::gateway::Gateway;
use crate::proc;

/// How long something may take to go away after the last answer. Slots that a burst called for are kept for a while.
const SETTLE: Duration = Duration::from_secs(40);

/// How many descriptors a server may hold beyond the first count: caches and workers that start late.
const FD_SLACK: u64 = 8;

/// What the idle server held after its first execution.
pub(crate) struct Baseline {
    descriptors: u64,
    processes: usize,
    entries: BTreeSet<PathBuf>,
}

impl Baseline {
    /// Counts; the server must be idle.
    pub(crate) fn take(gateway: &Gateway) -> Result<Self, BenchError> {
        Ok(Self {
            descriptors: proc::descriptors(gateway.pid())?,
            processes: proc::descendants(gateway.pid())?.len(),
            entries: entries(&gateway.data_dir),
        })
    }

    /// What the server holds now beyond the baseline, after it has had time to settle.
    pub(crate) fn compare(&self, gateway: &Gateway) -> Result<Vec<String>, BenchError> {
        settle(|| {
            let mut found = Vec::new();
            let now = Self::take(gateway)?;
            if now.descriptors > self.descriptors + FD_SLACK {
                found.push(format!(
                    "server descriptors: {} before, {} after",
                    self.descriptors, now.descriptors
                ));
            }
            if now.processes > self.processes {
                found.push(format!("server's processes: {} before, {} after", self.processes, now.processes));
            }
            let new: Vec<_> = now.entries.difference(&self.entries).collect();
            if let Some(first) = new.first() {
                found.push(format!("data directory: {} new entries, such as {}", new.len(), first.display()));
            }
            Ok(found)
        })
    }
}

/// What is still on the machine of a server that has ended and of the peers: names hold one of `marks`.
pub(crate) fn on_machine(marks: &[String]) -> Result<Vec<String>, BenchError> {
    settle(|| {
        proc::reap_orphans(&[])?;
        let mut found = Vec::new();
        for process in proc::descendants(std::process::id())? {
            found.push(format!("process {} ({})", process.pid, process.comm));
        }
        let mounts =
            fs::read_to_string("/proc/self/mountinfo").map_err(BenchError::io("/proc/self/mountinfo"))?;
        let marked = |text: &str| marks.iter().any(|mark| text.contains(mark.as_str()));
        found.extend(mounts.lines().filter(|line| marked(line)).map(|line| format!("mount {line}")));
        for directory in directories(Path::new("/sys/fs/cgroup"), 6) {
            let name =
                directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if marked(&name) {
                found.push(format!("cgroup {}", directory.display()));
            }
        }
        for device in directories(Path::new("/sys/block"), 1) {
            if let Ok(file) = fs::read_to_string(device.join("loop/backing_file"))
                && marked(&file)
            {
                found.push(format!("loop device {} on {}", device.display(), file.trim()));
            }
        }
        Ok(found)
    })
}

/// Asks until nothing is found or the time to settle is over.
fn settle(ask: impl Fn() -> Result<Vec<String>, BenchError>) -> Result<Vec<String>, BenchError> {
    let begin = Instant::now();
    loop {
        let found = ask()?;
        if found.is_empty() || begin.elapsed() > SETTLE {
            return Ok(found);
        }
        crate::schedule::sleep(Duration::from_millis(50));
    }
}

/// Everything in a data directory down to the third level, by relative path. Journals of a database come and go.
fn entries(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut next = vec![(root.to_owned(), 0)];
    while let Some((directory, depth)) = next.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let journal = path.extension().is_some_and(|ext| ext.to_string_lossy().contains('-'));
            if let Ok(relative) = path.strip_prefix(root)
                && !journal
            {
                found.insert(relative.to_owned());
            }
            if depth < 2 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                next.push((path, depth + 1));
            }
        }
    }
    found
}

/// All directories below `root`; links to directories too on the first level, as `/sys/block` has them.
fn directories(root: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type();
        if kind.as_ref().is_ok_and(std::fs::FileType::is_dir) {
            if depth > 1 {
                found.extend(directories(&path, depth - 1));
            }
            found.push(path);
        } else if kind.is_ok_and(|kind| kind.is_symlink()) && path.is_dir() && depth == 1 {
            found.push(path);
        }
    }
    found
}
