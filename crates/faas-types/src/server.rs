//! What the server says of itself: `/health` and `/version`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Runtime;

/// Whether the server as a whole can work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// At least one runtime is available and nothing that was configured is missing.
    Healthy,
    /// It works, with less than was configured.
    Degraded,
    /// It cannot run a sandbox.
    Unhealthy,
}

/// The body of `GET /health`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// The whole in one word.
    pub status: HealthStatus,
    /// The server's version.
    pub version: String,
    /// Milliseconds since the server started.
    pub uptime_ms: u64,
    /// Every runtime, with the reason where it is not available.
    pub runtimes: BTreeMap<Runtime, RuntimeHealth>,
    /// Where what lasts is kept.
    pub store: StoreHealth,
    /// Whether the runtime `docker` is available.
    pub docker: bool,
    /// Whether the runtime `firecracker` is available.
    pub firecracker: bool,
}

/// The store in `GET /health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreHealth {
    /// The kind of database: `sqlite` or `postgresql`.
    pub kind: String,
    /// Whether it answers now. Without it executions run; what needs it is refused as `overloaded`.
    pub available: bool,
    /// Why it does not, or null.
    pub reason: Option<String>,
}

/// One runtime in `GET /health`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RuntimeHealth {
    /// Whether it can run a sandbox now.
    pub available: bool,
    /// Why it cannot, or null.
    pub reason: Option<String>,
    /// Limits that are not enforced here, each with the reason.
    pub unenforced_limits: Vec<String>,
}

/// Something on the host that bears this gateway's mark and belongs to nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeakInfo {
    /// The runtime that it comes from.
    pub runtime: Runtime,
    /// What it is: `cgroup`, `process`, `directory`, `container`, ...
    pub kind: String,
    /// Its path, number or name on the host.
    pub name: String,
}

/// The body of `GET /version`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VersionInfo {
    /// The server's version.
    pub version: String,
    /// The version of the HTTP contract.
    pub api: String,
    /// The version of the frames spoken with the guest agent.
    pub guest_protocol: u8,
    /// The digest of the guest agent that this server puts into sandboxes.
    pub guest_agent: String,
}
