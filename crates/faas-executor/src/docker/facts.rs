//! What an engine says of itself, as far as it decides what can be asked of it. No I/O.

use std::collections::BTreeSet;

use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum};
use faas_types::{LimitSupport, LimitsSupport};

/// The oldest API that is spoken: that of Docker 20.10.
pub(super) const MIN_API: (usize, usize) = (1, 41);

/// What an engine is and can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// What tells it from other engines: its id, and where it has its containers.
    pub(super) identity: String,
    /// Its version, and that of the API which both sides speak.
    pub(super) version: String,
    pub(super) api: String,
    pub(super) os_type: String,
    /// As `uname -m` says it.
    pub(super) architecture: String,
    /// Its host's name and kernel, to be compared with this one's.
    pub(super) host_name: String,
    pub(super) kernel: String,
    pub(super) operating_system: String,
    /// The storage driver and the file system below it.
    pub(super) storage: String,
    pub(super) backing: Option<String>,
    pub(super) memory_limit: bool,
    pub(super) swap_limit: bool,
    pub(super) cpu_limit: bool,
    pub(super) pids_limit: bool,
    pub(super) cgroup_v2: bool,
    /// How many cores its host has.
    pub(super) cores: i64,
    /// Whether it has a network `bridge`.
    pub(super) bridge: bool,
    pub(super) runtimes: BTreeSet<String>,
    pub(super) default_runtime: String,
    /// Whether containers go on while it is restarted.
    pub(super) live_restore: bool,
    /// The key of its default registry in a `config.json`.
    pub(super) default_registry: String,
}

impl Facts {
    pub(super) fn new(info: SystemInfo, api: String, bridge: bool) -> Self {
        let backing = info.driver_status.iter().flatten().find_map(|pair| match pair.as_slice() {
            [name, value] if name == "Backing Filesystem" => Some(value.clone()),
            _ => None,
        });
        let (id, root) = (info.id.unwrap_or_default(), info.docker_root_dir.unwrap_or_default());
        Self {
            identity: format!("{id} {root}"),
            version: info.server_version.unwrap_or_default(),
            api,
            os_type: info.os_type.unwrap_or_default(),
            architecture: info.architecture.unwrap_or_default(),
            host_name: info.name.unwrap_or_default(),
            kernel: info.kernel_version.unwrap_or_default(),
            operating_system: info.operating_system.unwrap_or_default(),
            storage: info.driver.unwrap_or_default(),
            backing,
            memory_limit: info.memory_limit.unwrap_or(false),
            swap_limit: info.swap_limit.unwrap_or(false),
            cpu_limit: info.cpu_cfs_quota.unwrap_or(false),
            pids_limit: info.pids_limit.unwrap_or(false),
            cgroup_v2: info.cgroup_version == Some(SystemInfoCgroupVersionEnum::_2),
            cores: info.ncpu.unwrap_or(1),
            bridge,
            runtimes: info.runtimes.unwrap_or_default().into_keys().collect(),
            default_runtime: info.default_runtime.unwrap_or_default(),
            live_restore: info.live_restore_enabled.unwrap_or(false),
            default_registry: info.index_server_address.unwrap_or_default(),
        }
    }

    /// Why the engine cannot be used at all with a guest agent for `architecture` and, where one is configured,
    /// `runtime`.
    pub(super) fn unusable(
        &self,
        api: (usize, usize),
        architecture: &str,
        runtime: Option<&str>,
    ) -> Option<String> {
        if api < MIN_API {
            let (major, minor) = MIN_API;
            return Some(format!(
                "the engine {} is too old: it speaks API {}, and {major}.{minor} (Docker 20.10) is needed; upgrade it",
                self.version, self.api
            ));
        }
        if self.os_type != "linux" {
            return Some(format!(
                "the engine runs containers of {:?}, and only Linux is supported",
                self.os_type
            ));
        }
        if self.architecture != architecture {
            return Some(format!(
                "the engine's host is {} and the server's guest agent is for {architecture}: use a server built for it",
                self.architecture
            ));
        }
        if let Some(runtime) = runtime.filter(|runtime| !self.runtimes.contains(*runtime)) {
            let known: Vec<_> = self.runtimes.iter().map(String::as_str).collect();
            return Some(format!(
                "the engine has no runtime {runtime:?}, it has {}: install and register it there, or change docker_runtime",
                known.join(", ")
            ));
        }
        None
    }

    /// Whether a container's file system can be given a size (dockerd(8), storage driver options), or why not.
    pub(super) fn disk(&self) -> LimitSupport {
        match (self.storage.as_str(), self.backing.as_deref()) {
            ("btrfs" | "zfs" | "devicemapper" | "windowsfilter", _) => {
                LimitSupport::yes(format!("the storage driver {}", self.storage))
            }
            ("overlay2", Some("xfs")) => {
                LimitSupport::yes("overlay2 on xfs, where that is mounted with pquota")
            }
            (driver, backing) => LimitSupport::no(format!(
                "the engine's storage driver {driver}{} has no quotas; overlay2 on xfs with pquota has them",
                backing.map(|name| format!(" on {name}")).unwrap_or_default()
            )),
        }
    }

    /// Whether a container can reach the outside.
    pub(super) fn egress(&self) -> LimitSupport {
        if self.bridge {
            LimitSupport::yes("the engine's default bridge")
        } else {
            LimitSupport::no("the engine has no network `bridge` (it was started with --bridge none)")
        }
    }

    pub(super) fn limits(&self) -> LimitsSupport {
        let cgroup = if self.cgroup_v2 { "cgroup v2" } else { "cgroup v1" };
        let by = |there: bool, what: &str| {
            if there {
                LimitSupport::yes(format!("the engine, {cgroup}"))
            } else {
                LimitSupport::no(format!("the engine's host cannot limit {what} ({cgroup})"))
            }
        };
        LimitsSupport {
            memory: match by(self.memory_limit, "memory") {
                memory if memory.supported && !self.swap_limit => {
                    LimitSupport::yes(format!("{}; swap is not limited there", memory.detail))
                }
                memory => memory,
            },
            cpu: by(self.cpu_limit, "CPU"),
            pids: by(self.pids_limit, "PIDs"),
            disk: self.disk(),
        }
    }

    /// Why the engine cannot be taken for one of this host, if it cannot. The host is told by its own name and kernel.
    pub(super) fn elsewhere(&self, host_name: &str, kernel: &str) -> Option<String> {
        if self.operating_system.contains("Docker Desktop") {
            return Some("Docker Desktop runs its engine in a virtual machine".to_owned());
        }
        (self.host_name != host_name || self.kernel != kernel).then(|| {
            format!(
                "the engine's host ({}, kernel {}) is not this one ({host_name}, kernel {kernel})",
                self.host_name, self.kernel
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bollard::models::{Runtime, SystemInfo};

    use super::{Facts, MIN_API};

    fn facts() -> Facts {
        let info = SystemInfo {
            server_version: Some("20.10.24".into()),
            os_type: Some("linux".into()),
            architecture: Some("x86_64".into()),
            name: Some("vm".into()),
            kernel_version: Some("6.1".into()),
            driver: Some("overlay2".into()),
            driver_status: Some(vec![vec!["Backing Filesystem".into(), "extfs".into()]]),
            memory_limit: Some(true),
            pids_limit: Some(true),
            cpu_cfs_quota: Some(true),
            runtimes: Some(HashMap::from([("runc".to_owned(), Runtime::default())])),
            ..SystemInfo::default()
        };
        Facts::new(info, "1.41".into(), false)
    }

    #[test]
    fn a_good_engine_is_usable() {
        assert_eq!(facts().unusable(MIN_API, "x86_64", Some("runc")), None);
        assert!(facts().limits().memory.supported && facts().limits().memory.detail.contains("swap"));
    }

    #[test]
    fn what_makes_an_engine_unusable_is_said_with_what_to_do() {
        let reason = |facts: Facts, api, runtime| facts.unusable(api, "x86_64", runtime).unwrap();
        assert!(reason(facts(), (1, 40), None).contains("too old"));
        assert!(reason(Facts { os_type: "windows".into(), ..facts() }, MIN_API, None).contains("windows"));
        assert!(
            reason(Facts { architecture: "aarch64".into(), ..facts() }, MIN_API, None).contains("aarch64")
        );
        assert!(reason(facts(), MIN_API, Some("runsc")).contains("it has runc"));
    }

    #[test]
    fn a_disk_limit_takes_a_driver_that_has_quotas() {
        assert!(!facts().disk().supported);
        assert!(facts().disk().detail.contains("overlay2 on extfs"));
        assert!(Facts { backing: Some("xfs".into()), ..facts() }.disk().supported);
        assert!(Facts { storage: "zfs".into(), ..facts() }.disk().supported);
    }

    #[test]
    fn an_engine_elsewhere_is_told_from_one_here() {
        assert_eq!(facts().elsewhere("vm", "6.1"), None);
        assert!(facts().elsewhere("other", "6.1").is_some());
        assert!(facts().elsewhere("vm", "6.2").is_some());
        let desktop = Facts { operating_system: "Docker Desktop".into(), ..facts() };
        assert!(desktop.elsewhere("vm", "6.1").unwrap().contains("virtual machine"));
    }
}
