//! What the engine is told to make: the container of one sandbox, with everything that holds it. No I/O.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount,
    MountType, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use faas_types::{GatewayId, Network};

use super::labels;
use super::transport::Transport;
use crate::sandbox::SandboxSpec;

/// Where the agent's directory is in a container.
pub(super) const AGENT_DIR: &str = "/.faas";

/// What a container keeps of root's capabilities: the fourteen that engines leave to a container of theirs by default,
/// and native sandboxes to theirs. Named, so that an engine set up to leave more does not.
const CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The file systems that a container gets in memory, with their options (mount(8), tmpfs). What is in them counts
/// against its memory limit.
const TMPFS: [(&str, &str); 2] = [
    // The agent's socket.
    ("/.faas/run", "rw,noexec,nosuid,nodev,size=65536,mode=0700"),
    // Secrets never reach a disk.
    ("/run/secrets", "rw,noexec,nosuid,nodev,size=16777216,mode=0755"),
];

/// `RLIMIT_*` (getrlimit(2)). At a core limit of 1 the kernel does not start the host's program for crashes either, as
/// it does at 0 (core(5)). The limit of descriptors stays the engine's: a container cannot be given a higher one than the
/// engine has, and nothing tells what that is.
const ULIMITS: [(&str, i64, i64); 1] = [("core", 1, 1)];

/// The most bytes of `/dev/shm`.
const SHM_BYTES: u64 = 64 << 20;

/// Whose container it is, and what of the server's set-up it depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    pub(super) gateway: &'a GatewayId,
    pub(super) data_dir: &'a Path,
    /// The directory on this host that holds the agent.
    pub(super) agent_dir: &'a Path,
    /// The engine's runtime, where one is configured.
    pub(super) runtime: Option<&'a str>,
}

fn signed(value: u64) -> Option<i64> {
    Some(i64::try_from(value).unwrap_or(i64::MAX))
}

/// The container of a sandbox.
pub(super) fn body(spec: &SandboxSpec, owner: Owner<'_>, transport: Transport) -> ContainerCreateBody {
    let attach = transport == Transport::Attach;
    let command: &[&str] = if attach { &["init", "--stdio"] } else { &["init"] };
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        hostname: Some(spec.id.to_string()),
        labels: Some(labels::of(owner.gateway, &spec.id, owner.data_dir, spec.lifetime)),
        entrypoint: Some(vec![format!("{AGENT_DIR}/agent")]),
        cmd: Some(command.iter().map(ToString::to_string).collect()),
        // Beyond `none`, which the engine attaches to like any other network, by a program that it starts for each
        // container: half of the time that a start takes. The runtime alone gives it a loopback device.
        network_disabled: Some(spec.network == Network::None),
        // The agent switches to the user of each execution by itself.
        user: Some("0:0".to_owned()),
        attach_stdin: Some(attach),
        attach_stdout: Some(attach),
        attach_stderr: Some(false),
        open_stdin: Some(attach),
        // The agent's input ends with the connection to the engine, and the sandbox with that.
        stdin_once: Some(attach),
        tty: Some(false),
        // What an image would have run in it now and then.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        // An engine that shuts down does not wait for it.
        stop_signal: Some("SIGKILL".to_owned()),
        stop_timeout: Some(0),
        host_config: Some(host_config(spec, owner, transport)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &SandboxSpec, owner: Owner<'_>, transport: Transport) -> HostConfig {
    let limits = &spec.limits;
    let memory = signed(limits.memory_bytes);
    // Through the engine the agent is copied into the container; from this host it is mounted, for reading alone.
    let mounts = (transport == Transport::Socket).then(|| {
        vec![Mount {
            typ: Some(MountType::BIND),
            source: Some(owner.agent_dir.display().to_string()),
            target: Some(AGENT_DIR.to_owned()),
            read_only: Some(true),
            ..Mount::default()
        }]
    });
    let network = match spec.network {
        Network::None => "none",
        Network::Egress => "bridge",
    };
    HostConfig {
        memory,
        // Memory and swap together: no swap.
        memory_swap: memory,
        nano_cpus: Some(i64::from(limits.cpu_millicores) * 1_000_000),
        pids_limit: Some(i64::from(limits.pids)),
        storage_opt: limits.disk_bytes.map(|bytes| HashMap::from([("size".to_owned(), bytes.to_string())])),
        shm_size: signed(SHM_BYTES.min(limits.memory_bytes / 2)),
        ulimits: Some(ULIMITS.iter().map(|(name, soft, hard)| ulimit(name, *soft, *hard)).collect()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(CAPABILITIES.iter().map(ToString::to_string).collect()),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        privileged: Some(false),
        network_mode: Some(network.to_owned()),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        mounts,
        tmpfs: Some(TMPFS.iter().map(|(path, options)| (path.to_string(), options.to_string())).collect()),
        // Output goes to the agent. Whatever else is said to standard output is nobody's, and no file of the engine's.
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        // The agent is the init.
        init: Some(false),
        runtime: owner.runtime.map(str::to_owned),
        ..HostConfig::default()
    }
}

fn ulimit(name: &str, soft: i64, hard: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(soft), hard: Some(hard) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bollard::models::HostConfig;
    use faas_types::{GatewayId, Network, SandboxId};

    use super::{Owner, body};
    use crate::docker::transport::Transport;
    use crate::sandbox::{Limits, SandboxSpec};

    fn made(transport: Transport, network: Network) -> bollard::models::ContainerCreateBody {
        let limits =
            Limits { memory_bytes: 64 << 20, cpu_millicores: 1500, pids: 32, disk_bytes: Some(1 << 30) };
        let spec = SandboxSpec::new(SandboxId("sb-1".into()), "alpine".into(), limits, network);
        let owner = Owner {
            gateway: &GatewayId("g".into()),
            data_dir: Path::new("/d"),
            agent_dir: Path::new("/d/docker/agent/x"),
            runtime: Some("runsc"),
        };
        body(&spec, owner, transport)
    }

    #[test]
    fn every_limit_is_the_engines_to_enforce() {
        let host: HostConfig = made(Transport::Socket, Network::None).host_config.unwrap();
        assert_eq!((host.memory, host.memory_swap), (Some(64 << 20), Some(64 << 20)));
        assert_eq!((host.nano_cpus, host.pids_limit), (Some(1_500_000_000), Some(32)));
        assert_eq!(host.storage_opt.unwrap()["size"], "1073741824");
        assert_eq!(host.runtime.as_deref(), Some("runsc"));
        assert_eq!(host.shm_size, Some(32 << 20));
    }

    #[test]
    fn nothing_is_privileged_and_no_host_directory_can_be_written() {
        for (transport, network, name) in [
            (Transport::Socket, Network::None, "none"),
            (Transport::Attach, Network::None, "none"),
            (Transport::Socket, Network::Egress, "bridge"),
        ] {
            let host: HostConfig = made(transport, network).host_config.unwrap();
            assert_eq!(host.privileged, Some(false));
            assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
            assert!(!host.cap_add.unwrap().iter().any(|name| name.contains("ADMIN") || name == "ALL"));
            assert_eq!(host.security_opt, Some(vec!["no-new-privileges:true".to_owned()]));
            assert_eq!(host.network_mode.as_deref(), Some(name));
            assert_eq!(host.binds, None);
            assert!(host.mounts.iter().flatten().all(|mount| mount.read_only == Some(true)));
            assert_eq!(host.log_config.unwrap().typ.as_deref(), Some("none"));
        }
    }

    #[test]
    fn each_transport_starts_the_agent_in_its_way() {
        let socket = made(Transport::Socket, Network::None);
        assert_eq!(socket.cmd, Some(vec!["init".to_owned()]));
        assert_eq!((socket.open_stdin, socket.user.as_deref()), (Some(false), Some("0:0")));
        let attach = made(Transport::Attach, Network::None);
        assert_eq!(attach.cmd, Some(vec!["init".to_owned(), "--stdio".to_owned()]));
        assert_eq!((attach.open_stdin, attach.stdin_once), (Some(true), Some(true)));
        assert_eq!(attach.host_config.unwrap().mounts, None);
    }
}
