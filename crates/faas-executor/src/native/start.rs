//! The start and the end of the backend, and what a start finds on the host: cgroups, ids, and what an earlier gateway of
//! the data directory left.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use faas_types::SandboxId;

use super::cgroup::{CgroupHost, CgroupPlan};
use super::disk::Disks;
use super::executor::{DiskSupport, IdSupport, NativeExecutor};
use super::id_blocks::{self, IdBlocks};
use super::lasting::files::Files;
use super::lasting::record::{self, Record};
use super::lasting::registry::{Registry, Waiting};
use super::launcher::message::LauncherSetup;
use super::launcher_process::{LauncherConfig, others_have_cleared};
use super::layout::{self, IdMode};
use super::slots::{Reserved, Slots};
use super::subordinate::Subordinate;
use super::watchdog::Watchdog;
use crate::agent_binary;
use crate::data_dir::{DataDir, write_whole};
use crate::error::StartError;
use crate::sandbox::SandboxRecord;

/// What an executor is started with.
#[derive(Clone, Debug)]
pub struct NativeConfig {
    /// The program that is the launcher, and the unpack process, when it is started with that one argument.
    pub launcher_exe: PathBuf,
    /// How many slots stand ready when nothing happens.
    pub spare_slots: usize,
    /// The directory that holds the root file systems of images, one below it each.
    pub images_dir: Option<PathBuf>,
    /// Lasting sandboxes of an earlier server, which are to be left alone.
    pub lasting: Vec<(SandboxId, Option<SandboxRecord>)>,
}

/// Why there is no native runtime.
#[derive(Debug, thiserror::Error)]
pub enum NativeStartError {
    /// This host or user cannot have it; the text is for capabilities.
    #[error("{0}")]
    Unavailable(String),
    /// It should work and does not.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl NativeExecutor {
    /// Clears up after an earlier gateway of this data directory, and starts the launcher. Must be called within a Tokio
    /// runtime.
    ///
    /// # Errors
    /// [`NativeStartError`].
    pub async fn start(data_dir: &DataDir, config: NativeConfig) -> Result<Self, NativeStartError> {
        let root = rustix::process::geteuid().is_root();
        let native = data_dir.private("native")?;
        let mark = layout::mark(data_dir.gateway_id().as_str());
        let launchers = native.join("launchers");
        if !others_have_cleared(&launchers).await.map_err(at(&launchers))? {
            let reason = "the launcher of an earlier server has not cleared up after it yet";
            return Err(NativeStartError::Unavailable(reason.to_owned()));
        }
        let boot_id = record::boot_id().map_err(at(Path::new("/proc/sys/kernel/random/boot_id")))?;
        let plan = cgroups(root, &mark, &native.join("cgroup"))?;
        let subordinate = (!root).then(|| {
            let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            (uid, gid, Subordinate::find(uid, gid))
        });
        let ids = match &subordinate {
            None => IdMode::OwnRanges,
            Some((uid, gid, further)) => {
                let further = further.as_ref().map_or(0, |range| range.count);
                IdMode::OfUser { uid: *uid, gid: *gid, further }
            }
        };
        let files = Arc::new(Files::open(data_dir, config.launcher_exe.clone(), root)?);
        let setup = LauncherSetup {
            mount_point: data_dir.private("native/mnt")?,
            agent_dir: agent_binary::install(&native)?,
            images_dir: config.images_dir,
            files_dir: (!files.on_disks()).then(|| files.dir().to_owned()),
            ids,
            cgroups: plan.as_ref().ok().map(|(plan, _)| plan.clone()),
        };
        let (support, subordinate) = match subordinate {
            None => (IdSupport::OwnRanges, None),
            Some((_, _, Ok(range))) => (IdSupport::Range(range.count), Some(range)),
            Some((_, _, Err(reason))) => (IdSupport::One(reason), None),
        };
        let launcher = LauncherConfig { exe: config.launcher_exe, setup, subordinate, lock: launchers };
        let cgroups = plan.map(|(_, host)| host);
        let mut reserved = numbers(ids, &mark)?;
        let (lasting, records) = take_over(config.lasting, &boot_id, &mut reserved)?;
        let kept = reserved.kept().clone();
        if let Ok(cgroups) = &cgroups {
            // One alone that cannot be cleared is no reason to have none at all.
            let stuck = sweep(Arc::clone(cgroups), kept.clone()).await?;
            stuck.into_iter().for_each(|slot| reserved.leave_out(slot));
        }
        let started =
            Slots::start(launcher, cgroups.as_ref().ok().cloned(), config.spare_slots, reserved).await;
        let slots = match started {
            Ok(slots) => slots,
            Err(error) => {
                cgroups.iter().filter(|_| kept.is_empty()).for_each(|cgroups| remove_roots(cgroups));
                return Err(NativeStartError::Unavailable(error.to_string()));
            }
        };
        let disks = match root {
            false => DiskSupport::Memory,
            true => match Disks::probe(native.join("disks")) {
                Ok(disks) => DiskSupport::Loop(disks),
                Err(reason) => DiskSupport::None(reason),
            },
        };
        let watchdog = Watchdog::new(cgroups.as_ref().ok().cloned());
        tokio::spawn(watchdog.clone().run());
        let this = Self { slots, cgroups, ids: support, disks, watchdog, files, lasting, boot_id };
        for (id, record) in records {
            this.promise_again(&id, &record).await;
        }
        Ok(this)
    }

    /// Ends the launcher and all slots, and removes what the gateway has on the host, but for lasting sandboxes that
    /// are kept.
    pub async fn stop(&self) {
        self.slots.stop().await;
        // A launcher that died left its slots' cgroups.
        if let Ok(cgroups) = &self.cgroups {
            let kept = self.slots.kept();
            let none_kept = kept.is_empty();
            if let Err(error) = sweep(Arc::clone(cgroups), kept).await {
                tracing::error!(%error, "cgroups could not be cleared");
            }
            if none_kept {
                remove_roots(cgroups);
            }
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StartError + '_ {
    move |source| StartError::Io { path: path.to_owned(), source }
}

/// The gateway's cgroups, or why there are none. Root has no excuse. `remembered` is the file that has the path of the
/// cgroup that an earlier gateway of the data directory had taken over.
fn cgroups(
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
fn numbers(ids: IdMode, mark: &str) -> Result<Reserved, StartError> {
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
fn take_over(
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

fn remove_roots(cgroups: &CgroupHost) {
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
