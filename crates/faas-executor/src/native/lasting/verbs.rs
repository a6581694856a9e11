//! What the seam asks of lasting sandboxes.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use faas_types::SandboxId;
use rustix::process::Signal;

use super::files::Files;
use super::record::{FilesRecord, Init, Live, Record, has_ended};
use super::registry::{Registry, Token, Waiting};
use crate::native::disk::{Attached, DiskError, MIN_LASTING_BYTES, Room};
use crate::native::executor::{
    DiskSupport, ImageUse, NativeExecutor, NativeHandle, Parts, cgroup_error, disk_error, foreign, handle,
    image_of,
};
use crate::native::socket;
use crate::native::watchdog::Watched;
use crate::sandbox::{BackendHandle, Ended, Found, SandboxError, SandboxHandle, SandboxRecord, SandboxSpec};

/// The reason of a sandbox whose host has been started again since.
const HOST_REBOOTED: &str = "host_rebooted";

/// The first version of Linux that lays an overlay over files which it shows with other ids.
const IDMAPPED_OVERLAYS: (u32, u32) = (5, 19);

/// How long a process that cannot be looked at is given to have ended.
const SOON: std::time::Duration = std::time::Duration::from_millis(200);

/// The part of a lasting sandbox's handle.
#[derive(Debug)]
pub(in crate::native) struct LastingPart {
    record: Record,
    _token: Token,
}

/// Files for one order.
#[derive(Debug)]
pub(in crate::native) struct Prepared {
    place: Place,
    /// Whether a sandbox has run with them before.
    pub(in crate::native) again: bool,
}

#[derive(Debug)]
enum Place {
    Disk(Attached),
    Directory(String),
}

impl Prepared {
    /// The mount of the files, where they are on a disk. Each order takes one.
    pub(in crate::native) fn mount(&self) -> Result<Option<OwnedFd>, DiskError> {
        match &self.place {
            Place::Disk(disk) => disk.mount().map(Some),
            Place::Directory(_) => Ok(None),
        }
    }

    /// The name of their directory, where they are in one.
    pub(in crate::native) fn directory(&self) -> Option<String> {
        match &self.place {
            Place::Disk(_) => None,
            Place::Directory(name) => Some(name.clone()),
        }
    }
}

/// New files, which are removed when this is dropped before there is a sandbox with them.
struct NewFiles {
    files: Arc<Files>,
    registry: Arc<Registry>,
    id: Option<SandboxId>,
}

impl NewFiles {
    /// Makes their directory in a task of its own: where the caller gives up meanwhile it is removed when it has been made,
    /// not before.
    async fn make(
        files: &Arc<Files>,
        registry: &Arc<Registry>,
        id: &SandboxId,
    ) -> Result<Self, SandboxError> {
        let (files, registry, id) = (Arc::clone(files), Arc::clone(registry), id.clone());
        let busy = registry.busy(&id);
        let making = tokio::spawn(async move {
            // What was there before is somebody else's, and stays.
            files.make(&id).await?;
            // The second is held until whoever drops the first is at work by itself.
            Ok((Self { files, registry, id: Some(id) }, busy))
        });
        let made: Result<_, SandboxError> =
            making.await.map_err(|error| at("make a directory")(io::Error::other(error)))?;
        made.map(|(new, _busy)| new)
    }

    /// The sandbox is there: they stay.
    fn stay(&mut self) {
        self.id = None;
    }

    async fn remove(mut self) {
        if let Some(id) = self.id.take() {
            remove_files(&self.files, &self.registry, &id).await;
        }
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let (files, registry) = (Arc::clone(&self.files), Arc::clone(&self.registry));
            let busy = registry.busy(&id);
            tokio::spawn(async move {
                let _busy = busy;
                remove_files(&files, &registry, &id).await;
            });
        }
    }
}

async fn remove_files(files: &Files, registry: &Registry, id: &SandboxId) {
    match files.remove(id).await {
        Ok(()) => registry.removed(id),
        // The caller removes the sandbox again: it is in its Store.
        Err(error) => tracing::error!(sandbox = %id, %error, "its files could not be removed"),
    }
}

/// The major and the minor number of a kernel's release (uname(2)).
fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn lost(reason: impl Into<String>) -> SandboxError {
    SandboxError::Lost { reason: reason.into() }
}

/// Whether a process ends within a moment: one that is about to cannot be looked at any more, and has not ended yet.
async fn ends_soon(pidfd: &OwnedFd) -> bool {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        match has_ended(pidfd) {
            Ok(false) if tokio::time::Instant::now() < deadline => tokio::time::sleep(SOON / 20).await,
            ended => return ended.unwrap_or(false),
        }
    }
}

fn at(step: &'static str) -> impl FnOnce(io::Error) -> SandboxError {
    move |source| SandboxError::Create { step: step.to_owned(), source }
}

impl NativeExecutor {
    /// Why there can be no lasting sandboxes.
    pub(in crate::native) fn no_lasting(&self) -> Result<(), String> {
        match &self.disks {
            DiskSupport::Memory => Ok(()),
            DiskSupport::None(reason) => Err(reason.clone()),
            DiskSupport::Loop(_) => {
                let uname = rustix::system::uname();
                let release = uname.release().to_string_lossy();
                match version_of(&release) {
                    Some(version) if version < IDMAPPED_OVERLAYS => {
                        Err(format!("it takes Linux 5.19 and this is {release}"))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// Why this lasting sandbox cannot be made, if so.
    pub(in crate::native) fn lasting_refusal(&self, spec: &SandboxSpec) -> Result<(), SandboxError> {
        self.no_lasting().map_err(|reason| Self::refuse("lasting sandboxes", reason))?;
        match (&self.disks, spec.limits.disk_bytes) {
            (DiskSupport::Memory, Some(_)) => Err(Self::refuse("disk_mb", NO_LASTING_LIMIT)),
            (DiskSupport::Loop(_), Some(bytes)) if bytes < MIN_LASTING_BYTES => Err(Self::refuse(
                "disk_mb",
                format!("the smallest disk of a lasting sandbox has {} MiB", MIN_LASTING_BYTES >> 20),
            )),
            _ => Ok(()),
        }
    }

    pub(in crate::native) async fn create_lasting(
        &self,
        spec: &SandboxSpec,
        image: &ImageUse,
    ) -> Result<SandboxHandle, SandboxError> {
        let _busy = self.lasting.busy(&spec.id);
        let mut new = NewFiles::make(&self.files, &self.lasting, &spec.id).await?;
        let made = async {
            let (prepared, files) = self.new_files(spec).await?;
            let handle = self.create_with(spec, image, Some(&prepared)).await?;
            drop(prepared);
            self.with_record(handle, files).await
        };
        match made.await {
            Ok(handle) => {
                new.stay();
                Ok(handle)
            }
            Err(error) => {
                new.remove().await;
                Err(error)
            }
        }
    }

    async fn new_files(&self, spec: &SandboxSpec) -> Result<(Prepared, FilesRecord), SandboxError> {
        let DiskSupport::Loop(disks) = &self.disks else {
            let place = Place::Directory(super::files::name(&spec.id)?.to_owned());
            return Ok((Prepared { place, again: false }, FilesRecord::Directory));
        };
        let (disks, path, asked) = (disks.clone(), self.files.disk(&spec.id)?, spec.limits.disk_bytes);
        let made = tokio::task::spawn_blocking(move || {
            let (bytes, room) = match asked {
                Some(bytes) => (bytes, Room::Whole),
                None => (disks.default_bytes()?, Room::Little),
            };
            let (disk, promise) = disks.make_lasting(&path, bytes, room)?;
            Ok((disk, promise, FilesRecord::Disk { bytes, room }))
        });
        let made = made.await.map_err(|error| at("make a disk")(io::Error::other(error)))?;
        let (disk, promise, files) = made.map_err(|error| disk_error(error, asked))?;
        self.lasting.promise(&spec.id, promise);
        Ok((Prepared { place: Place::Disk(disk), again: false }, files))
    }

    /// Notes what a sandbox that was just made is found by. One of which that cannot be told is ended.
    async fn with_record(
        &self,
        mut sandbox: SandboxHandle,
        files: FilesRecord,
    ) -> Result<SandboxHandle, SandboxError> {
        let live = self.live_of(&sandbox);
        let id = sandbox.id.clone();
        match (live, &mut sandbox.backend) {
            (Ok(live), BackendHandle::Native(native)) => {
                let token = self.lasting.live(&id, live.slot, live.init);
                let part = LastingPart { record: Record::new(files, Some(live)), _token: token };
                native.lasting = Some(part);
                Ok(sandbox)
            }
            (Ok(_), _) => Err(foreign()),
            (Err(error), _) => {
                let Parts { id, native } = Parts::of(sandbox)?;
                let ended = ends_soon(&native.pidfd).await;
                self.end(&id, native).await?;
                Err(if ended { lost("its first process has ended") } else { error })
            }
        }
    }

    fn live_of(&self, sandbox: &SandboxHandle) -> Result<Live, SandboxError> {
        let native = handle(sandbox)?;
        let init = Init::of(native.init_pid).map_err(at("look at a sandbox's first process"))?;
        if has_ended(&native.pidfd).map_err(at("look at a sandbox's first process"))? {
            return Err(lost("its first process has ended"));
        }
        let slot = native.slot.number;
        let counted = native.slot.cgroup.as_ref().map(|cgroup| cgroup.counted()).unwrap_or_default();
        let live = Live { boot_id: self.boot_id.clone(), slot, init, counted };
        Ok(live)
    }

    pub(in crate::native) fn lasting_record(
        &self,
        sandbox: &SandboxHandle,
    ) -> Result<SandboxRecord, SandboxError> {
        lasting_part(sandbox)?.record.write()
    }

    pub(in crate::native) async fn keep_lasting(&self, sandbox: &SandboxHandle) -> Result<(), SandboxError> {
        lasting_part(sandbox)?;
        let native = handle(sandbox)?;
        let held = native.image.as_ref().map(|lease| lease.lock_again()).transpose();
        let held = held.map_err(at("hold an image"))?;
        self.slots.keep(&native.slot, native.init_pid, held).await.map_err(lost)
    }

    pub(in crate::native) async fn adopt_lasting(
        &self,
        spec: &SandboxSpec,
        record: &SandboxRecord,
    ) -> Result<Found, SandboxError> {
        let _busy = self.lasting.busy(&spec.id);
        let record = Record::read(record)?;
        let image = image_of(spec)?;
        let reason = match (&record.live, self.lasting.waiting(&spec.id)) {
            (None, _) => "it was stopped".to_owned(),
            (Some(live), _) if live.boot_id != self.boot_id => HOST_REBOOTED.to_owned(),
            (Some(_), Some(Waiting::Ended(reason))) => reason,
            (Some(live), Some(Waiting::Slot(number))) => match self.find(live, number).await? {
                Ok(pidfd) => return self.found(spec, &image, record.clone(), live, pidfd),
                Err(reason) => reason,
            },
            (Some(_), None) => return Err(lost("this server was not started with it")),
        };
        self.end_waiting(&spec.id).await;
        Ok(match self.files.are_there(&spec.id, record.files).await? {
            true => Found::Stopped { reason },
            false => Found::Gone { reason },
        })
    }

    /// The sandbox's first process, if it runs in its slot. The inner error says why it is none any more.
    async fn find(&self, live: &Live, number: u32) -> Result<Result<OwnedFd, String>, SandboxError> {
        if live.slot != number {
            return Ok(Err("its record is of another slot".to_owned()));
        }
        let Some(pidfd) = live.init.find().map_err(at("look for a sandbox"))? else {
            return Ok(Err("its first process has ended".to_owned()));
        };
        let slot = match self.slots.adopt(number) {
            Ok(slot) => slot,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It runs where this server cannot look after it.
                kill_and_wait(pidfd).await.map_err(at("end a sandbox"))?;
                return Ok(Err("it ran in a cgroup that this server does not have".to_owned()));
            }
            Err(error) => return Err(at("open a slot's cgroups")(error)),
        };
        match slot.cgroup.as_ref().map(|cgroup| cgroup.holds(live.init.pid)).transpose() {
            Ok(None | Some(true)) => Ok(Ok(pidfd)),
            Ok(Some(false)) if has_ended(&pidfd).map_err(at("look for a sandbox"))? => {
                Ok(Err("its first process has ended".to_owned()))
            }
            Ok(Some(false)) => {
                kill_and_wait(pidfd).await.map_err(at("end a sandbox"))?;
                Ok(Err("it ran outside of its slot's cgroup".to_owned()))
            }
            Err(error) => Err(cgroup_error(error)),
        }
    }

    fn found(
        &self,
        spec: &SandboxSpec,
        image: &ImageUse,
        record: Record,
        live: &Live,
        pidfd: OwnedFd,
    ) -> Result<Found, SandboxError> {
        let slot = self.slots.adopt(live.slot).map_err(at("open a slot's cgroups"))?;
        let paused = match &slot.cgroup {
            Some(cgroup) => {
                cgroup.resume(live.counted);
                // Without a v2 tree nothing can be paused.
                cgroup.is_told_to_freeze().unwrap_or(false)
            }
            None => false,
        };
        let again = pidfd.try_clone().map_err(at("watch a sandbox"))?;
        let watched =
            self.watchdog.watch(live.init.pid, again, spec.limits.memory_bytes, slot.cgroup.clone());
        let token = self.lasting.live(&spec.id, live.slot, live.init);
        let part = LastingPart { record, _token: token };
        let native = NativeHandle::adopted(slot, live.init.pid, pidfd, watched, spec, paused, part);
        self.lasting.waits_no_more(&spec.id);
        let handle = SandboxHandle {
            id: spec.id.clone(),
            image: image.defaults.clone(),
            agent: None,
            backend: BackendHandle::Native(native),
        };
        Ok(Found::Live { handle, paused })
    }

    /// Ends what an earlier server's sandbox has left in its slot.
    async fn end_waiting(&self, id: &SandboxId) {
        if let Some(Waiting::Slot(number)) = self.lasting.waits_no_more(id) {
            self.slots.end_slot(number).await;
        }
    }

    pub(in crate::native) async fn halt_lasting(
        &self,
        sandbox: SandboxHandle,
    ) -> Result<SandboxRecord, SandboxError> {
        let files = lasting_part(&sandbox)?.record.files;
        let Parts { id, native } = Parts::of(sandbox)?;
        let _busy = self.lasting.busy(&id);
        self.end(&id, native).await?;
        self.lasting.ended(&id);
        self.files.released(&id).await?;
        Record::new(files, None).write()
    }

    pub(in crate::native) async fn revive_lasting(
        &self,
        spec: &SandboxSpec,
        record: &SandboxRecord,
    ) -> Result<SandboxHandle, SandboxError> {
        let _busy = self.lasting.busy(&spec.id);
        self.refusal(spec).await?;
        let image = image_of(spec)?;
        let files = Record::read(record)?.files;
        if !self.files.are_there(&spec.id, files).await? {
            return Err(lost("its files are gone"));
        }
        self.files.released(&spec.id).await?;
        let place = match (files, &self.disks) {
            (FilesRecord::Disk { .. }, DiskSupport::Loop(disks)) => {
                let (disks, path) = (disks.clone(), self.files.disk(&spec.id)?);
                let attached = tokio::task::spawn_blocking(move || disks.attach_lasting(&path)).await;
                let attached = attached.map_err(|error| at("attach a disk")(io::Error::other(error)))?;
                Place::Disk(attached.map_err(|error| disk_error(error, None))?)
            }
            (FilesRecord::Directory, DiskSupport::Memory) => {
                Place::Directory(super::files::name(&spec.id)?.to_owned())
            }
            _ => return Err(lost("its files are those of a server that ran as another user")),
        };
        let prepared = Prepared { place, again: true };
        let handle = self.create_with(spec, &image, Some(&prepared)).await?;
        drop(prepared);
        self.with_record(handle, files).await
    }

    pub(in crate::native) async fn remove_lasting(
        &self,
        id: &SandboxId,
        record: Option<&SandboxRecord>,
    ) -> Result<(), SandboxError> {
        let _busy = self.lasting.busy(id);
        // One that cannot be read was left out at the start, and what ran was swept away; files are found by the id.
        let live = record.and_then(|record| Record::read(record).ok()).and_then(|record| record.live);
        let lost = self.lasting.lost(id);
        let of_record = live.filter(|live| live.boot_id == self.boot_id).map(|live| live.init);
        for init in of_record.into_iter().chain(lost.map(|(_, init)| init)) {
            if let Some(pidfd) = init.find().map_err(at("look for a sandbox"))? {
                kill_and_wait(pidfd).await.map_err(at("end a sandbox"))?;
            }
        }
        self.end_waiting(id).await;
        if let Some((number, _)) = lost {
            self.slots.end_slot(number).await;
        }
        self.lasting.ended(id);
        self.files.remove(id).await?;
        self.lasting.removed(id);
        Ok(())
    }

    /// The end of a lasting sandbox with its files.
    pub(in crate::native) async fn destroy_lasting(&self, parts: Parts) -> Result<(), SandboxError> {
        let Parts { id, native } = parts;
        let _busy = self.lasting.busy(&id);
        self.end(&id, native).await?;
        self.lasting.ended(&id);
        self.files.remove(&id).await?;
        self.lasting.removed(&id);
        Ok(())
    }

    /// Speaks for the disks of sandboxes that an earlier server made.
    pub(in crate::native) async fn promise_again(&self, id: &SandboxId, record: &Record) {
        let (FilesRecord::Disk { bytes, room }, DiskSupport::Loop(disks)) = (record.files, &self.disks)
        else {
            return;
        };
        let Ok(path) = self.files.disk(id) else { return };
        if self.lasting.has_promise(id) {
            return;
        }
        let disks = disks.clone();
        match tokio::task::spawn_blocking(move || disks.promise_again(&path, bytes, room)).await {
            Ok(Ok(promise)) => self.lasting.promise(id, promise),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(Err(error)) => tracing::warn!(sandbox = %id, %error, "the room of its disk is not spoken for"),
            Err(error) => tracing::error!(sandbox = %id, %error, "looking at its disk failed"),
        }
    }
}

/// Why an ordinary user's server cannot limit the disk of a lasting sandbox.
pub(in crate::native) const NO_LASTING_LIMIT: &str = "an ordinary user's server keeps the files of lasting sandboxes in a directory, which has no limit of its own";

fn lasting_part(sandbox: &SandboxHandle) -> Result<&LastingPart, SandboxError> {
    let none = || NativeExecutor::refuse("lasting sandboxes", "this one was made to end with the server");
    handle(sandbox)?.lasting.as_ref().ok_or_else(none)
}

/// Kills a sandbox by its first process, and waits until all of it has ended (pid_namespaces(7)).
pub(in crate::native) async fn kill_and_wait(pidfd: OwnedFd) -> io::Result<()> {
    match rustix::process::pidfd_send_signal(pidfd.as_fd(), Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error.into()),
    }
    // pidfd_open(2): readable when the process has ended; init ends after all others of its namespace.
    let pidfd = socket::watch(pidfd)?;
    pidfd.readable().await.map(|_ready| ())
}

/// See [`crate::sandbox::SandboxExecutor::ended`].
pub(in crate::native) fn ended(pidfd: &OwnedFd, watched: &Arc<Watched>) -> Result<Ended, SandboxError> {
    let pidfd = pidfd.try_clone().and_then(socket::watch).map_err(at("watch a sandbox"))?;
    let watched = Arc::downgrade(watched);
    Ok(Box::pin(async move {
        if let Err(error) = pidfd.readable().await {
            return format!("it cannot be watched: {error}");
        }
        match watched.upgrade() {
            Some(watched) if watched.was_killed() => {
                "it was killed for the memory that its netlink sockets held".to_owned()
            }
            _ => "its first process has ended".to_owned(),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::{IDMAPPED_OVERLAYS, version_of};

    #[test]
    fn a_kernel_is_known_by_its_release() {
        assert_eq!(version_of("6.18.44-fc"), Some((6, 18)));
        assert!(version_of("5.15.0-91-generic") < Some(IDMAPPED_OVERLAYS));
        assert!(version_of("5.19.0") >= Some(IDMAPPED_OVERLAYS));
        assert_eq!(version_of("none"), None);
    }
}
