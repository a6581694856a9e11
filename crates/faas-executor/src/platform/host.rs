//! The host's own size: what no limit of a sandbox can exceed.

use crate::sandbox::Limits;

/// The kernel's bound on PIDs, where it cannot be read.
const DEFAULT_PID_MAX: u32 = 32_768;

/// The largest limits that mean anything on this host: its memory, its cores, its PIDs. `disk_bytes` is `None`: how
/// much disk there is depends on where it is taken from.
#[must_use]
pub fn limits() -> Limits {
    let memory_bytes =
        std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_memory_bytes(&text));
    let pid_max =
        std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| text.trim().parse().ok());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Limits {
        memory_bytes: memory_bytes.unwrap_or(u64::MAX),
        cpu_millicores: u32::try_from(cores).unwrap_or(u32::MAX).saturating_mul(1000),
        pids: pid_max.unwrap_or(DEFAULT_PID_MAX),
        disk_bytes: None,
    }
}

/// `MemTotal` of `/proc/meminfo` (proc_meminfo(5)), which counts in KiB.
fn total_memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::total_memory_bytes;

    #[test]
    fn total_memory_is_read() {
        assert_eq!(
            total_memory_bytes("MemTotal:       24684084 kB\nMemFree: 1 kB\n"),
            Some(24_684_084 << 10)
        );
        assert_eq!(total_memory_bytes("MemFree: 1 kB\n"), None);
    }
}
