//! Where the gateway's cgroups shall be: which hierarchies this host has, and which place in them is the gateway's.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Hierarchy;
use crate::platform::cgroup_files;

/// The gateway's directories, not yet made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CgroupPlan {
    /// Whether the controllers are those of v2.
    pub(super) v2: bool,
    pub(super) roots: BTreeMap<Hierarchy, PathBuf>,
    /// The cgroup that was taken over, where one was.
    pub(super) taken_over: Option<TakenOver>,
}

/// A delegated cgroup whose processes were moved out of the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TakenOver {
    base: PathBuf,
    /// Where they are now.
    leaf: PathBuf,
}

impl TakenOver {
    /// Puts everything back as it was, when nothing of the gateway is below it any more.
    pub(super) fn give_back(&self) -> io::Result<()> {
        // One that passes on no controllers may hold processes again.
        let off: Vec<_> = V2_CONTROLLERS.iter().map(|controller| format!("-{controller}")).collect();
        std::fs::write(self.base.join("cgroup.subtree_control"), off.join(" "))?;
        unless_gone(move_processes(&self.leaf, &self.base))?;
        unless_gone(std::fs::remove_dir(&self.leaf))
    }
}

/// Moves every process of one cgroup to another.
fn move_processes(from: &Path, to: &Path) -> io::Result<()> {
    let to = to.join("cgroup.procs");
    for pid in std::fs::read_to_string(from.join("cgroup.procs"))?.lines() {
        match std::fs::write(&to, pid) {
            // It has ended meanwhile.
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
            other => other?,
        }
    }
    Ok(())
}

/// What was to be removed and is not there is no error.
pub(super) fn unless_gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// How long a cgroup may be busy whose processes have ended or gone: one that ends is in it until the last moment, and
/// nobody can move it.
const BUSY_FOR: Duration = Duration::from_secs(2);
const BUSY_STEP: Duration = Duration::from_millis(10);

/// Tries something again for a while, as long as a cgroup is busy.
pub(super) fn until_idle(attempt: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let end = Instant::now() + BUSY_FOR;
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < end => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "when a server begins or has ended, and does nothing else"
                )]
                std::thread::sleep(BUSY_STEP);
            }
            other => return other,
        }
    }
}

/// Why cgroups cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("the cgroup controller {0} is not mounted")]
    NotMounted(&'static str),
    #[error("the cgroup v2 controllers {missing} are not delegated to {}", path.display())]
    NotDelegated { missing: String, path: PathBuf },
    #[error(
        "the cgroup {} holds processes that are not the gateway's, so its controllers cannot be passed on; start the \
         gateway in a cgroup of its own (systemd: Delegate=yes)",
        path.display()
    )]
    Occupied { path: PathBuf },
    #[error(
        "the cgroup {} is not this user's; start the gateway in one that is, for example with systemd-run --user \
         --scope -p Delegate=yes",
        path.display()
    )]
    NotOwned { path: PathBuf },
    #[error("only root can use cgroup v1")]
    V1NeedsRoot,
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> ProbeError + '_ {
    move |source| ProbeError::Io { path: path.to_owned(), source }
}

/// Which place in the v2 tree is the gateway's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Directly below the mount point: root's.
    Top,
    /// Below the cgroup that the gateway was started in, by its path from the mount point: an ordinary user's, to whom
    /// it was delegated.
    Own(PathBuf),
}

const V2_CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

impl CgroupPlan {
    /// Moves this process to the cgroup that an earlier server had taken over, if sandboxes of that one still run below
    /// it: nobody else could look after them. From then on it is as if it had been started there. Whether it was moved;
    /// the error says why it may not be (cgroup-v2.rst, "Delegation Containment").
    pub(crate) fn go_back(base: &Path, name: &str) -> io::Result<bool> {
        let events = match std::fs::read_to_string(base.join(name).join("cgroup.events")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        if cgroup_files::keyed(&events, "populated") != Some(1) {
            return Ok(false);
        }
        let leaf = make_leaf(base, name)?;
        std::fs::write(leaf.join("cgroup.procs"), std::process::id().to_string())?;
        Ok(true)
    }

    /// Removes what a server that was killed left in a cgroup that it had taken over, where nothing runs any more.
    pub(crate) fn clear(base: &Path, name: &str) -> io::Result<()> {
        until_idle(|| Self::try_clear(base, name))
    }

    fn try_clear(base: &Path, name: &str) -> io::Result<()> {
        let root = base.join(name);
        match std::fs::read_dir(&root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => {
                for entry in other? {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        unless_gone(std::fs::remove_dir(entry.path()))?;
                    }
                }
            }
        }
        unless_gone(std::fs::remove_dir(root))?;
        unless_gone(std::fs::remove_dir(base.join(leaf_name(name))))
    }

    /// The cgroup that was taken over, where one was.
    pub(crate) fn taken_over(&self) -> Option<&Path> {
        self.taken_over.as_ref().map(|taken_over| taken_over.base.as_path())
    }

    /// Finds the hierarchies and the gateway's place in them. `name` is what its directories are called.
    pub(crate) fn find(root: bool, name: &str) -> Result<Self, ProbeError> {
        let path = Path::new("/proc/self/mountinfo");
        let mountinfo = std::fs::read_to_string(path).map_err(at(path))?;
        let place = if root {
            Place::Top
        } else {
            let path = Path::new("/proc/self/cgroup");
            let text = std::fs::read_to_string(path).map_err(at(path))?;
            Place::Own(own_cgroup(&text).unwrap_or_default())
        };
        Self::of(&mount_points(&mountinfo), &place, name)
    }

    pub(super) fn of(
        mounts: &BTreeMap<String, PathBuf>,
        place: &Place,
        name: &str,
    ) -> Result<Self, ProbeError> {
        let v2 = !mounts.contains_key("memory");
        if v2 {
            let mount = mounts.get("").ok_or(ProbeError::NotMounted("memory"))?;
            let base = match place {
                Place::Top => mount.clone(),
                Place::Own(path) => mount.join(without_leaf(path, name)),
            };
            let taken_over = match place {
                Place::Top => None,
                Place::Own(_) => Some(take_over(&base, name)?),
            };
            enable_controllers(&base)?;
            let roots = BTreeMap::from([(Hierarchy::Unified, base.join(name))]);
            return Ok(Self { v2, roots, taken_over });
        }
        if let Place::Own(_) = place {
            return Err(ProbeError::V1NeedsRoot);
        }
        let mut roots = BTreeMap::new();
        for (hierarchy, controller) in
            [(Hierarchy::Memory, "memory"), (Hierarchy::Pids, "pids"), (Hierarchy::Cpu, "cpu")]
        {
            let mount = mounts.get(controller).ok_or(ProbeError::NotMounted(controller))?;
            roots.insert(hierarchy, mount.join(name));
        }
        if let Some(mount) = mounts.get("") {
            roots.insert(Hierarchy::Unified, mount.join(name));
        }
        Ok(Self { v2, roots, taken_over: None })
    }
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

/// The v2 cgroup of a process, relative to the mount point, from the text of `/proc/self/cgroup` (cgroups(7)).
fn own_cgroup(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(PathBuf::from(path))
}

/// The cgroup that was taken over before: whoever started an earlier server from there is in the leaf since, if what that
/// server left kept it from being given back.
fn without_leaf<'a>(path: &'a Path, name: &str) -> &'a Path {
    match path.parent() {
        Some(parent) if path.file_name().is_some_and(|last| *last == *leaf_name(name)) => parent,
        _ => path,
    }
}

/// The leaf below `base`, made if it is not there.
fn make_leaf(base: &Path, name: &str) -> io::Result<PathBuf> {
    let leaf = base.join(leaf_name(name));
    match std::fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(leaf),
    }
}

fn leaf_name(name: &str) -> String {
    format!("{name}.server")
}

/// Moves what runs in `base` to a leaf below it: a v2 cgroup that passes on controllers holds no processes itself
/// (Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint"). All of it is the caller's, whose cgroup
/// this is.
fn take_over(base: &Path, name: &str) -> Result<TakenOver, ProbeError> {
    let leaf = make_leaf(base, name).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ProbeError::NotOwned { path: base.to_owned() },
        _ => at(base)(error),
    })?;
    move_processes(base, &leaf).map_err(at(&leaf))?;
    Ok(TakenOver { base: base.to_owned(), leaf })
}

/// Passes the controllers on to what is below `dir`.
pub(super) fn enable_controllers(dir: &Path) -> Result<(), ProbeError> {
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
        if enabled.split_whitespace().any(|e| e == controller) {
            continue;
        }
        match std::fs::write(&control, format!("+{controller}")) {
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                return Err(ProbeError::Occupied { path: dir.to_owned() });
            }
            other => other.map_err(at(&control))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::{CgroupPlan, Place, ProbeError, mount_points, own_cgroup};
    use crate::native::cgroup::fixture;

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

    #[test]
    fn a_processs_own_v2_cgroup_is_found_beside_those_of_v1() {
        let text = "12:pids:/x\n1:name=systemd:/y\n0::/user.slice/user-1000.slice/run-u7.scope\n";
        assert_eq!(own_cgroup(text), Some(PathBuf::from("user.slice/user-1000.slice/run-u7.scope")));
        assert_eq!(own_cgroup("0::/\n"), Some(PathBuf::new()));
        assert_eq!(own_cgroup("3:cpu:/a\n"), None);
    }

    fn v2_of(dir: &std::path::Path, place: &Place) -> Result<CgroupPlan, ProbeError> {
        CgroupPlan::of(&BTreeMap::from([(String::new(), dir.to_owned())]), place, "faas-x")
    }

    #[test]
    fn v2_without_a_controller_is_refused_by_its_name() {
        let dir = fixture(&[("cgroup.controllers", "cpu io pids\n"), ("cgroup.subtree_control", "")]);
        let error = v2_of(&dir, &Place::Top).unwrap_err();
        assert!(matches!(&error, ProbeError::NotDelegated { missing, .. } if missing == "memory"), "{error}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_delegated_cgroup_is_emptied_before_its_controllers_are_passed_on() {
        let dir = fixture(&[
            ("run.scope/cgroup.controllers", "cpu memory pids\n"),
            ("run.scope/cgroup.subtree_control", ""),
            ("run.scope/cgroup.procs", "17\n"),
            ("run.scope/faas-x.server/cgroup.procs", ""),
        ]);
        let plan = v2_of(&dir, &Place::Own(PathBuf::from("run.scope"))).unwrap();
        let moved = std::fs::read_to_string(dir.join("run.scope/faas-x.server/cgroup.procs")).unwrap();
        assert_eq!(moved, "17");
        let enabled = std::fs::read_to_string(dir.join("run.scope/cgroup.subtree_control")).unwrap();
        assert_eq!(enabled, "+pids", "the last of them, since a fixture keeps one line");
        assert!(plan.roots.values().eq([&dir.join("run.scope/faas-x")]));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_server_goes_back_to_where_sandboxes_run_and_nowhere_else() {
        let dir = fixture(&[
            ("old.scope/faas-x/cgroup.events", "populated 1\nfrozen 0\n"),
            ("old.scope/faas-x.server/cgroup.procs", ""),
            ("quiet.scope/faas-x/cgroup.events", "populated 0\nfrozen 0\n"),
        ]);
        assert!(CgroupPlan::go_back(&dir.join("old.scope"), "faas-x").unwrap());
        let moved = std::fs::read_to_string(dir.join("old.scope/faas-x.server/cgroup.procs")).unwrap();
        assert_eq!(moved, std::process::id().to_string());
        for other in ["quiet.scope", "gone.scope"] {
            assert!(!CgroupPlan::go_back(&dir.join(other), "faas-x").unwrap());
        }
        assert!(!dir.join("quiet.scope/faas-x.server").exists());
        // What stands for a cgroup is removed with its files by the kernel alone.
        std::fs::remove_file(dir.join("quiet.scope/faas-x/cgroup.events")).unwrap();
        std::fs::create_dir_all(dir.join("quiet.scope/faas-x/slot-3")).unwrap();
        std::fs::create_dir_all(dir.join("quiet.scope/faas-x.server")).unwrap();
        for base in ["quiet.scope", "gone.scope"] {
            CgroupPlan::clear(&dir.join(base), "faas-x").unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.join("quiet.scope")).unwrap().count(), 0);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_host_without_the_memory_controller_says_so() {
        let error = CgroupPlan::of(&BTreeMap::new(), &Place::Top, "faas-x").unwrap_err();
        assert_eq!(error.to_string(), "the cgroup controller memory is not mounted");
    }

    #[test]
    fn an_ordinary_user_has_no_v1() {
        let mounts = mount_points(HYBRID);
        let error = CgroupPlan::of(&mounts, &Place::Own(PathBuf::new()), "faas-x").unwrap_err();
        assert!(matches!(error, ProbeError::V1NeedsRoot), "{error}");
    }
}
