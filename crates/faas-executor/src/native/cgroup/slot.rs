//! One slot's cgroups, held open: reachable from a process that can no longer see the host's file system.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::{CgroupHost, Hierarchy, Version};
use faas_types::Usage;

use crate::platform::cgroup_files as stats;
use crate::sandbox::Limits;

/// The directories of one slot.
#[derive(Debug)]
pub(crate) struct SlotCgroup {
    dirs: Vec<(Hierarchy, OwnedFd)>,
    version: &'static dyn Version,
    since: Mutex<Since>,
}

/// Where the counters stood when the present sandbox began.
#[derive(Debug, Default)]
struct Since {
    cpu_us: u64,
    oom_kills: u64,
    /// The peak of memory since this descriptor was written to.
    memory_peak: Option<File>,
}

/// Where a slot's counters stood when its present sandbox began, for whoever opens the slot later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    cpu_us: u64,
    oom_kills: u64,
}

/// Why limits were not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LimitsError {
    /// The sandbox holds more memory than the new limit, this many bytes, and it cannot be taken back.
    #[error("it holds {0} bytes of memory")]
    InUse(u64),
    #[error(transparent)]
    File(#[from] CgroupFileError),
}

/// A file of a cgroup that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{hierarchy:?}/{file}: {source}")]
pub(crate) struct CgroupFileError {
    hierarchy: Hierarchy,
    file: &'static str,
    pub(crate) source: io::Error,
}

impl SlotCgroup {
    /// Makes a slot's directories and opens them.
    pub(crate) fn make(host: &CgroupHost, slot: u32) -> io::Result<Self> {
        Ok(Self::of(host, host.make_slot_dirs(slot)?))
    }

    /// Opens a slot's directories, which exist.
    pub(crate) fn open(host: &CgroupHost, slot: u32) -> io::Result<Self> {
        Ok(Self::of(host, host.open_slot_dirs(slot)?))
    }

    fn of(host: &CgroupHost, dirs: Vec<(Hierarchy, OwnedFd)>) -> Self {
        Self { dirs, version: host.version(), since: Mutex::default() }
    }

    /// Moves the calling process into all of them, where sandboxes are made by inheritance. Slow: each move waits for
    /// an RCU grace period.
    pub(crate) fn enter(&self) -> Result<(), CgroupFileError> {
        if self.birth_place().is_some() {
            return Ok(());
        }
        self.dirs.iter().try_for_each(|(hierarchy, _)| self.write(*hierarchy, "cgroup.procs", "0"))
    }

    /// The directory that a sandbox is to be born in (clone(2), `CLONE_INTO_CGROUP`); without one it inherits its
    /// maker's place.
    pub(crate) fn birth_place(&self) -> Option<BorrowedFd<'_>> {
        if self.version.inherits() {
            return None;
        }
        self.dirs.first().map(|(_, dir)| dir.as_fd())
    }

    /// Sets the limits.
    pub(crate) fn limit(&self, limits: &Limits) -> Result<(), CgroupFileError> {
        for setting in self.version.settings(limits) {
            match self.write(setting.hierarchy, setting.file, &setting.value) {
                Err(error) if setting.may_be_absent && error.source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// From here on counts for a new sandbox. Before it is made.
    pub(crate) fn begin(&self) -> Result<(), CgroupFileError> {
        let (hierarchy, file) = self.version.memory_peak();
        // A kernel without the file, or one that does not take the write (v2 before 6.12), tells no peak.
        let memory_peak = self
            .open_file(hierarchy, file, OFlags::RDWR)
            .and_then(|mut file| file.write_all(self.version.peak_reset()).map(|()| file))
            .ok();
        let since =
            Since { cpu_us: self.cpu_us_ever().unwrap_or(0), oom_kills: self.oom_kills_ever()?, memory_peak };
        *self.since() = since;
        Ok(())
    }

    /// Where the counters stood then.
    pub(crate) fn counted(&self) -> Counted {
        let since = self.since();
        Counted { cpu_us: since.cpu_us, oom_kills: since.oom_kills }
    }

    /// Goes on counting for a sandbox that began at `counted`. Where only the descriptor that set the peak of memory
    /// back sees it so (v2), the peak is that from now on.
    pub(crate) fn resume(&self, counted: Counted) {
        let (hierarchy, file) = self.version.memory_peak();
        let memory_peak = if self.version.peak_is_shared() {
            self.open_file(hierarchy, file, OFlags::RDONLY)
        } else {
            self.open_file(hierarchy, file, OFlags::RDWR)
                .and_then(|mut file| file.write_all(self.version.peak_reset()).map(|()| file))
        };
        let Counted { cpu_us, oom_kills } = counted;
        *self.since() = Since { cpu_us, oom_kills, memory_peak: memory_peak.ok() };
    }

    /// Whether a process is in all of the slot's cgroups.
    pub(crate) fn holds(&self, pid: u32) -> Result<bool, CgroupFileError> {
        let pid = pid.to_string();
        for (hierarchy, _) in &self.dirs {
            if !self.read(*hierarchy, "cgroup.procs")?.lines().any(|line| line == pid) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How many processes and threads there are now.
    pub(crate) fn pids_now(&self) -> Result<u64, CgroupFileError> {
        let (hierarchy, file) = self.version.pids_now();
        stats::number(&self.read(hierarchy, file)?).ok_or_else(|| missing(hierarchy, file, "N"))
    }

    /// Whether the slot's own parked process counts as one of them.
    pub(crate) fn counts_its_maker(&self) -> bool {
        self.version.inherits()
    }

    /// Changes the limits of a sandbox that runs from `old` to `new`, or nothing. Blocks while the kernel takes memory
    /// back.
    pub(crate) fn change_limits(&self, old: &Limits, new: &Limits) -> Result<(), LimitsError> {
        let over = |held: u64| held.checked_sub(new.memory_bytes).filter(|over| *over > 0);
        if !self.version.refuses_memory_below_use()
            && let Some(bytes) = over(self.memory_now()?)
        {
            self.reclaim(bytes)?;
            let held = self.memory_now()?;
            if over(held).is_some() {
                return Err(LimitsError::InUse(held));
            }
        }
        let Err(error) = self.limit(new) else { return Ok(()) };
        self.limit(old)?;
        match error.source.raw_os_error() {
            Some(libc::EBUSY) => Err(LimitsError::InUse(self.memory_now()?)),
            _ => Err(error.into()),
        }
    }

    /// How many processes of the present sandbox the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self) -> Result<u64, CgroupFileError> {
        Ok(self.oom_kills_ever()?.saturating_sub(self.since().oom_kills))
    }

    /// What the present sandbox has used, as far as this host tells it.
    pub(crate) fn usage(&self) -> Usage {
        let cpu_us = self.cpu_us_ever();
        let since = self.since();
        let peak = since.memory_peak.as_ref().and_then(|file| {
            let mut text = [0u8; 32];
            let length = file.read_at(&mut text, 0).ok()?;
            stats::number(std::str::from_utf8(text.get(..length)?).ok()?)
        });
        Usage { cpu_us: cpu_us.map(|now| now.saturating_sub(since.cpu_us)), memory_peak_bytes: peak }
    }

    /// How many bytes of memory are charged to it now.
    pub(crate) fn memory_now(&self) -> Result<u64, CgroupFileError> {
        let (hierarchy, file) = self.version.memory_now();
        stats::number(&self.read(hierarchy, file)?).ok_or_else(|| missing(hierarchy, file, "N"))
    }

    /// Has the kernel take back what can be taken back of `bytes`. Blocks for as long as that takes.
    pub(crate) fn reclaim(&self, bytes: u64) -> Result<(), CgroupFileError> {
        let (hierarchy, file, value) = self.version.memory_reclaim(bytes);
        match self.write(hierarchy, file, &value) {
            // Not all of it could be: whoever asks looks for himself. Or the kernel has no such file (v2 before 5.19).
            Err(error)
                if matches!(
                    error.source.raw_os_error(),
                    Some(libc::EAGAIN | libc::EBUSY | libc::EINTR | libc::ENOENT)
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Takes the limit of CPU time away.
    pub(crate) fn lift_cpu_limit(&self) -> Result<(), CgroupFileError> {
        let (hierarchy, file, value) = self.version.cpu_unlimited();
        self.write(hierarchy, file, value)
    }

    /// Stops or lets go every process of the slot (`cgroup.freeze`).
    pub(crate) fn freeze(&self, frozen: bool) -> Result<(), CgroupFileError> {
        self.write(Hierarchy::Unified, "cgroup.freeze", if frozen { "1" } else { "0" })
    }

    /// Whether they were told to stop.
    pub(crate) fn is_told_to_freeze(&self) -> Result<bool, CgroupFileError> {
        Ok(self.read(Hierarchy::Unified, "cgroup.freeze")?.trim() == "1")
    }

    /// Whether they have all come to a stop.
    pub(crate) fn is_frozen(&self) -> Result<bool, CgroupFileError> {
        const FILE: &str = "cgroup.events";
        let text = self.read(Hierarchy::Unified, FILE)?;
        stats::keyed(&text, "frozen")
            .map(|frozen| frozen == 1)
            .ok_or_else(|| missing(Hierarchy::Unified, FILE, "frozen"))
    }

    fn since(&self) -> std::sync::MutexGuard<'_, Since> {
        // No code panics while it holds the lock halfway through a change.
        self.since.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// CPU time of all processes that ever were in the slot, where the v2 tree is there to count it.
    pub(crate) fn cpu_us_ever(&self) -> Option<u64> {
        stats::cpu_us(&self.read(Hierarchy::Unified, stats::CPU).ok()?)
    }

    fn oom_kills_ever(&self) -> Result<u64, CgroupFileError> {
        const KEY: &str = "oom_kill";
        let (hierarchy, file) = self.version.oom_counter();
        stats::keyed(&self.read(hierarchy, file)?, KEY).ok_or_else(|| missing(hierarchy, file, KEY))
    }

    fn read(&self, hierarchy: Hierarchy, file: &'static str) -> Result<String, CgroupFileError> {
        let mut text = String::new();
        self.open_file(hierarchy, file, OFlags::RDONLY)
            .and_then(|mut file| file.read_to_string(&mut text))
            .map_err(|source| CgroupFileError { hierarchy, file, source })?;
        Ok(text)
    }

    fn write(&self, hierarchy: Hierarchy, file: &'static str, value: &str) -> Result<(), CgroupFileError> {
        self.open_file(hierarchy, file, OFlags::WRONLY)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|source| CgroupFileError { hierarchy, file, source })
    }

    fn open_file(&self, hierarchy: Hierarchy, file: &str, flags: OFlags) -> io::Result<File> {
        let dir = self
            .dirs
            .iter()
            .find_map(|(h, dir)| (*h == hierarchy).then_some(dir))
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(rustix::fs::openat(dir, file, flags | OFlags::CLOEXEC, Mode::empty())?.into())
    }
}

fn missing(hierarchy: Hierarchy, file: &'static str, key: &str) -> CgroupFileError {
    let source = io::Error::new(io::ErrorKind::InvalidData, format!("it has no line {key}"));
    CgroupFileError { hierarchy, file, source }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Counted, LimitsError, SlotCgroup};
    use crate::native::cgroup::plan::{CgroupPlan, Place};
    use crate::native::cgroup::{CgroupHost, fixture};
    use crate::sandbox::Limits;

    #[test]
    fn v2_counts_from_where_a_sandbox_began() {
        let dir = fixture(&[
            ("cgroup.controllers", "cpu memory pids\n"),
            ("cgroup.subtree_control", "cpu memory pids\n"),
            ("faas-x/cgroup.controllers", "cpu memory pids\n"),
            ("faas-x/cgroup.subtree_control", "cpu memory pids\n"),
            ("faas-x/slot-0/memory.events", "oom 1\noom_kill 1\n"),
            ("faas-x/slot-0/cpu.stat", "usage_usec 1000\n"),
            ("faas-x/slot-0/cgroup.events", "populated 1\nfrozen 0\n"),
            ("faas-x/slot-0/cgroup.freeze", "0\n"),
            ("faas-x/slot-0/memory.max", ""),
            ("faas-x/slot-0/pids.max", ""),
            ("faas-x/slot-0/cpu.max", ""),
        ]);
        let mounts = BTreeMap::from([(String::new(), dir.clone())]);
        let host = CgroupHost::open(&CgroupPlan::of(&mounts, &Place::Top, "faas-x").unwrap()).unwrap();
        let slot = SlotCgroup::open(&host, 0).unwrap();
        assert!(slot.birth_place().is_some());
        slot.limit(&Limits { memory_bytes: 8 << 20, cpu_millicores: 500, pids: 9, disk_bytes: None })
            .unwrap();
        let file = |name: &str| dir.join("faas-x/slot-0").join(name);
        assert_eq!(std::fs::read_to_string(file("pids.max")).unwrap().lines().next(), Some("9"));
        slot.begin().unwrap();
        assert_eq!(slot.oom_kills().unwrap(), 0);
        std::fs::write(file("memory.events"), "oom 2\noom_kill 3\n").unwrap();
        std::fs::write(file("cpu.stat"), "usage_usec 1500\n").unwrap();
        assert_eq!(slot.oom_kills().unwrap(), 2);
        assert_eq!(slot.usage().cpu_us, Some(500));
        assert_eq!(slot.usage().memory_peak_bytes, None, "there is no such file");
        slot.freeze(true).unwrap();
        assert!(std::fs::read_to_string(file("cgroup.freeze")).unwrap().starts_with('1'));
        assert!(!slot.is_frozen().unwrap());
        assert!(slot.is_told_to_freeze().unwrap());
        // Whoever opens it later goes on where it was.
        let again = SlotCgroup::open(&host, 0).unwrap();
        assert_eq!(again.usage().cpu_us, Some(1500));
        again.resume(slot.counted());
        assert_eq!((again.usage().cpu_us, again.oom_kills().unwrap()), (Some(500), 2));
        std::fs::write(file("cgroup.procs"), "7\n42\n").unwrap();
        std::fs::write(file("pids.current"), "2\n").unwrap();
        assert!(again.holds(42).unwrap() && !again.holds(4).unwrap());
        assert_eq!(again.pids_now().unwrap(), 2);
        std::fs::remove_dir_all(dir).unwrap();
    }

    const SMALL: Limits = Limits { memory_bytes: 8 << 20, cpu_millicores: 500, pids: 9, disk_bytes: None };

    #[test]
    fn v2_refuses_a_memory_limit_below_what_is_held_and_changes_nothing() {
        let dir = fixture(&[
            ("cgroup.controllers", "cpu memory pids\n"),
            ("cgroup.subtree_control", "cpu memory pids\n"),
            ("faas-x/cgroup.controllers", "cpu memory pids\n"),
            ("faas-x/cgroup.subtree_control", "cpu memory pids\n"),
            ("faas-x/slot-0/memory.current", "9000000\n"),
            ("faas-x/slot-0/memory.max", "16777216\n"),
            ("faas-x/slot-0/memory.reclaim", ""),
            ("faas-x/slot-0/pids.max", ""),
            ("faas-x/slot-0/cpu.max", ""),
        ]);
        let mounts = BTreeMap::from([(String::new(), dir.clone())]);
        let host = CgroupHost::open(&CgroupPlan::of(&mounts, &Place::Top, "faas-x").unwrap()).unwrap();
        let slot = SlotCgroup::open(&host, 0).unwrap();
        let old = Limits { memory_bytes: 16 << 20, ..SMALL };
        let error = slot.change_limits(&old, &SMALL).unwrap_err();
        assert!(matches!(error, LimitsError::InUse(9_000_000)), "{error}");
        let file = |name: &str| dir.join("faas-x/slot-0").join(name);
        assert_eq!(std::fs::read_to_string(file("memory.max")).unwrap(), "16777216\n");
        assert_eq!(std::fs::read_to_string(file("memory.reclaim")).unwrap(), "611392");
        std::fs::write(file("memory.current"), "8000000\n").unwrap();
        slot.change_limits(&old, &SMALL).unwrap();
        assert!(std::fs::read_to_string(file("memory.max")).unwrap().starts_with("8388608"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn v1_counts_and_limits_in_three_hierarchies() {
        let dir = fixture(&[
            ("memory/x", ""),
            ("pids/x", ""),
            ("cpu/x", ""),
            ("memory/faas-x/slot-0/memory.usage_in_bytes", "5000000\n"),
            ("memory/faas-x/slot-0/memory.max_usage_in_bytes", "6000000\n"),
            ("memory/faas-x/slot-0/memory.limit_in_bytes", ""),
            ("memory/faas-x/slot-0/cgroup.procs", "42\n"),
            ("pids/faas-x/slot-0/pids.current", "3\n"),
            ("pids/faas-x/slot-0/pids.max", ""),
            ("pids/faas-x/slot-0/cgroup.procs", "42\n"),
            ("cpu/faas-x/slot-0/cpu.cfs_period_us", ""),
            ("cpu/faas-x/slot-0/cpu.cfs_quota_us", ""),
            ("cpu/faas-x/slot-0/cgroup.procs", ""),
        ]);
        let mounts: BTreeMap<_, _> =
            ["memory", "pids", "cpu"].into_iter().map(|c| (c.to_owned(), dir.join(c))).collect();
        let host = CgroupHost::open(&CgroupPlan::of(&mounts, &Place::Top, "faas-x").unwrap()).unwrap();
        let slot = SlotCgroup::open(&host, 0).unwrap();
        slot.resume(Counted::default());
        assert_eq!(slot.usage().memory_peak_bytes, Some(6_000_000), "it is everybody's there");
        assert_eq!((slot.memory_now().unwrap(), slot.pids_now().unwrap()), (5_000_000, 3));
        assert!(slot.counts_its_maker());
        assert!(!slot.holds(42).unwrap(), "it is missing in one of them");
        slot.change_limits(&SMALL, &Limits { pids: 20, ..SMALL }).unwrap();
        let pids = std::fs::read_to_string(dir.join("pids/faas-x/slot-0/pids.max")).unwrap();
        assert_eq!(pids, "21");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
