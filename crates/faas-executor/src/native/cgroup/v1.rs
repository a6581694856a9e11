//! cgroup v1: `memory`, `pids` and `cpu`, each in a hierarchy of its own.

use super::{CPU_PERIOD_US, Hierarchy, Setting, Version, cpu_quota_us};
use crate::sandbox::Limits;

/// The part of its memory limit that a sandbox may hold in sockets besides.
const SOCKET_SHARE: u64 = 4;

/// The rules of cgroup v1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct V1;

fn setting(hierarchy: Hierarchy, file: &'static str, value: impl ToString) -> Setting {
    Setting { hierarchy, file, value: value.to_string(), may_be_absent: false }
}

impl Version for V1 {
    fn settings(&self, limits: &Limits) -> Vec<Setting> {
        // Memory plus swap may never be below memory: first out of the way, then both down to the same value.
        let swap = |value: String| Setting {
            hierarchy: Hierarchy::Memory,
            file: "memory.memsw.limit_in_bytes",
            value,
            may_be_absent: true,
        };
        vec![
            swap("-1".to_owned()),
            setting(Hierarchy::Memory, "memory.limit_in_bytes", limits.memory_bytes),
            swap(limits.memory_bytes.to_string()),
            // What sockets hold of TCP and UDP is counted apart.
            Setting {
                hierarchy: Hierarchy::Memory,
                file: "memory.kmem.tcp.limit_in_bytes",
                value: (limits.memory_bytes / SOCKET_SHARE).to_string(),
                may_be_absent: true,
            },
            // The slot's own parked process counts too.
            setting(Hierarchy::Pids, "pids.max", u64::from(limits.pids) + 1),
            setting(Hierarchy::Cpu, "cpu.cfs_period_us", CPU_PERIOD_US),
            setting(Hierarchy::Cpu, "cpu.cfs_quota_us", cpu_quota_us(limits)),
        ]
    }

    fn oom_counter(&self) -> (Hierarchy, &'static str) {
        (Hierarchy::Memory, "memory.oom_control")
    }

    fn memory_peak(&self) -> (Hierarchy, &'static str) {
        (Hierarchy::Memory, "memory.max_usage_in_bytes")
    }

    fn peak_reset(&self) -> &'static [u8] {
        b"0"
    }

    fn memory_now(&self) -> (Hierarchy, &'static str) {
        (Hierarchy::Memory, "memory.usage_in_bytes")
    }

    fn peak_is_shared(&self) -> bool {
        true
    }

    fn refuses_memory_below_use(&self) -> bool {
        true
    }

    fn pids_now(&self) -> (Hierarchy, &'static str) {
        (Hierarchy::Pids, "pids.current")
    }

    fn memory_reclaim(&self, _bytes: u64) -> (Hierarchy, &'static str, String) {
        (Hierarchy::Memory, "memory.force_empty", "0".to_owned())
    }

    fn cpu_unlimited(&self) -> (Hierarchy, &'static str, &'static str) {
        (Hierarchy::Cpu, "cpu.cfs_quota_us", "-1")
    }

    fn inherits(&self) -> bool {
        true
    }
}
