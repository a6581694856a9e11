//! The same command lines under `runc run`, in a bundle that asks for what a sandbox of the image `host` is.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use super::{Line, Said};

/// The ids that a bundle's root is on the host: far from those that the gateway takes.
const FIRST_ID: u32 = 0x6000_0000;

/// Those of a container by default, but for CAP_NET_RAW.
const CAPABILITIES: [&str; 13] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Where bundles are made.
pub(crate) struct Runc {
    dir: tempfile::TempDir,
    made: AtomicU32,
}

impl Runc {
    /// `image` is a tar of everything of the image beside the host's program directories.
    pub(crate) fn new(image: &[u8]) -> Self {
        let dir = tempfile::Builder::new().prefix("faas-runc-").tempdir().unwrap();
        // Whoever a bundle's root is must be able to come to its files.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let (tar, root) = (dir.path().join("image.tar"), dir.path().join("rootfs"));
        fs::write(&tar, image).unwrap();
        fs::create_dir(&root).unwrap();
        unpack(&tar, &root);
        Self { dir, made: AtomicU32::new(0) }
    }

    /// Runs one line in a bundle of its own. They share a root file system; what lines write goes to `/tmp`.
    pub(crate) fn run(&self, line: &Line) -> Said {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("faas-differential-{}-{number}", std::process::id());
        let bundle = self.dir.path().join(&name);
        fs::create_dir(&bundle).unwrap();
        fs::write(bundle.join("config.json"), spec(&name, line).to_string()).unwrap();
        let mut runc = Command::new("runc")
            .arg("--root")
            .arg(self.dir.path().join("state"))
            .args(["run", "--bundle"])
            .arg(&bundle)
            .arg(&name)
            .stdin(if line.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = runc.stdin.take();
        let output = std::thread::scope(|scope| {
            if let (Some(mut stdin), Some(text)) = (stdin, &line.stdin) {
                // A program need not read it.
                scope.spawn(move || drop(stdin.write_all(text.as_bytes())));
            }
            runc.wait_with_output().unwrap()
        });
        fs::remove_dir_all(&bundle).unwrap();
        Said { code: i64::from(output.status.code().unwrap()), stdout: output.stdout, stderr: output.stderr }
    }
}

/// Unpacks the image, everything owned by the bundle's root.
fn unpack(image: &Path, root: &Path) {
    let status = Command::new("tar").arg("-xf").arg(image).arg("-C").arg(root).status().unwrap();
    assert!(status.success(), "tar: {status}");
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        lchown(&path, Some(FIRST_ID), Some(FIRST_ID)).unwrap();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

fn spec(name: &str, line: &Line) -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "nodev", "noexec"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
        mount("/run", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=755", "size=16m"]),
    ];
    mounts.extend(program_dirs().iter().map(|dir| {
        let dir = dir.display().to_string();
        mount(&dir, "bind", &dir, &["rbind", "ro", "nosuid", "nodev"])
    }));
    let ids = json!([{"containerID": 0, "hostID": FIRST_ID, "size": 65536}]);
    let limit = |name: &str, resource, soft: u64, hard: u64| {
        let hard = hard.min(getrlimit(resource).maximum.unwrap_or(u64::MAX));
        json!({"type": name, "soft": soft.min(hard), "hard": hard})
    };
    let (uid, gid) = line.ids;
    json!({
        "ociVersion": "1.0.2",
        "hostname": name,
        "root": {"path": "../rootfs", "readonly": false},
        "process": {
            "terminal": false,
            "user": {"uid": uid, "gid": gid, "umask": 0o022},
            "args": line.argv(),
            "env": line.whole_env().iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            "cwd": line.cwd.unwrap_or("/"),
            "noNewPrivileges": true,
            "oomScoreAdj": 500,
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "rlimits": [
                limit("RLIMIT_NOFILE", Resource::Nofile, 1024, 524_288),
                limit("RLIMIT_CORE", Resource::Core, 1, 1),
                limit("RLIMIT_MEMLOCK", Resource::Memlock, 8 << 20, 8 << 20),
                limit("RLIMIT_MSGQUEUE", Resource::Msgqueue, 819_200, 819_200),
            ],
        },
        "mounts": mounts,
        "linux": {
            "uidMappings": ids,
            "gidMappings": ids,
            "namespaces": [
                {"type": "user"}, {"type": "pid"}, {"type": "mount"}, {"type": "network"},
                {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"},
            ],
            "cgroupsPath": format!("/{name}"),
            "resources": {"memory": {"limit": 512 << 20}, "pids": {"limit": 256}},
            // What a sandbox's policy refuses is the attack suite's affair; here there is one filter, as there.
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mount", "sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
            },
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// The host's program directories that are directories, and not links to one another.
fn program_dirs() -> Vec<PathBuf> {
    ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"]
        .into_iter()
        .map(|name| Path::new("/").join(name))
        .filter(|path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()))
        .collect()
}
