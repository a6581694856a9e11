//! Which hierarchies this host has and where; the gateway's own directory in each.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::{Hierarchy, V1, V2, Version};

/// The gateway's cgroups on this host, held open: reachable from a process that no longer sees the host's files.
#[derive(Debug)]
pub(crate) struct CgroupHost {
    /// Whether the controllers are those of v2.
    v2: bool,
    /// The gateway's directory in each hierarchy: where it was made, and open.
    roots: BTreeMap<Hierarchy, (PathBuf, OwnedFd)>,
}

/// Why cgroups cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("the cgroup controller {0} is not mounted")]
    NotMounted(&'static str),
    #[error("the cgroup v2 controllers {missing} are not delegated to {}", path.display())]
    NotDelegated { missing: String, path: PathBuf },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ProbeError + '_ {
    move |source| ProbeError::Io { path: path.to_owned(), source }
}

/// The mount points of cgroup file systems, from the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5)): v1
/// controllers by name, the v2 tree as `""`.
fn mount_points(mountinfo: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(mount_point) = before.split(' ').nth(4) else { continue };
        let mut after = after.split(' ');
        match (after.next(), after.nth(1)) {
            (Some("cgroup2"), _) => {
                found.entry(String::new()).or_insert_with(|| PathBuf::from(mount_point));
            }
            (Some("cgroup"), Some(options)) => {
                for option in options.split(',') {
                    found.entry(option.to_owned()).or_insert_with(|| PathBuf::from(mount_point));
                }
            }
            _ => {}
        }
    }
    found
}

const V2_CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

impl CgroupHost {
    /// Finds the hierarchies and makes the gateway's directory, `name`, in each. Existing ones are taken over.
    pub(crate) fn prepare(name: &str) -> Result<Self, ProbeError> {
        let path = Path::new("/proc/self/mountinfo");
        let mountinfo = std::fs::read_to_string(path).map_err(at(path))?;
        Self::prepare_in(&mount_points(&mountinfo), name)
    }

    fn prepare_in(mounts: &BTreeMap<String, PathBuf>, name: &str) -> Result<Self, ProbeError> {
        let v2 = !mounts.contains_key("memory");
        let mut wanted = Vec::new();
        if v2 {
            let mount = mounts.get("").ok_or(ProbeError::NotMounted("memory"))?;
            enable_controllers(mount)?;
            wanted.push((Hierarchy::Unified, mount.join(name)));
        } else {
            for (hierarchy, controller) in
                [(Hierarchy::Memory, "memory"), (Hierarchy::Pids, "pids"), (Hierarchy::Cpu, "cpu")]
            {
                let mount = mounts.get(controller).ok_or(ProbeError::NotMounted(controller))?;
                wanted.push((hierarchy, mount.join(name)));
            }
            wanted.extend(mounts.get("").map(|mount| (Hierarchy::Unified, mount.join(name))));
        }
        let mut roots = BTreeMap::new();
        for (hierarchy, root) in wanted {
            let fd = make_and_open(rustix::fs::CWD, &root).map_err(at(&root))?;
            if v2 {
                enable_controllers(&root)?;
            }
            roots.insert(hierarchy, (root, fd));
        }
        Ok(Self { v2, roots })
    }

    /// The rules of the version that limits are set by.
    pub(crate) fn version(&self) -> &'static dyn Version {
        if self.v2 { &V2 } else { &V1 }
    }

    /// What it is, in words.
    pub(crate) fn describe(&self) -> &'static str {
        match (self.v2, self.roots.contains_key(&Hierarchy::Unified)) {
            (true, _) => "cgroup v2",
            (false, true) => "cgroup v1, hybrid",
            (false, false) => "cgroup v1",
        }
    }

    /// Makes the directories of slot `slot` and opens them.
    pub(super) fn make_slot_dirs(&self, slot: u32) -> io::Result<Vec<(Hierarchy, OwnedFd)>> {
        self.roots
            .iter()
            .map(|(hierarchy, (_, root))| Ok((*hierarchy, make_and_open(root, Path::new(&slot_name(slot)))?)))
            .collect()
    }

    /// Opens the directories of slot `slot`, which exist.
    pub(super) fn open_slot_dirs(&self, slot: u32) -> io::Result<Vec<(Hierarchy, OwnedFd)>> {
        self.roots
            .iter()
            .map(|(hierarchy, (_, root))| Ok((*hierarchy, open_dir(root, Path::new(&slot_name(slot)))?)))
            .collect()
    }

    /// The numbers of the slots that have a directory in any hierarchy.
    pub(crate) fn slots(&self) -> io::Result<Vec<u32>> {
        let mut slots = Vec::new();
        for (_, root) in self.roots.values() {
            let dir = rustix::fs::openat(root, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            for entry in rustix::fs::Dir::read_from(dir)? {
                let entry = entry?;
                let name = entry.file_name().to_str().ok();
                slots.extend(name.and_then(|name| name.strip_prefix("slot-")?.parse::<u32>().ok()));
            }
        }
        slots.sort_unstable();
        slots.dedup();
        Ok(slots)
    }

    /// Kills whatever still runs in a slot's cgroups and removes their directories.
    ///
    /// Only for a slot whose parked process is gone or shall go: it is killed too.
    pub(crate) fn destroy_slot(&self, slot: u32) -> io::Result<()> {
        self.roots.values().try_for_each(|(_, root)| destroy_dir(root.as_fd(), &slot_name(slot)))
    }

    /// Removes the gateway's own directories, which must hold no slot any more. For the process that made them where
    /// it still sees them.
    pub(crate) fn remove_roots(&self) -> io::Result<()> {
        for (path, _) in self.roots.values() {
            match std::fs::remove_dir(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn slot_name(slot: u32) -> String {
    format!("slot-{slot}")
}

fn make_and_open(at: impl AsFd, dir: &Path) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(&at, dir, Mode::from_raw_mode(0o755)) {
        Err(error) if error != Errno::EXIST => return Err(error.into()),
        _ => {}
    }
    open_dir(at, dir)
}

fn open_dir(at: impl AsFd, dir: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(at, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn enable_controllers(dir: &Path) -> Result<(), ProbeError> {
    let available = dir.join("cgroup.controllers");
    let available_text = std::fs::read_to_string(&available).map_err(at(&available))?;
    let missing: Vec<_> =
        V2_CONTROLLERS.into_iter().filter(|c| !available_text.split_whitespace().any(|a| a == *c)).collect();
    if !missing.is_empty() {
        return Err(ProbeError::NotDelegated { missing: missing.join(", "), path: dir.to_owned() });
    }
    let control = dir.join("cgroup.subtree_control");
    let enabled = std::fs::read_to_string(&control).map_err(at(&control))?;
    for controller in V2_CONTROLLERS {
        if !enabled.split_whitespace().any(|e| e == controller) {
            std::fs::write(&control, format!("+{controller}")).map_err(at(&control))?;
        }
    }
    Ok(())
}

/// How often a cgroup is looked at again while its killed processes leave it.
const EMPTYING_STEP: std::time::Duration = std::time::Duration::from_millis(2);

/// How long killed processes are given to leave: they may be in the middle of a large exit.
const EMPTYING_TRIES: u32 = 2500;

#[expect(
    clippy::disallowed_methods,
    reason = "called from the single-threaded launcher and from blocking tasks"
)]
fn destroy_dir(root: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    for _ in 0..EMPTYING_TRIES {
        match rustix::fs::unlinkat(root, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Processes are still in it, or on their way out.
            Err(Errno::BUSY) => {}
            Err(error) => return Err(error.into()),
        }
        for pid in pids_in(root, name)? {
            match rustix::process::kill_process(pid, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        std::thread::sleep(EMPTYING_STEP);
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("cgroup {name}: its processes do not end")))
}

fn pids_in(root: BorrowedFd<'_>, name: &str) -> io::Result<Vec<Pid>> {
    let path = format!("{name}/cgroup.procs");
    let file = match rustix::fs::openat(root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        other => other?,
    };
    let mut text = String::new();
    std::fs::File::from(file).read_to_string(&mut text)?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::{CgroupHost, ProbeError, mount_points};

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hierarchies_are_found_by_controller() {
        let mounts = mount_points(HYBRID);
        assert_eq!(mounts["cpu"], PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(mounts["memory"], PathBuf::from("/sys/fs/cgroup/memory"));
        assert_eq!(mounts[""], PathBuf::from("/sys/fs/cgroup/unified"));
    }

    fn fixture(files: &[(&str, &str)]) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("cgroup-fixture-{}", uuid::Uuid::now_v7().simple()));
        for (path, text) in files {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn v2_without_a_controller_is_refused_by_its_name() {
        let dir = fixture(&[("cgroup.controllers", "cpu io pids\n"), ("cgroup.subtree_control", "")]);
        let error =
            CgroupHost::prepare_in(&BTreeMap::from([(String::new(), dir.clone())]), "faas-x").unwrap_err();
        assert!(matches!(&error, ProbeError::NotDelegated { missing, .. } if missing == "memory"), "{error}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn v1_makes_a_directory_in_every_hierarchy() {
        let dir = fixture(&[("memory/x", ""), ("pids/x", ""), ("cpu/x", ""), ("unified/x", "")]);
        let mounts = ["memory", "pids", "cpu"]
            .into_iter()
            .map(|c| (c.to_owned(), dir.join(c)))
            .chain([(String::new(), dir.join("unified"))])
            .collect();
        let host = CgroupHost::prepare_in(&mounts, "faas-x").unwrap();
        assert_eq!(host.describe(), "cgroup v1, hybrid");
        for hierarchy in ["memory", "pids", "cpu", "unified"] {
            assert!(dir.join(hierarchy).join("faas-x").is_dir(), "{hierarchy}");
        }
        assert_eq!(host.slots().unwrap(), Vec::<u32>::new());
        host.make_slot_dirs(3).unwrap();
        assert_eq!(host.slots().unwrap(), [3]);
        host.destroy_slot(3).unwrap();
        host.remove_roots().unwrap();
        assert!(!dir.join("memory/faas-x").exists());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_host_without_the_memory_controller_says_so() {
        let error = CgroupHost::prepare_in(&BTreeMap::new(), "faas-x").unwrap_err();
        assert_eq!(error.to_string(), "the cgroup controller memory is not mounted");
    }
}
