//! cgroup v2: all controllers in one tree.

use super::{CPU_PERIOD_US, Hierarchy, Setting, Version, cpu_quota_us};
use crate::sandbox::Limits;

/// The rules of cgroup v2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct V2;

fn setting(file: &'static str, value: impl ToString) -> Setting {
    Setting { hierarchy: Hierarchy::Unified, file, value: value.to_string(), may_be_absent: false }
}

impl Version for V2 {
    fn settings(&self, limits: &Limits) -> Vec<Setting> {
        vec![
            setting("memory.max", limits.memory_bytes),
            Setting { may_be_absent: true, ..setting("memory.swap.max", 0) },
            setting("pids.max", limits.pids),
            setting("cpu.max", format!("{} {CPU_PERIOD_US}", cpu_quota_us(limits))),
        ]
    }

    fn oom_counter(&self) -> (Hierarchy, &'static str) {
        (Hierarchy::Unified, "memory.events")
    }

    fn memory_peak(&self) -> (Hierarchy, &'static str) {
        (Hierarchy::Unified, "memory.peak")
    }

    fn peak_reset(&self) -> &'static [u8] {
        b"reset"
    }

    fn memory_now(&self) -> (Hierarchy, &'static str) {
        (Hierarchy::Unified, "memory.current")
    }

    fn peak_is_shared(&self) -> bool {
        false
    }

    fn refuses_memory_below_use(&self) -> bool {
        false
    }

    fn pids_now(&self) -> (Hierarchy, &'static str) {
        (Hierarchy::Unified, "pids.current")
    }

    fn memory_reclaim(&self, bytes: u64) -> (Hierarchy, &'static str, String) {
        (Hierarchy::Unified, "memory.reclaim", bytes.to_string())
    }

    fn cpu_unlimited(&self) -> (Hierarchy, &'static str, &'static str) {
        (Hierarchy::Unified, "cpu.max", "max")
    }

    fn inherits(&self) -> bool {
        false
    }
}
