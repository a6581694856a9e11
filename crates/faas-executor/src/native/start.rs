//! What a start of the backend finds on the host: cgroups, ids, and what an earlier gateway of the data directory left.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use faas_types::SandboxId;

use super::cgroup::{CgroupHost, CgroupPlan};
use super::executor::NativeStartError;
use super::id_blocks::{self, IdBlocks};
use super::lasting::record::Record;
use super::lasting::registry::{Registry, Waiting};
use super::layout::{self, IdMode};
use super::slots::Reserved;
use crate::data_dir::write_whole;
use crate::error::StartError;
use crate::sandbox::SandboxRecord;

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> StartError + '_ {
    move |source| StartError::Io { path: path.to_owned(), source }
}

/// The gateway's cgroups, or why there are none. Root has no excuse. `remembered` is the file that has the path of the
/// cgroup that an earlier gateway of the data directory had taken over.
pub(super) fn cgroups(
    root: bool,
    mark: &str,
    remembered: &Path,
) -> Result<Result<(CgroupPlan, Arc<CgroupHost>), String>, NativeStartError> {
    let earlier = if root { None } else { go_back(remembered, mark)? };
    let opened = CgroupPlan::find(root, mark).and_then(|plan| Ok((CgroupHost::open(&plan)?, plan)));
    match opened {
        Ok((host, plan)) => {
            if let Some(base) = plan.taken_over() {
                write_whole(remembered, base.as_os_str().as_bytes())?;
                if let Some(earlier) = earlier.filter(|earlier| earlier != base)
                    && let Err(error) = CgroupPlan::clear(&earlier, mark)
                {
                    let cgroup = earlier.display();
                    tracing::warn!(%cgroup, %error, "what an earlier server left there could not be removed");
                }
            }
            Ok(Ok((plan, Arc::new(host))))
        }
        Err(error) if root => {
            Err(NativeStartError::Unavailable(format!("limits cannot be enforced: {error}")))
        }
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// Goes back to where sandboxes of an earlier gateway run, if it is allowed. What that one had taken over.
fn go_back(remembered: &Path, mark: &str) -> Result<Option<PathBuf>, StartError> {
    let base = match std::fs::read(remembered) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => PathBuf::from(OsString::from_vec(other.map_err(at(remembered))?)),
    };
    match CgroupPlan::go_back(&base, mark) {
        Ok(false) => {}
        Ok(true) => tracing::info!(cgroup = %base.display(), "went back to where earlier sandboxes run"),
        Err(error) => {
            let cgroup = base.display();
            tracing::warn!(%cgroup, %error, "what runs in an earlier server's cgroup is out of reach and will be ended");
        }
    }
    Ok(Some(base))
}

/// Ids that the host has given to its users.
fn reserved_ids() -> Result<Vec<(u64, u64)>, StartError> {
    let mut reserved = Vec::new();
    for path in ["/etc/subuid", "/etc/subgid"] {
        match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => {
                let text = other.map_err(at(Path::new(path)))?;
                reserved.extend(layout::subordinate_ranges(&text).map(|range| (range.start, range.count)));
            }
        }
    }
    Ok(reserved)
}

/// The numbers that slots of this gateway can have.
pub(super) fn numbers(ids: IdMode, mark: &str) -> Result<Reserved, StartError> {
    let (blocks, reserved) = match ids {
        IdMode::OwnRanges => {
            let dir = Path::new(id_blocks::DIR);
            (IdBlocks::locked(dir, mark).map_err(at(dir))?, reserved_ids()?)
        }
        IdMode::OfUser { .. } => (IdBlocks::unlocked(), Vec::new()),
    };
    Ok(Reserved::new(blocks, |slot| {
        let ids = ids.of_slot(*slot);
        reserved.iter().any(|(start, count)| ids.overlaps(*start, *count))
    }))
}

/// Lasting sandboxes whose records can be read.
pub(super) type Records = Vec<(SandboxId, Record)>;

/// Takes over the slots of lasting sandboxes, so that they are left alone until they are asked for.
pub(super) fn take_over(
    lasting: Vec<(SandboxId, Option<SandboxRecord>)>,
    boot_id: &str,
    reserved: &mut Reserved,
) -> Result<(Arc<Registry>, Records), StartError> {
    let (registry, mut records) = (Registry::default(), Vec::new());
    for (id, record) in lasting {
        // Without a record it was never kept.
        let Some(record) = record else { continue };
        let record = match Record::read(&record) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(sandbox = %id, %error, "a lasting sandbox cannot be found again");
                continue;
            }
        };
        if let Some(live) = record.live.as_ref().filter(|live| live.boot_id == boot_id) {
            // One that has ended has no slot: there may be another sandbox in it since.
            let waiting = match live.init.find().map_err(at(Path::new("/proc")))? {
                None => Waiting::Ended("its first process has ended".to_owned()),
                Some(_) => {
                    let taken = reserved.take_over(live.slot).map_err(at(Path::new(id_blocks::DIR)))?;
                    taken.map_or_else(Waiting::Ended, |()| Waiting::Slot(live.slot))
                }
            };
            registry.wait(id.clone(), waiting);
        }
        records.push((id, record));
    }
    Ok((Arc::new(registry), records))
}

pub(super) fn remove_roots(cgroups: &CgroupHost) {
    if let Err(error) = cgroups.remove_roots() {
        tracing::error!(%error, "the gateway's cgroups could not be removed");
    }
}

/// Kills and removes what an earlier gateway of this data directory left in its cgroups, but for those slots. Those
/// that could not be removed are returned.
pub(super) async fn sweep(cgroups: Arc<CgroupHost>, but: BTreeSet<u32>) -> Result<Vec<u32>, StartError> {
    let swept = tokio::task::spawn_blocking(move || {
        let mut slots = cgroups.slots()?;
        slots.retain(|slot| !but.contains(slot));
        let found = slots.len();
        Ok::<_, io::Error>((found, cgroups.destroy_slots(slots)))
    })
    .await;
    let path = Path::new("/sys/fs/cgroup");
    let (found, stuck) = swept.map_err(|error| at(path)(io::Error::other(error)))?.map_err(at(path))?;
    for (slot, error) in &stuck {
        tracing::warn!(slot, %error, "what an earlier gateway left in a slot could not be removed");
    }
    match found.saturating_sub(stuck.len()) {
        0 => {}
        count => tracing::warn!(count, "removed what an earlier gateway left in its slots"),
    }
    Ok(stuck.into_iter().map(|(slot, _)| slot).collect())
}
