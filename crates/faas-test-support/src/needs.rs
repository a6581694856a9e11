//! What a test needs of the machine, and the visible skip where the machine does not have it.
//!
//! A skip is never silent: it prints `SKIP capability: reason`, adds the same line to the file that `FAAS_SKIP_LOG`
//! names, and with `FAAS_FAIL_ON_SKIP` set it fails the test, unless `FAAS_ALLOWED_SKIPS` (capabilities with commas
//! between) has the capability. `run-tests.sh` sets all three, the last from `tests/not-on-ci.txt`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Something of the machine that a test cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// The test runs as the host's root.
    Root,
    /// `/dev/kvm` can be opened.
    Kvm,
    /// A Docker engine for tests answers at the address in `FAAS_TEST_DOCKER_HOST`.
    Docker,
    /// The programs `docker-registry` and `htpasswd` are there.
    DockerRegistry,
    /// The program `runc` is there.
    Runc,
    /// The program `bwrap` is there.
    Bwrap,
    /// The program `criu` is there.
    Criu,
    /// Cgroup v2 with the controllers memory, pids and cpu.
    Cgroup2Controllers,
    /// Cgroup v1 hierarchies for memory, pids and cpu.
    Cgroup1,
    /// Loop devices can be made.
    Loop,
    /// A C compiler is there.
    Cc,
    /// The programs that the recipes of the test images take (`images/`) are there.
    TestImages,
    /// newuidmap(1) is there.
    Uidmap,
    /// A PostgreSQL server for tests answers at the URL in `FAAS_TEST_POSTGRES_URL`.
    Postgres,
}

impl Capability {
    /// The capability as it stands in `tests/not-on-ci.txt`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Kvm => "kvm",
            Self::Docker => "docker",
            Self::DockerRegistry => "docker-registry",
            Self::Runc => "runc",
            Self::Bwrap => "bwrap",
            Self::Criu => "criu",
            Self::Cgroup2Controllers => "cgroup2-controllers",
            Self::Cgroup1 => "cgroup1",
            Self::Loop => "loop",
            Self::Cc => "cc",
            Self::TestImages => "test-images",
            Self::Uidmap => "uidmap",
            Self::Postgres => "postgres",
        }
    }

    /// Probes for it.
    ///
    /// # Errors
    /// The reason why it is not here, in one sentence.
    pub fn probe(self) -> Result<(), String> {
        match self {
            Self::Root => {
                let status = read("/proc/self/status")?;
                let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
                if uid.split_whitespace().nth(1) == Some("0") { Ok(()) } else { Err("not root".to_owned()) }
            }
            Self::Kvm => OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/kvm")
                .map(drop)
                .map_err(|error| format!("/dev/kvm: {error}")),
            Self::Docker => docker(),
            Self::DockerRegistry => {
                runs("docker-registry", &["--version"])?;
                runs("sh", &["-c", "command -v htpasswd"])
            }
            Self::Runc => runs("runc", &["--version"]),
            Self::Bwrap => runs("bwrap", &["--version"]),
            Self::Criu => runs("criu", &["--version"]),
            Self::Cgroup2Controllers => cgroup2_controllers(),
            Self::Cgroup1 => cgroup1(),
            Self::Loop => File::open("/dev/loop-control")
                .map(drop)
                .map_err(|error| format!("/dev/loop-control: {error}")),
            Self::Cc => runs("cc", &["--version"]),
            Self::TestImages => ["busybox", "gcc", "mmdebstrap", "flock"].iter().try_for_each(|program| {
                runs("sh", &["-c", &format!("command -v {program} || {{ echo no {program} >&2; exit 1; }}")])
            }),
            Self::Uidmap => runs("sh", &["-c", "command -v newuidmap"]),
            Self::Postgres => {
                let url = variable("FAAS_TEST_POSTGRES_URL")
                    .ok_or("FAAS_TEST_POSTGRES_URL is not set (scripts/test-postgres.sh starts a server)")?;
                runs("psql", &["--no-psqlrc", "--quiet", "--command", "SELECT 1", &url])
            }
        }
    }
}

/// Whether the test must be skipped for want of `capability`; says so as the module's head describes.
///
/// # Panics
/// When skips are failures and this one is not allowed.
#[must_use]
pub fn missing(capability: Capability, test: &str) -> bool {
    let Err(reason) = capability.probe() else { return false };
    let line = format!("SKIP {}: {reason} ({test})", capability.as_str());
    println!("{line}");
    if let Some(log) = variable("FAAS_SKIP_LOG") {
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        if let Err(error) = written {
            panic!("{log}: {error}");
        }
    }
    let allowed = variable("FAAS_ALLOWED_SKIPS").unwrap_or_default();
    let allowed = allowed.split(',').any(|name| name.trim() == capability.as_str());
    assert!(
        allowed || variable("FAAS_FAIL_ON_SKIP").is_none(),
        "this machine must have what the test needs: {line}"
    );
    true
}

/// Returns from the test, visibly, when the machine lacks one of the named capabilities:
/// `needs!(Root, Docker);` as its first statement.
#[macro_export]
macro_rules! needs {
    ($($capability:ident),+ $(,)?) => {
        $(
            if $crate::needs::missing(
                $crate::needs::Capability::$capability,
                concat!(module_path!(), ":", line!()),
            ) {
                return;
            }
        )+
    };
}

fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "a test's switch, not a setting of the server")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

fn runs(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}", stderr.lines().next().unwrap_or("failed without a word")))
}

fn docker() -> Result<(), String> {
    let host = variable("FAAS_TEST_DOCKER_HOST")
        .ok_or("FAAS_TEST_DOCKER_HOST is not set (scripts/test-engine.sh starts an engine)")?;
    runs("docker", &["--host", &host, "version", "--format", "{{.Server.Version}}"])
}

fn cgroup2_controllers() -> Result<(), String> {
    let mounts = read("/proc/self/mountinfo")?;
    let Some(root) = mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        filesystem.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4))?
    }) else {
        return Err("no cgroup2 mount".to_owned());
    };
    let controllers = read(&format!("{root}/cgroup.controllers"))?;
    for wanted in ["memory", "pids", "cpu"] {
        if !controllers.split_whitespace().any(|name| name == wanted) {
            return Err(format!("{root} has no controller {wanted}"));
        }
    }
    Ok(())
}

fn cgroup1() -> Result<(), String> {
    for controller in ["memory", "pids", "cpu"] {
        let directory = format!("/sys/fs/cgroup/{controller}");
        if !Path::new(&directory).join("tasks").exists() {
            return Err(format!("{directory} is no v1 hierarchy"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Capability;

    #[test]
    fn a_missing_program_is_named_in_the_reason() {
        let reason = super::runs("no-such-program-of-any-machine", &[]).unwrap_err();
        assert!(reason.starts_with("no-such-program-of-any-machine: "), "{reason}");
    }

    #[test]
    fn every_capability_answers_or_gives_a_reason() {
        for capability in
            [Capability::Root, Capability::Kvm, Capability::Cgroup2Controllers, Capability::Cgroup1]
        {
            if let Err(reason) = capability.probe() {
                assert!(!reason.is_empty(), "{capability:?}");
            }
        }
    }
}
