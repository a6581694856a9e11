//! Instances as clients are told of them.

use faas_executor::InstanceInfo;
use faas_executor::sandbox::Measures;
use faas_types::{Instance, InstanceMetrics, Resources};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::execution_info;

const MIB: u64 = 1 << 20;

/// Milliseconds since 1970 as RFC 3339 has them, in UTC.
pub(crate) fn timestamp(unix_ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000);
    // A clock beyond the year 9999 has no such form.
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

/// An instance as it is shown.
pub(crate) fn instance(info: InstanceInfo) -> Instance {
    let cpu_cores = f64::from(info.limits.cpu_millicores) / 1000.0;
    let (memory_mb, disk_mb) =
        (info.limits.memory_bytes / MIB, info.limits.disk_bytes.map(|bytes| bytes / MIB));
    let main = execution_info::main_command(&info);
    Instance {
        expires_at: info.expires_at_ms().map(timestamp),
        id: info.id,
        name: info.name,
        image: info.image,
        runtime: info.runtime,
        status: info.state.shown(),
        status_reason: info.reason,
        created_at: timestamp(info.created_at_ms),
        cpu_cores,
        memory_mb,
        pids_limit: info.limits.pids,
        disk_mb,
        network: info.network,
        labels: info.labels,
        parent_id: info.parent_id,
        snapshot_id: info.snapshot_id,
        ttl_ms: info.times.ttl_ms,
        idle_timeout_ms: info.times.idle_timeout_ms,
        on_timeout: info.times.on_timeout,
        auto_resume: info.times.auto_resume,
        main,
        resources: Resources { cpu_cores, memory_mb, disk_mb },
    }
}

/// What it uses as it is shown.
pub(crate) fn metrics(info: &InstanceInfo, measures: Measures) -> InstanceMetrics {
    InstanceMetrics {
        instance_id: info.id.clone(),
        status: info.state.shown(),
        cpu_us: measures.cpu_us,
        memory_bytes: measures.memory_bytes,
        memory_peak_bytes: measures.memory_peak_bytes,
        memory_limit_bytes: info.limits.memory_bytes,
        pids: measures.pids,
        pids_limit: info.limits.pids,
        disk_bytes: measures.disk_bytes,
        network_received_bytes: measures.network_received_bytes,
        network_sent_bytes: measures.network_sent_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }
}
