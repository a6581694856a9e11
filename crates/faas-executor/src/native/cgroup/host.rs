//! The gateway's own directory in each hierarchy, held open, and the slots' below it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::plan::{CgroupPlan, ProbeError, TakenOver, at, enable_controllers, unless_gone, until_idle};
use super::{Hierarchy, V1, V2, Version};
use crate::platform::cgroup_files as stats;

/// The gateway's cgroups on this host, held open: reachable from a process that no longer sees the host's files.
#[derive(Debug)]
pub(crate) struct CgroupHost {
    /// Whether the controllers are those of v2.
    v2: bool,
    /// The gateway's directory in each hierarchy: where it was made, and open.
    roots: BTreeMap<Hierarchy, (PathBuf, OwnedFd)>,
    taken_over: Option<TakenOver>,
}

impl CgroupHost {
    /// Makes the directories of a plan and opens them. Existing ones are taken over.
    pub(crate) fn open(plan: &CgroupPlan) -> Result<Self, ProbeError> {
        let mut roots = BTreeMap::new();
        for (hierarchy, root) in &plan.roots {
            let fd = make_and_open(rustix::fs::CWD, root).map_err(at(root))?;
            if plan.v2 {
                enable_controllers(root)?;
            }
            roots.insert(*hierarchy, (root.clone(), fd));
        }
        Ok(Self { v2: plan.v2, roots, taken_over: plan.taken_over.clone() })
    }

    /// The rules of the version that limits are set by.
    pub(crate) fn version(&self) -> &'static dyn Version {
        if self.v2 { &V2 } else { &V1 }
    }

    /// What it is, in words.
    pub(crate) fn describe(&self) -> &'static str {
        match (self.v2, self.roots.contains_key(&Hierarchy::Unified)) {
            (true, _) => "cgroup v2",
            (false, true) => "cgroup v1, hybrid",
            (false, false) => "cgroup v1",
        }
    }

    /// CPU time of all processes that ever were in any slot, and of what else is there (the server itself, where the
    /// cgroup was delegated to it); where the v2 tree is there to count it.
    pub(crate) fn cpu_us_ever(&self) -> Option<u64> {
        let (_, root) = self.roots.get(&Hierarchy::Unified)?;
        let opened = rustix::fs::openat(root, stats::CPU, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let mut text = String::new();
        File::from(opened.ok()?).read_to_string(&mut text).ok()?;
        stats::cpu_us(&text)
    }

    /// Makes the directories of slot `slot` and opens them.
    pub(super) fn make_slot_dirs(&self, slot: u32) -> io::Result<Vec<(Hierarchy, OwnedFd)>> {
        self.roots
            .iter()
            .map(|(hierarchy, (_, root))| Ok((*hierarchy, make_and_open(root, Path::new(&slot_name(slot)))?)))
            .collect()
    }

    /// Opens the directories of slot `slot`, which exist.
    pub(super) fn open_slot_dirs(&self, slot: u32) -> io::Result<Vec<(Hierarchy, OwnedFd)>> {
        self.roots
            .iter()
            .map(|(hierarchy, (_, root))| Ok((*hierarchy, open_dir(root, Path::new(&slot_name(slot)))?)))
            .collect()
    }

    /// The numbers of the slots that have a directory in any hierarchy.
    pub(crate) fn slots(&self) -> io::Result<Vec<u32>> {
        let mut slots = Vec::new();
        for (_, root) in self.roots.values() {
            let dir = rustix::fs::openat(root, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            for entry in rustix::fs::Dir::read_from(dir)? {
                let entry = entry?;
                let name = entry.file_name().to_str().ok();
                slots.extend(name.and_then(|name| name.strip_prefix("slot-")?.parse::<u32>().ok()));
            }
        }
        slots.sort_unstable();
        slots.dedup();
        Ok(slots)
    }

    /// Everything that there is in the gateway's own directories, by its path, with the slot's number where it is a
    /// slot's.
    pub(crate) fn entries(&self) -> io::Result<Vec<(PathBuf, Option<u32>)>> {
        let mut found = Vec::new();
        for (path, root) in self.roots.values() {
            let dir = rustix::fs::openat(root, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            for entry in rustix::fs::Dir::read_from(dir)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().to_str() else { continue };
                if matches!(name, "." | "..") || entry.file_type() != rustix::fs::FileType::Directory {
                    continue;
                }
                let number = name.strip_prefix("slot-").and_then(|number| number.parse().ok());
                found.push((path.join(name), number));
            }
        }
        Ok(found)
    }

    /// Kills whatever still runs in a slot's cgroups and removes their directories.
    ///
    /// Only for a slot whose parked process is gone or shall go: it is killed too.
    pub(crate) fn destroy_slot(&self, slot: u32) -> io::Result<()> {
        self.destroy_slots([slot]).into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// The same for several, which are all tried and waited for together: those that could not be removed, and why.
    pub(crate) fn destroy_slots(&self, slots: impl IntoIterator<Item = u32>) -> Vec<(u32, io::Error)> {
        let mut left: Vec<_> = slots.into_iter().collect();
        let mut failed = Vec::new();
        for _ in 0..EMPTYING_TRIES {
            left.retain(|slot| match self.try_destroy_slot(*slot) {
                Ok(gone) => !gone,
                Err(error) => {
                    failed.push((*slot, error));
                    false
                }
            });
            if left.is_empty() {
                return failed;
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "called from the single-threaded launcher and from blocking tasks"
            )]
            std::thread::sleep(EMPTYING_STEP);
        }
        failed.extend(left.into_iter().map(|slot| {
            let error = format!("cgroup {}: its processes do not end", slot_name(slot));
            (slot, io::Error::new(io::ErrorKind::TimedOut, error))
        }));
        failed
    }

    /// One step of the same, which does not wait: whether all of it is gone.
    pub(crate) fn try_destroy_slot(&self, slot: u32) -> io::Result<bool> {
        let name = slot_name(slot);
        let mut gone = true;
        // The v2 tree first: what it kills it kills at once, and in all hierarchies.
        for (_, root) in self.roots.values().rev() {
            gone &= try_destroy_dir(root.as_fd(), &name)?;
        }
        Ok(gone)
    }

    /// Removes the gateway's own directories, which must hold no slot any more. For the process that made them where
    /// it still sees them. Waits a little for processes that are about to end.
    pub(crate) fn remove_roots(&self) -> io::Result<()> {
        until_idle(|| self.try_remove_roots())
    }

    fn try_remove_roots(&self) -> io::Result<()> {
        for (path, _) in self.roots.values() {
            unless_gone(std::fs::remove_dir(path))?;
        }
        self.taken_over.as_ref().map_or(Ok(()), TakenOver::give_back)
    }
}

fn slot_name(slot: u32) -> String {
    format!("slot-{slot}")
}

fn make_and_open(at: impl AsFd, dir: &Path) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(&at, dir, Mode::from_raw_mode(0o755)) {
        Err(error) if error != Errno::EXIST => return Err(error.into()),
        _ => {}
    }
    open_dir(at, dir)
}

fn open_dir(at: impl AsFd, dir: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(at, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// How often a cgroup is looked at again while its killed processes leave it.
const EMPTYING_STEP: std::time::Duration = std::time::Duration::from_millis(2);

/// How long killed processes are given to leave: they may be in the middle of a large exit.
const EMPTYING_TRIES: u32 = 2500;

/// Removes a cgroup; where processes are still in it they are killed, and it is not gone yet.
fn try_destroy_dir(root: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    match rustix::fs::unlinkat(root, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        // Processes are still in it, or on their way out.
        Err(Errno::BUSY) => {}
        Err(error) => return Err(error.into()),
    }
    // The kernel's own way reaches a process that forks faster than it can be listed (v2, from 5.14 on).
    if !kill_all(root, name)? {
        kill_listed(|| pids_in(root, name))?;
    }
    // Many are gone by now.
    match rustix::fs::unlinkat(root, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// How many processes are held on to at once.
const HELD: usize = 64;

/// Kills the processes that `list` has now. A PID may be another process's by the time that it is used: one is killed
/// that is listed still when it is held on to already.
fn kill_listed(list: impl Fn() -> io::Result<Vec<Pid>>) -> io::Result<()> {
    for pids in list()?.chunks(HELD) {
        let mut held = Vec::new();
        for pid in pids {
            match pidfd_open(*pid, PidfdFlags::empty()) {
                Ok(pidfd) => held.push((*pid, pidfd)),
                Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let still: BTreeSet<_> = list()?.into_iter().map(Pid::as_raw_nonzero).collect();
        for (_, pidfd) in held.iter().filter(|(pid, _)| still.contains(&pid.as_raw_nonzero())) {
            match pidfd_send_signal(pidfd, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Writes to `cgroup.kill` where there is one.
fn kill_all(root: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    let path = format!("{name}/cgroup.kill");
    match rustix::fs::openat(root, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => Ok(rustix::io::write(&file, b"1")? == 1),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn pids_in(root: BorrowedFd<'_>, name: &str) -> io::Result<Vec<Pid>> {
    let path = format!("{name}/cgroup.procs");
    let file = match rustix::fs::openat(root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        other => other?,
    };
    let mut text = String::new();
    File::from(file).read_to_string(&mut text)?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw).collect())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::{BTreeMap, BTreeSet};
    use std::os::unix::process::ExitStatusExt as _;
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::Arc;

    use rustix::process::Pid;

    use super::{CgroupHost, kill_listed};
    use crate::native::cgroup::fixture;
    use crate::native::cgroup::plan::{CgroupPlan, Place};
    use crate::native::start::sweep;

    fn hybrid() -> (PathBuf, CgroupHost) {
        let dir = fixture(&[("memory/x", ""), ("pids/x", ""), ("cpu/x", ""), ("unified/x", "")]);
        let mounts: BTreeMap<_, _> = ["memory", "pids", "cpu"]
            .into_iter()
            .map(|c| (c.to_owned(), dir.join(c)))
            .chain([(String::new(), dir.join("unified"))])
            .collect();
        let plan = CgroupPlan::of(&mounts, &Place::Top, "faas-x").unwrap();
        (dir, CgroupHost::open(&plan).unwrap())
    }

    #[tokio::test]
    async fn what_cannot_be_removed_is_told_and_everything_else_is_removed() {
        let (dir, host) = hybrid();
        for slot in 0..4 {
            host.make_slot_dirs(slot).unwrap();
        }
        // A cgroup below that of a slot, which nothing of ours makes.
        std::fs::create_dir(dir.join("unified/faas-x/slot-1/below")).unwrap();
        let host = Arc::new(host);
        let stuck = sweep(Arc::clone(&host), BTreeSet::from([3])).await.unwrap();
        assert_eq!(stuck, [1]);
        assert_eq!(host.slots().unwrap(), [1, 3], "the others are gone, but for the one that is kept");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_process_is_killed_that_is_listed_still_when_it_is_held_and_no_other() {
        let sleep = || Command::new("sleep").arg("100").spawn().unwrap();
        let (mut ours, mut stranger, mut gone) = (sleep(), sleep(), sleep());
        gone.kill().unwrap();
        gone.wait().unwrap();
        let pids = [&ours, &stranger, &gone].map(|child| Pid::from_raw(child.id().cast_signed()).unwrap());
        let asked = Cell::new(0);
        kill_listed(|| {
            asked.set(asked.get() + 1);
            // The second time a PID that was listed is somebody else's.
            Ok(if asked.get() == 1 { pids.to_vec() } else { vec![pids[0]] })
        })
        .unwrap();
        assert_eq!(ours.wait().unwrap().signal(), Some(9));
        assert!(stranger.try_wait().unwrap().is_none());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn v1_makes_a_directory_in_every_hierarchy() {
        let (dir, host) = hybrid();
        assert_eq!(host.describe(), "cgroup v1, hybrid");
        for hierarchy in ["memory", "pids", "cpu", "unified"] {
            assert!(dir.join(hierarchy).join("faas-x").is_dir(), "{hierarchy}");
        }
        assert_eq!(host.slots().unwrap(), Vec::<u32>::new());
        host.make_slot_dirs(3).unwrap();
        assert_eq!(host.slots().unwrap(), [3]);
        host.destroy_slot(3).unwrap();
        host.remove_roots().unwrap();
        assert!(!dir.join("memory/faas-x").exists());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
