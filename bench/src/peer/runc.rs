//! runc with a bundle that asks for what our own sandboxes give: the same namespaces, a user namespace among them,
//! the same limits, Docker's capabilities and, where the policy is on this machine, Docker's seccomp policy.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use super::first_line;
use crate::cgroup::{CPU_PERIOD_US, CPU_QUOTA_US, MEMORY_BYTES, PIDS};
use crate::error::BenchError;

/// Where Debian's golang-github-containers-common puts Docker's default policy.
const POLICY: &str = "/usr/share/containers/seccomp.json";

const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Writes a bundle into `directory` (which others may traverse) and returns the command line that runs `command` in
/// it, under a container name that no other worker uses. Outer error: the disk; inner: why runc is not here.
pub(crate) fn argv(
    directory: &Path,
    name: &str,
    command: &[&str],
    seccomp: bool,
) -> Result<Result<Vec<String>, String>, BenchError> {
    if let Err(reason) = first_line("runc", &["--version"]) {
        return Ok(Err(reason));
    }
    let policy = if seccomp {
        match docker_policy() {
            Ok(policy) => Some(policy),
            Err(reason) => return Ok(Err(reason)),
        }
    } else {
        None
    };
    let bundle = directory.join(name);
    let root = bundle.join("rootfs");
    for mount_point in ["usr", "proc", "dev", "sys", "tmp"] {
        let path = root.join(mount_point);
        fs::create_dir_all(&path).map_err(BenchError::io(&path))?;
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        let path = root.join(link);
        symlink(format!("usr/{link}"), &path).map_err(BenchError::io(&path))?;
    }
    let config = bundle.join("config.json");
    fs::write(&config, spec(name, command, policy).to_string()).map_err(BenchError::io(&config))?;
    let state = directory.join("state");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Ok(Ok(vec![
        "runc".to_owned(),
        "--root".to_owned(),
        text(&state),
        "run".to_owned(),
        "--bundle".to_owned(),
        text(&bundle),
        name.to_owned(),
    ]))
}

fn spec(name: &str, command: &[&str], policy: Option<Value>) -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let ids = json!([{"containerID": 0, "hostID": 0x6000_0000, "size": 65536}]);
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "hostname": "bench",
        "root": {"path": "rootfs", "readonly": false},
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": command,
            "env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
        },
        "mounts": [
            mount("/usr", "bind", "/usr", &["rbind", "ro", "nosuid", "nodev"]),
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
        ],
        "linux": {
            "uidMappings": ids,
            "gidMappings": ids,
            "namespaces": [
                {"type": "user"}, {"type": "pid"}, {"type": "mount"}, {"type": "network"},
                {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"},
            ],
            "cgroupsPath": format!("/{name}"),
            "resources": {
                "memory": {"limit": MEMORY_BYTES},
                "pids": {"limit": PIDS},
                "cpu": {"quota": CPU_QUOTA_US, "period": CPU_PERIOD_US},
            },
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    if let Some(policy) = policy {
        spec["linux"]["seccomp"] = policy;
    }
    spec
}

/// Docker's policy in the form of the OCI specification: rules for other machines and other capabilities left out.
fn docker_policy() -> Result<Value, String> {
    let text = fs::read_to_string(POLICY).map_err(|error| format!("{POLICY}: {error}"))?;
    let policy: Value = serde_json::from_str(&text).map_err(|error| format!("{POLICY}: {error}"))?;
    to_oci(&policy).ok_or_else(|| format!("{POLICY} is not Docker's format"))
}

fn to_oci(policy: &Value) -> Option<Value> {
    let names = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let holds = |condition: &Value, any: bool| {
        let arches = names(&condition["arches"]);
        let caps = names(&condition["caps"]);
        if arches.is_empty() && caps.is_empty() {
            return any;
        }
        let arch = arches.iter().any(|arch| arch == "amd64" || arch == "x32" || arch == "x86");
        let cap = caps.iter().any(|cap| CAPABILITIES.contains(&cap.as_str()));
        (arches.is_empty() || arch) && (caps.is_empty() || cap)
    };
    let mut rules = Vec::new();
    for rule in policy["syscalls"].as_array()? {
        if !holds(&rule["includes"], true) || holds(&rule["excludes"], false) {
            continue;
        }
        let mut kept = json!({"names": rule["names"], "action": rule["action"]});
        if rule["args"].as_array().is_some_and(|args| !args.is_empty()) {
            kept["args"] = rule["args"].clone();
        }
        if rule["errnoRet"].is_u64() {
            kept["errnoRet"] = rule["errnoRet"].clone();
        }
        rules.push(kept);
    }
    let mut oci = json!({
        "defaultAction": policy["defaultAction"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    });
    if policy["defaultErrnoRet"].is_u64() {
        oci["defaultErrnoRet"] = policy["defaultErrnoRet"].clone();
    }
    Some(oci)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use faas_test_support::needs;

    use super::{argv, to_oci};
    use crate::helper::spawn;

    #[test]
    fn a_bundle_runs_its_command_and_leaves_no_state() {
        needs!(Root, Runc, Cgroup1);
        let scratch = crate::bench::scratch().unwrap();
        let name = crate::bench::peer_name("runc-test");
        let argv = argv(scratch.path(), &name, &["echo", "hello"], false).unwrap().unwrap();
        spawn(&argv, Some("hello\n")).unwrap();
        assert_eq!(std::fs::read_dir(scratch.path().join("state")).unwrap().count(), 0);
    }

    #[test]
    fn rules_for_other_machines_and_capabilities_are_left_out() {
        let policy = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
            {"names": ["sync_file_range2"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["ppc64le"]}},
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        ]});
        let oci = to_oci(&policy).unwrap();
        let kept: Vec<&str> =
            oci["syscalls"].as_array().unwrap().iter().filter_map(|rule| rule["names"][0].as_str()).collect();
        assert_eq!(kept, ["read", "chroot", "clone"]);
    }
}
