//! Control groups of native sandboxes: where they are, how a slot's process enters them, how limits are set.
//!
//! Every slot of the launcher has one directory in each hierarchy that matters, under a directory named for the
//! gateway. Two versions of the kernel's interface stand behind [`Version`]: cgroup v1 (one hierarchy for each
//! controller, Documentation/admin-guide/cgroup-v1) and v2 (one for all, Documentation/admin-guide/cgroup-v2.rst).
//! On hybrid hosts, v1 with an empty v2 tree beside it, the v2 directory is made too: it is what can freeze a whole
//! sandbox at once.

mod host;
mod plan;
mod slot;
mod v1;
mod v2;

use serde::{Deserialize, Serialize};

use crate::sandbox::Limits;

pub(crate) use host::CgroupHost;
pub(crate) use plan::CgroupPlan;
pub(crate) use slot::{CgroupFileError, Counted, LimitsError, SlotCgroup};
pub(crate) use v1::V1;
pub(crate) use v2::V2;

/// A hierarchy that holds a directory of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Hierarchy {
    /// The v1 controller `memory`.
    Memory,
    /// The v1 controller `pids`.
    Pids,
    /// The v1 controller `cpu`.
    Cpu,
    /// The v2 tree.
    Unified,
}

/// One value to be written into one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) hierarchy: Hierarchy,
    pub(crate) file: &'static str,
    pub(crate) value: String,
    /// Whether a kernel may lack the file: swap accounting can be compiled out or off, and then there is no swap to
    /// be limited in this group or it cannot be limited at all.
    pub(crate) may_be_absent: bool,
}

/// The period over which CPU time is shared out, in microseconds; the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;

/// The least CPU time in a period that the kernel takes, in microseconds.
const MIN_CPU_QUOTA_US: u64 = 1_000;

fn cpu_quota_us(limits: &Limits) -> u64 {
    (u64::from(limits.cpu_millicores) * CPU_PERIOD_US / 1000).max(MIN_CPU_QUOTA_US)
}

/// The rules of one version of the interface. No I/O.
pub(crate) trait Version: std::fmt::Debug + Sync {
    /// The files that limit a slot, in the order in which they are to be written whatever they held before.
    fn settings(&self, limits: &Limits) -> Vec<Setting>;

    /// The file with a line `oom_kill N`: how many processes the kernel has killed there for want of memory.
    fn oom_counter(&self) -> (Hierarchy, &'static str);

    /// The file with the most memory there ever was, which can be set back by writing [`Version::peak_reset`].
    fn memory_peak(&self) -> (Hierarchy, &'static str);

    /// See [`Version::memory_peak`].
    fn peak_reset(&self) -> &'static [u8];

    /// The file with the memory that there is now.
    fn memory_now(&self) -> (Hierarchy, &'static str);

    /// Whether setting the peak back is seen by everybody who reads it, and not by the descriptor alone that did.
    fn peak_is_shared(&self) -> bool;

    /// Whether the kernel refuses a memory limit below what there is and cannot be taken back, instead of killing
    /// processes until it fits.
    fn refuses_memory_below_use(&self) -> bool;

    /// The file with the number of processes and threads that there are now.
    fn pids_now(&self) -> (Hierarchy, &'static str);

    /// The file that gives memory back when this is written to it: what a sandbox left, before the next one comes.
    fn memory_reclaim(&self, bytes: u64) -> (Hierarchy, &'static str, String);

    /// The file that limits CPU time, and what lifts the limit.
    fn cpu_unlimited(&self) -> (Hierarchy, &'static str, &'static str);

    /// Whether a sandbox comes into its cgroups by being made from within them. Where not, clone3(2) puts it there,
    /// and its maker stays outside.
    fn inherits(&self) -> bool;
}

/// Files in a temporary directory that stand for those of the kernel.
#[cfg(test)]
fn fixture(files: &[(&str, &str)]) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("cgroup-fixture-{}", uuid::Uuid::now_v7().simple()));
    for (path, text) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

#[cfg(test)]
mod tests {
    use super::{Hierarchy, Setting, V1, V2, Version};
    use crate::sandbox::Limits;

    const LIMITS: Limits =
        Limits { memory_bytes: 64 << 20, cpu_millicores: 1500, pids: 32, disk_bytes: None };

    fn value<'a>(settings: &'a [Setting], hierarchy: Hierarchy, file: &str) -> Vec<&'a str> {
        settings
            .iter()
            .filter(|s| s.hierarchy == hierarchy && s.file == file)
            .map(|s| s.value.as_str())
            .collect()
    }

    #[test]
    fn v1_raises_the_swap_limit_before_the_memory_limit_and_lowers_it_after() {
        let settings = V1.settings(&LIMITS);
        let memory: Vec<_> = settings
            .iter()
            .filter(|s| s.hierarchy == Hierarchy::Memory)
            .map(|s| (s.file, s.value.as_str()))
            .collect();
        assert_eq!(
            memory,
            [
                ("memory.memsw.limit_in_bytes", "-1"),
                ("memory.limit_in_bytes", "67108864"),
                ("memory.memsw.limit_in_bytes", "67108864"),
                ("memory.kmem.tcp.limit_in_bytes", "16777216"),
            ]
        );
        assert_eq!(value(&settings, Hierarchy::Cpu, "cpu.cfs_quota_us"), ["150000"]);
        assert_eq!(value(&settings, Hierarchy::Pids, "pids.max"), ["33"]);
    }

    #[test]
    fn v2_limits_memory_swap_cpu_and_pids() {
        let settings = V2.settings(&LIMITS);
        assert_eq!(value(&settings, Hierarchy::Unified, "memory.max"), ["67108864"]);
        assert_eq!(value(&settings, Hierarchy::Unified, "memory.swap.max"), ["0"]);
        assert_eq!(value(&settings, Hierarchy::Unified, "cpu.max"), ["150000 100000"]);
        assert_eq!(value(&settings, Hierarchy::Unified, "pids.max"), ["32"]);
    }

    #[test]
    fn the_least_cpu_share_is_one_the_kernel_takes() {
        let limits = Limits { cpu_millicores: 1, ..LIMITS };
        assert_eq!(value(&V2.settings(&limits), Hierarchy::Unified, "cpu.max"), ["1000 100000"]);
    }
}
