//! What is on the host with the gateway's mark and is nobody's: found by looking, and asked for by whom it is owned
//! afterwards. Looked twice, so that what comes or goes in between is not taken for a leak.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use faas_types::SandboxId;

use crate::native::cgroup::CgroupHost;
use crate::native::disk;
use crate::native::executor::NativeExecutor;
use crate::sandbox::{Leak, SandboxError};

/// One thing that bears the mark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    /// A cgroup, and the slot that it is of.
    Cgroup(PathBuf, Option<u32>),
    /// A mount that the server sees: there are none.
    Mount(String),
    /// A loop device with a file of ours, and the sandbox whose file that is.
    Loop(PathBuf, String),
    /// A directory of files, named for its sandbox.
    Directory(PathBuf, String),
}

impl NativeExecutor {
    pub(in crate::native) async fn find_leaks(
        &self,
        lasting: &BTreeSet<SandboxId>,
    ) -> Result<Vec<Leak>, SandboxError> {
        let first = self.unowned(lasting).await?;
        let second = self.unowned(lasting).await?;
        let mut leaks = Vec::new();
        for thing in first.intersection(&second) {
            let (kind, name) = match thing {
                Thing::Cgroup(path, _) => {
                    let inside = processes_in(path);
                    leaks.extend(inside.into_iter().map(|pid| Leak { kind: "process", name: pid }));
                    ("cgroup", path.display().to_string())
                }
                Thing::Mount(point) => ("mount", point.clone()),
                Thing::Loop(device, _) => ("loop device", device.display().to_string()),
                Thing::Directory(path, _) => ("directory", path.display().to_string()),
            };
            leaks.push(Leak { kind, name });
        }
        Ok(leaks)
    }

    async fn unowned(&self, lasting: &BTreeSet<SandboxId>) -> Result<BTreeSet<Thing>, SandboxError> {
        let (cgroups, dir) = (self.cgroups.as_ref().ok().cloned(), self.files.dir().to_owned());
        let looked = tokio::task::spawn_blocking(move || look(cgroups, &dir)).await;
        let failed = |source| SandboxError::Create { step: "look for leaks".to_owned(), source };
        let things = looked.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)?;
        let owned = self.lasting.owned();
        // A slot is taken as long as the server has it; one whose sandbox is nobody's any more is a leak all the same.
        let lost: BTreeSet<u32> = self
            .lasting
            .all_lost()
            .into_iter()
            .filter(|(id, _)| !lasting.contains(id) && !owned.contains(id))
            .map(|(_, slot)| slot)
            .collect();
        let is_owned_by_name = |name: &str| {
            let id = SandboxId(name.to_owned());
            lasting.contains(&id) || owned.contains(&id)
        };
        let is_owned = |thing: &Thing| match thing {
            Thing::Cgroup(_, Some(slot)) => self.slots.has(*slot) && !lost.contains(slot),
            Thing::Cgroup(_, None) | Thing::Mount(_) => false,
            Thing::Loop(_, name) | Thing::Directory(_, name) => is_owned_by_name(name),
        };
        Ok(things.into_iter().filter(|thing| !is_owned(thing)).collect())
    }
}

/// Everything that bears the mark; `dir` is where the files of lasting sandboxes are.
fn look(cgroups: Option<Arc<CgroupHost>>, dir: &Path) -> io::Result<BTreeSet<Thing>> {
    let mut things = BTreeSet::new();
    if let Some(cgroups) = cgroups {
        things.extend(cgroups.entries()?.into_iter().map(|(path, slot)| Thing::Cgroup(path, slot)));
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        things.insert(Thing::Directory(entry.path(), entry.file_name().to_string_lossy().into_owned()));
    }
    let name_of = |path: &Path| {
        let below = path.strip_prefix(dir).ok()?.components().next()?;
        Some(below.as_os_str().to_string_lossy().into_owned())
    };
    for (device, file) in disk::loop_devices()? {
        things.extend(name_of(&file).map(|name| Thing::Loop(device, name)));
    }
    // The directory above has everything of the native runtime.
    let native = dir.parent().unwrap_or(dir);
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let below = points.filter(|point| Path::new(point).starts_with(native));
    things.extend(below.map(|point| Thing::Mount(point.to_owned())));
    Ok(things)
}

fn processes_in(cgroup: &Path) -> Vec<String> {
    // One that cannot be read has been removed.
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
