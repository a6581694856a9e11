//! What a container uses now: from its cgroups and its network namespace where this host has them, else from the engine.

use std::time::{Duration, Instant};

use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::{InspectContainerOptionsBuilder, StatsOptionsBuilder};
use futures_util::StreamExt as _;

use super::client::{CallError, Client, SLOW};
use super::executor::DockerHandle;
use crate::sandbox::Measures;

/// How much longer than it took to find out is the size of a container's files taken for the same. The engine looks at
/// each file for it, so that this bounds what it spends.
const WORTH: u32 = 10;

/// The size of a container's files when the engine was last asked.
#[derive(Debug, Default)]
pub(super) struct DiskUse(tokio::sync::Mutex<Option<Seen>>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    took: Duration,
    bytes: Option<u64>,
}

impl DiskUse {
    async fn get(&self, client: &Client, container: &str) -> Result<Option<u64>, CallError> {
        let mut seen = self.0.lock().await;
        if let Some(seen) = *seen
            && seen.at.elapsed() < seen.took * WORTH
        {
            return Ok(seen.bytes);
        }
        let begun = Instant::now();
        let options = InspectContainerOptionsBuilder::default().size(true).build();
        let inspected = client.docker.inspect_container(container, Some(options));
        let inspected = client.call("tell the size of a container", SLOW, inspected).await?;
        let bytes = inspected.size_rw.and_then(|bytes| u64::try_from(bytes).ok());
        *seen = Some(Seen { at: Instant::now(), took: begun.elapsed(), bytes });
        Ok(bytes)
    }
}

/// What `handle`'s container uses.
pub(super) async fn measure(client: &Client, handle: &DockerHandle) -> Result<Measures, CallError> {
    let mut measures = match seen_here(handle) {
        Some(measures) => measures,
        None => told(&stats(client, &handle.container).await?),
    };
    measures.disk_bytes = handle.disk.get(client, &handle.container).await?;
    Ok(measures)
}

#[cfg(target_os = "linux")]
fn seen_here(handle: &DockerHandle) -> Option<Measures> {
    let mut measures = handle.counters.as_ref()?.measures()?;
    if let Some((received, sent)) = handle.init.as_ref()?.network() {
        measures.network_received_bytes = Some(received);
        measures.network_sent_bytes = Some(sent);
    }
    Some(measures)
}

/// Elsewhere than on Linux there is nothing to be seen.
#[cfg(not(target_os = "linux"))]
fn seen_here(_handle: &DockerHandle) -> Option<Measures> {
    None
}

async fn stats(client: &Client, container: &str) -> Result<ContainerStatsResponse, CallError> {
    let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
    let first = async {
        let mut stats = std::pin::pin!(client.docker.stats(container, Some(options)));
        stats.next().await.transpose()
    };
    Ok(client.call("tell what a container uses", SLOW, first).await?.unwrap_or_default())
}

/// What an engine tells (Engine API, "Get container stats based on resource usage").
fn told(stats: &ContainerStatsResponse) -> Measures {
    let memory = stats.memory_stats.as_ref();
    let network = |bytes: fn(&bollard::models::ContainerNetworkStats) -> Option<u64>| {
        let all = stats.networks.as_ref()?;
        Some(all.values().filter_map(bytes).sum())
    };
    Measures {
        cpu_us: stats
            .cpu_stats
            .as_ref()
            .and_then(|cpu| cpu.cpu_usage.as_ref()?.total_usage)
            .map(|ns| ns / 1000),
        memory_bytes: memory.and_then(|memory| memory.usage),
        memory_peak_bytes: memory.and_then(|memory| memory.max_usage),
        pids: stats.pids_stats.as_ref().and_then(|pids| pids.current),
        disk_bytes: None,
        network_received_bytes: network(|network| network.rx_bytes),
        network_sent_bytes: network(|network| network.tx_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::told;
    use crate::sandbox::Measures;

    #[test]
    fn the_engines_numbers_are_taken_in_their_units() {
        let text = r#"{"cpu_stats":{"cpu_usage":{"total_usage":5000000}},
            "memory_stats":{"usage":4096,"max_usage":8192},"pids_stats":{"current":3},
            "networks":{"eth0":{"rx_bytes":10,"tx_bytes":20},"eth1":{"rx_bytes":1,"tx_bytes":2}}}"#;
        let expected = Measures {
            cpu_us: Some(5000),
            memory_bytes: Some(4096),
            memory_peak_bytes: Some(8192),
            pids: Some(3),
            disk_bytes: None,
            network_received_bytes: Some(11),
            network_sent_bytes: Some(22),
        };
        assert_eq!(told(&serde_json::from_str(text).unwrap()), expected);
        assert_eq!(told(&serde_json::from_str("{}").unwrap()), Measures::default());
    }
}
