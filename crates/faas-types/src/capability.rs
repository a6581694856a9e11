//! What each runtime can do on this host, probed and never assumed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Runtime;

/// The body of `GET /api/v1/capabilities`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Capabilities {
    /// The runtime that `auto` picks when nothing else is asked, or null where there is none.
    pub default_runtime: Option<Runtime>,
    /// The image that is used when none is named.
    pub default_image: String,
    /// Every runtime, by name.
    pub runtimes: BTreeMap<Runtime, RuntimeCapabilities>,
}

/// What one runtime can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuntimeCapabilities {
    /// Whether it can run a sandbox now.
    pub available: bool,
    /// Why it cannot, or null.
    pub reason: Option<String>,
    /// Optional abilities by name (`network_egress`, `checkpoint`, `branch`, `landlock`, ...).
    pub features: BTreeMap<String, LimitSupport>,
    /// Which limits are enforced.
    pub limits: LimitsSupport,
}

/// Whether one thing is there, and the reason where it is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitSupport {
    /// Whether it is there.
    pub supported: bool,
    /// How it is done where it is there (`cgroup v1`, `tmpfs`, ...), or why it is not.
    pub detail: String,
}

impl LimitSupport {
    /// It is there, done in this way.
    #[must_use]
    pub fn yes(detail: impl Into<String>) -> Self {
        Self { supported: true, detail: detail.into() }
    }

    /// It is not there, for this reason.
    #[must_use]
    pub fn no(reason: impl Into<String>) -> Self {
        Self { supported: false, detail: reason.into() }
    }
}

/// Which limits a runtime enforces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitsSupport {
    /// `memory_mb`.
    pub memory: LimitSupport,
    /// `cpu_cores`.
    pub cpu: LimitSupport,
    /// `pids_limit`.
    pub pids: LimitSupport,
    /// `disk_mb`.
    pub disk: LimitSupport,
}
