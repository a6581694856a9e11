//! The cgroups of the floor `cgroup`: made, limited, and removed by hand. One file writes, nothing else.

use std::fs;
use std::path::{Path, PathBuf};

/// What every sandbox of a run may use, ours and the peers' alike.
pub(crate) const MEMORY_BYTES: u64 = 512 << 20;
/// See [`MEMORY_BYTES`].
pub(crate) const PIDS: u64 = 256;
/// CPU quota for each period of [`CPU_PERIOD_US`]: one core.
pub(crate) const CPU_QUOTA_US: u64 = 100_000;
/// See [`CPU_QUOTA_US`].
pub(crate) const CPU_PERIOD_US: u64 = 100_000;

/// Which kind of cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// The cgroups of one process, removed on drop.
pub(crate) struct Cgroups {
    directories: Vec<PathBuf>,
}

/// The directory, in the hierarchy with this controller (v1) or in the unified one (v2), that this process lives in.
pub(crate) fn own_directory(version: Version, controller: &str) -> Result<PathBuf, String> {
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").map_err(|e| format!("/proc/self/mountinfo: {e}"))?;
    let cgroups = fs::read_to_string("/proc/self/cgroup").map_err(|e| format!("/proc/self/cgroup: {e}"))?;
    find(&mounts, &cgroups, version, controller)
}

fn find(mounts: &str, cgroups: &str, version: Version, controller: &str) -> Result<PathBuf, String> {
    let wanted = |list: &str| list.split(',').any(|name| name == controller);
    let root = mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = filesystem.split(' ');
        let kind = fields.next()?;
        let options = fields.next_back()?;
        let hit = match version {
            Version::V1 => kind == "cgroup" && wanted(options),
            Version::V2 => kind == "cgroup2",
        };
        hit.then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    });
    let root = root.ok_or_else(|| match version {
        Version::V1 => format!("no cgroup v1 hierarchy with {controller}"),
        Version::V2 => "no cgroup v2 mount".to_owned(),
    })?;
    let own = cgroups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, list, path) = (fields.next()?, fields.next()?, fields.next()?);
        let hit = match version {
            Version::V1 => wanted(list),
            Version::V2 => list.is_empty(),
        };
        hit.then(|| path.trim_start_matches('/').to_owned())
    });
    let inside = root.join(own.unwrap_or_default());
    Ok(if inside.is_dir() { inside } else { root })
}

impl Cgroups {
    /// Makes them and writes the limits.
    pub(crate) fn make(version: Version, name: &str) -> Result<Self, String> {
        let mut made = Self { directories: Vec::new() };
        let quota = format!("{CPU_QUOTA_US} {CPU_PERIOD_US}");
        match version {
            Version::V1 => {
                let memory = made.directory(version, "memory", name)?;
                put(&memory, "memory.limit_in_bytes", &MEMORY_BYTES.to_string())?;
                let pids = made.directory(version, "pids", name)?;
                put(&pids, "pids.max", &PIDS.to_string())?;
                let cpu = made.directory(version, "cpu", name)?;
                put(&cpu, "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
                put(&cpu, "cpu.cfs_quota_us", &CPU_QUOTA_US.to_string())?;
            }
            Version::V2 => {
                let unified = made.directory(version, "", name)?;
                if unified.join("memory.max").exists() {
                    put(&unified, "memory.max", &MEMORY_BYTES.to_string())?;
                    put(&unified, "pids.max", &PIDS.to_string())?;
                    put(&unified, "cpu.max", &quota)?;
                }
            }
        }
        Ok(made)
    }

    /// Moves a process into them (v1; on v2 it is born in [`Cgroups::unified`]).
    pub(crate) fn place(&self, pid: libc::pid_t) -> Result<(), String> {
        self.directories.iter().try_for_each(|directory| put(directory, "cgroup.procs", &pid.to_string()))
    }

    /// The directory of the one unified cgroup.
    pub(crate) fn unified(&self) -> &Path {
        &self.directories[0]
    }

    fn directory(&mut self, version: Version, controller: &str, name: &str) -> Result<PathBuf, String> {
        let directory = own_directory(version, controller)?.join(name);
        fs::create_dir(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        self.directories.push(directory.clone());
        Ok(directory)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for directory in &self.directories {
            // The last task may still be on its way out: a bounded number of tries, then a visible leftover.
            let removed = (0..1000).any(|_| {
                let result = fs::remove_dir(directory);
                if result.is_err() {
                    std::thread::yield_now();
                }
                result.is_ok()
            });
            if !removed {
                eprintln!("faas-bench: {} could not be removed", directory.display());
            }
        }
    }
}

fn put(directory: &Path, file: &str, value: &str) -> Result<(), String> {
    let path = directory.join(file);
    fs::write(&path, value).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Version, find};

    const MOUNTS: &str = "\
30 20 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
31 20 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 20 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate";

    #[test]
    fn hierarchies_are_found_by_controller() {
        let found = |version, controller| find(MOUNTS, "4:memory:/not/there\n0::/", version, controller);
        assert_eq!(found(Version::V1, "cpu").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found(Version::V1, "memory").unwrap(), Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(found(Version::V2, "").unwrap(), Path::new("/sys/fs/cgroup/unified"));
        assert!(found(Version::V1, "pids").unwrap_err().contains("pids"));
    }
}
