//! What the kernel has counted in a container's cgroups, read from this host.
//!
//! The engine tells less: whether the kernel killed a process for want of memory reaches it as an event, late, and in
//! some versions for the first process alone.

use std::path::{Path, PathBuf};

use faas_types::Usage;

use crate::platform::cgroup_files::{CPU, cpu_us, keyed, number};
use crate::sandbox::Measures;

/// The files of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counters {
    /// `oom_kill` stands in it on a line of its own, on v1 and on v2.
    oom: PathBuf,
    memory_peak: PathBuf,
    memory_now: PathBuf,
    /// What the memory is charged for, on v2.
    memory_stat: Option<PathBuf>,
    /// None where the host has no such controller.
    pids: Option<PathBuf>,
    cpu: Cpu,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cpu {
    /// Nanoseconds, alone in the file.
    V1(PathBuf),
    /// `usage_usec`.
    V2(PathBuf),
}

impl Counters {
    /// The files of a container whose first process has `cgroups` in `/proc/PID/cgroup`. None where this host does not
    /// show them.
    pub(super) fn find(cgroups: &str) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        let counters = Self::of(&mounts, cgroups)?;
        counters.oom.exists().then_some(counters)
    }

    fn of(mounts: &str, cgroups: &str) -> Option<Self> {
        let v1 = |controller| Some(directory(mount(mounts, Some(controller))?, place(cgroups, controller)?));
        if let Some(memory) = v1("memory") {
            return Some(Self {
                oom: memory.join("memory.oom_control"),
                memory_peak: memory.join("memory.max_usage_in_bytes"),
                memory_now: memory.join("memory.usage_in_bytes"),
                memory_stat: None,
                pids: v1("pids").map(|pids| pids.join("pids.current")),
                cpu: Cpu::V1(v1("cpuacct")?.join("cpuacct.usage")),
            });
        }
        let unified = directory(mount(mounts, None)?, place(cgroups, "")?);
        Some(Self {
            oom: unified.join("memory.events"),
            memory_peak: unified.join("memory.peak"),
            memory_now: unified.join("memory.current"),
            memory_stat: Some(unified.join("memory.stat")),
            pids: Some(unified.join("pids.current")),
            cpu: Cpu::V2(unified.join(CPU)),
        })
    }

    /// How many processes the kernel has killed for want of memory. None when the container is gone.
    pub(super) fn oom_kills(&self) -> Option<u64> {
        keyed(&std::fs::read_to_string(&self.oom).ok()?, "oom_kill")
    }

    /// What the container uses now, as far as its cgroups tell it. None when it is gone.
    pub(super) fn measures(&self) -> Option<Measures> {
        let number = |path: &Path| number(&std::fs::read_to_string(path).ok()?);
        let memory_bytes = Some(number(&self.memory_now)?);
        let Usage { cpu_us, memory_peak_bytes } = self.usage();
        let pids = self.pids.as_deref().and_then(number);
        Some(Measures { cpu_us, memory_bytes, memory_peak_bytes, pids, ..Measures::default() })
    }

    /// The memory that the container cannot do without, where the kernel would kill for a lower limit. A cgroup of v1
    /// needs nobody to look: the kernel refuses it the limit (Documentation/admin-guide/cgroup-v1/memory.rst, "EBUSY").
    pub(super) fn held_bytes(&self) -> Option<u64> {
        held_bytes(&std::fs::read_to_string(self.memory_stat.as_deref()?).ok()?)
    }

    /// What the container has used, as far as this host tells it.
    pub(super) fn usage(&self) -> Usage {
        let read = |path: &Path| std::fs::read_to_string(path).ok();
        let number = |path: &Path| number(&read(path)?);
        Usage {
            cpu_us: match &self.cpu {
                Cpu::V1(path) => number(path).map(|ns| ns / 1000),
                Cpu::V2(path) => read(path).and_then(|text| cpu_us(&text)),
            },
            memory_peak_bytes: number(&self.memory_peak),
        }
    }
}

/// What of a v2 cgroup's memory cannot be given back without swap (Documentation/admin-guide/cgroup-v2.rst,
/// "memory.stat").
fn held_bytes(stat: &str) -> Option<u64> {
    const HELD: [&str; 6] = ["anon", "shmem", "kernel_stack", "pagetables", "sock", "slab_unreclaimable"];
    let anon = keyed(stat, "anon")?;
    let rest = HELD.iter().skip(1).filter_map(|key| keyed(stat, key));
    Some(rest.fold(anon, u64::saturating_add))
}

fn directory((root, mount_point): (&str, &str), place: &str) -> PathBuf {
    // The mount shows a part of the tree, which is usually all of it.
    let place = place.strip_prefix(root.trim_end_matches('/')).unwrap_or(place);
    Path::new(mount_point).join(place.trim_start_matches('/'))
}

/// Root and mount point of a controller's v1 hierarchy, or of the v2 tree (proc_pid_mountinfo(5)).
fn mount<'a>(mounts: &'a str, controller: Option<&str>) -> Option<(&'a str, &'a str)> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let at = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        match (after.next()?, after.nth(1)?, controller) {
            ("cgroup", options, Some(controller)) => {
                options.split(',').any(|option| option == controller).then_some(at)
            }
            ("cgroup2", _, None) => Some(at),
            _ => None,
        }
    })
}

/// The place of a process in a controller's hierarchy; `""` is the v2 tree (cgroups(7), `/proc/PID/cgroup`).
fn place<'a>(cgroups: &'a str, controller: &str) -> Option<&'a str> {
    cgroups.lines().find_map(|line| {
        let (controllers, place) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(place)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Counters, Cpu, held_bytes};

    const V1_MOUNTS: &str = "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
        32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn v1_files_are_found_by_their_controllers() {
        let cgroups = "9:memory:/docker/ab\n8:cpu,cpuacct:/docker/ab\n0::/\n";
        let found = Counters::of(V1_MOUNTS, cgroups).unwrap();
        assert_eq!(found.oom, Path::new("/sys/fs/cgroup/memory/docker/ab/memory.oom_control"));
        assert_eq!(found.memory_stat, None);
        let cpu = "/sys/fs/cgroup/cpu,cpuacct/docker/ab/cpuacct.usage";
        assert_eq!(found.cpu, Cpu::V1(cpu.into()));
    }

    #[test]
    fn v2_files_are_found_in_the_one_tree() {
        let mounts = "24 1 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = Counters::of(mounts, "0::/system.slice/docker-ab.scope\n").unwrap();
        assert_eq!(found.oom, Path::new("/sys/fs/cgroup/system.slice/docker-ab.scope/memory.events"));
        assert!(matches!(found.cpu, Cpu::V2(_)));
    }

    #[test]
    fn a_part_of_the_tree_that_is_mounted_is_taken_as_such() {
        let mounts = "24 1 0:22 /outer /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = Counters::of(mounts, "0::/outer/docker/ab\n").unwrap();
        assert_eq!(found.oom, Path::new("/sys/fs/cgroup/docker/ab/memory.events"));
    }

    #[test]
    fn what_is_not_there_is_none() {
        assert_eq!(Counters::of("", "0::/x\n"), None);
        let gone = Counters {
            oom: "/no/such".into(),
            memory_peak: "/no/such".into(),
            memory_now: "/no/such".into(),
            memory_stat: Some("/no/such".into()),
            pids: None,
            cpu: Cpu::V1("/no/such".into()),
        };
        assert_eq!((gone.oom_kills(), gone.usage().cpu_us), (None, None));
        assert_eq!((gone.measures(), gone.held_bytes()), (None, None));
    }

    #[test]
    fn memory_that_can_be_given_back_is_not_held() {
        let stat = "anon 4096\nfile 1000000\nkernel 9000\nkernel_stack 100\npagetables 200\nshmem 300\n\
                    slab_reclaimable 5000\nslab_unreclaimable 400\nsock 0\n";
        assert_eq!(held_bytes(stat), Some(4096 + 100 + 200 + 300 + 400));
        assert_eq!(held_bytes("file 1\n"), None);
    }
}
