//! A disk of a given size for one sandbox: a sparse file with an ext4 on a loop device.
//!
//! Used where a caller asks for `disk_mb`: the file system itself is the limit. Nothing of it is attached anywhere on
//! the host: the mount is a descriptor (fsmount(2)) that the sandbox's own namespace takes in, the loop device is
//! released with the last mount (`LO_FLAGS_AUTOCLEAR`), and the file has no name from the moment the device has it.
//!
//! The disk of a lasting sandbox is in a file with a name, and has a journal: it outlives the sandbox, the server and
//! a crash of the host. What is on it belongs to the ids of the image store, and each slot shows it with its own.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use serde::{Deserialize, Serialize};

use super::layout::STORE_IDS;

/// The program that makes the file system (e2fsprogs).
const MKE2FS: [&str; 3] = ["/usr/sbin/mke2fs", "/sbin/mke2fs", "/usr/local/sbin/mke2fs"];

/// The smallest disk: below that an ext4 has hardly any room for files.
pub(super) const MIN_BYTES: u64 = 4 << 20;

/// The smallest disk with a journal.
pub(super) const MIN_LASTING_BYTES: u64 = 16 << 20;

/// The size of a lasting sandbox's disk where none is asked for, and the least that it is cut down to where the host has
/// less: half of what is free at most.
const DEFAULT_LASTING_BYTES: u64 = 10 << 30;
const LEAST_LASTING_BYTES: u64 = 256 << 20;

/// From this size on a disk has the larger journal (mke2fs(8), `-J size`, in MiB).
const LARGE_BYTES: u64 = 1 << 30;
const SMALL_JOURNAL_MB: u32 = 4;
const LARGE_JOURNAL_MB: u32 = 16;

/// How much of what a disk may still grow by is spoken for where nobody asked for its size: what a few small files take.
const HEADROOM_BYTES: u64 = 16 << 20;

/// How many empty file systems are kept, each of its own size.
const MAX_TEMPLATES: usize = 16;

/// One step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub(super) struct DiskError {
    step: String,
    pub(super) source: io::Error,
}

fn at<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> DiskError {
    move |error| DiskError { step: step.into(), source: error.into() }
}

/// Where disks come from.
#[derive(Clone, Debug)]
pub(super) struct Disks {
    mke2fs: PathBuf,
    /// Holds an empty file system of each size that was asked for.
    templates: PathBuf,
    /// Held while one of them is made.
    making: Arc<Mutex<()>>,
    /// The disks that there are: what each may still grow by is spoken for.
    promised: Arc<Mutex<Vec<Weak<Promise>>>>,
}

/// A disk that was made, for as long as it is there.
#[derive(Debug)]
pub(super) struct Promise {
    file: File,
    bytes: u64,
    room: Room,
}

/// How much of a disk's room is spoken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Room {
    /// All of it: its size was asked for.
    Whole,
    /// What it has, and a little.
    Little,
}

/// A lasting sandbox's disk on its loop device, which is released when this and the last mount are gone.
#[derive(Debug)]
pub(super) struct Attached {
    _device: File,
    path: PathBuf,
}

impl Attached {
    /// A mount of it, nowhere yet. Blocks.
    pub(super) fn mount(&self) -> Result<OwnedFd, DiskError> {
        mount_ext4(&self.path, &LASTING_OPTIONS)
    }
}

/// Flags of ext4 (Documentation/admin-guide/ext4.rst) for a disk that lasts: an idle one is not written to only to make
/// its tables, and what is removed on it is given back to the host.
const LASTING_OPTIONS: [&str; 2] = ["noinit_itable", "discard"];

impl Promise {
    /// What it has not taken yet of its size.
    fn outstanding(&self) -> u64 {
        // st_blocks counts in 512 bytes (stat(2)).
        let taken = self.file.metadata().map_or(0, |meta| meta.blocks().saturating_mul(512));
        let left = self.bytes.saturating_sub(taken);
        match self.room {
            Room::Whole => left,
            Room::Little => left.min(HEADROOM_BYTES),
        }
    }
}

/// What is left free on the host's file system, in bytes, whatever is asked for.
const KEPT_FREE: u64 = 64 << 20;

impl Disks {
    /// Finds out whether disks can be made on this host; the error is the reason why not.
    pub(super) fn probe(templates: PathBuf) -> Result<Self, String> {
        let Some(mke2fs) = MKE2FS.into_iter().map(Path::new).find(|path| path.exists()) else {
            return Err("mke2fs is not installed (package e2fsprogs)".to_owned());
        };
        if !Path::new("/dev/loop-control").exists() {
            return Err("the kernel has no loop devices (/dev/loop-control)".to_owned());
        }
        let filesystems = std::fs::read_to_string("/proc/filesystems").map_err(|e| e.to_string())?;
        if !filesystems.lines().any(|line| line.trim() == "ext4") {
            return Err("the kernel has no ext4".to_owned());
        }
        let failed = |error: io::Error| format!("{}: {error}", templates.display());
        std::fs::create_dir_all(&templates).map_err(failed)?;
        for entry in std::fs::read_dir(&templates).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // What a server that was killed had begun.
            if entry.file_name().to_string_lossy().starts_with("new-") {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(Self { mke2fs: mke2fs.to_owned(), templates, making: Arc::default(), promised: Arc::default() })
    }

    /// Makes a disk of `bytes` whose root is ready to be an overlay's upper and work directory, owned by `owner`. Its
    /// room is spoken for until the second value is dropped. Blocks.
    pub(super) fn make(&self, bytes: u64, owner: u32) -> Result<(OwnedFd, Arc<Promise>), DiskError> {
        let template = self.template(bytes, false)?;
        // A file without a name: whatever happens to this process, nothing is left.
        let file: File = rustix::fs::open(
            &self.templates,
            OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o600),
        )
        .map_err(at(format!("make a file in {}", self.templates.display())))?
        .into();
        let kept = file.try_clone().map_err(at("keep the file open"))?;
        let promise = self.promise(kept, bytes, Room::Whole)?;
        copy_sparse(&template, &file).map_err(at("copy an empty file system"))?;
        let (device, path) = attach_loop(&file, bytes)?;
        let mount = mount_ext4(&path, &[]);
        // The mount holds the device from here on; without one it is released with this descriptor.
        drop(device);
        let mount = mount?;
        make_layers(&mount, owner)?;
        Ok((mount, promise))
    }

    /// The size of a lasting sandbox's disk that nobody asked a size for.
    pub(super) fn default_bytes(&self) -> Result<u64, DiskError> {
        let free = self.free()?;
        let mut bytes = DEFAULT_LASTING_BYTES;
        while bytes > free / 2 && bytes > LEAST_LASTING_BYTES {
            bytes /= 2;
        }
        Ok(bytes.max(LEAST_LASTING_BYTES))
    }

    /// Makes a disk of `bytes` in the file `path`, which must not be there, ready to be an overlay's upper and work
    /// directory and owned by the store's root. All of it is on the host's disk when this returns. Blocks.
    pub(super) fn make_lasting(
        &self,
        path: &Path,
        bytes: u64,
        room: Room,
    ) -> Result<(Attached, Arc<Promise>), DiskError> {
        let template = self.template(bytes, true)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(at(format!("make {}", path.display())))?;
        let kept = file.try_clone().map_err(at("keep the file open"))?;
        let promise = self.promise(kept, bytes, room)?;
        copy_sparse(&template, &file).map_err(at("copy an empty file system"))?;
        let attached = attach(&file, bytes)?;
        let mount = attached.mount()?;
        make_layers(&mount, STORE_IDS)?;
        // The mount itself is no open file (`O_PATH`).
        let root = rustix::fs::openat(&mount, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(at("open the disk"))?;
        rustix::fs::syncfs(&root).map_err(at("write the disk"))?;
        drop((root, mount));
        file.sync_all().map_err(at("write the disk"))?;
        Ok((attached, promise))
    }

    /// Attaches the disk that is in the file `path` and nowhere attached. Blocks.
    pub(super) fn attach_lasting(&self, path: &Path) -> Result<Attached, DiskError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(at(format!("open {}", path.display())))?;
        let bytes = file.metadata().map_err(at(format!("look at {}", path.display())))?.len();
        attach(&file, bytes)
    }

    /// Speaks for the room of a disk that is there already, whether there is that much or not.
    pub(super) fn promise_again(&self, path: &Path, bytes: u64, room: Room) -> io::Result<Arc<Promise>> {
        let promise = Arc::new(Promise { file: File::open(path)?, bytes, room });
        self.promised.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&promise));
        Ok(promise)
    }

    fn free(&self) -> Result<u64, DiskError> {
        let host = rustix::fs::statvfs(&self.templates).map_err(at("look for space on the host"))?;
        Ok(host.f_bavail.saturating_mul(host.f_frsize))
    }

    /// Takes room for a disk, if all that is spoken for and this leave the host some.
    fn promise(&self, file: File, bytes: u64, room: Room) -> Result<Arc<Promise>, DiskError> {
        // No code panics while it holds the lock halfway through a change.
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        promised.retain(|promise| promise.strong_count() > 0);
        let outstanding: u64 =
            promised.iter().filter_map(Weak::upgrade).map(|promise| promise.outstanding()).sum();
        let free = self.free()?;
        let promise = Arc::new(Promise { file, bytes, room });
        if free.saturating_sub(outstanding) < promise.outstanding().saturating_add(KEPT_FREE) {
            let full = io::Error::from_raw_os_error(libc::ENOSPC);
            return Err(at("make room for a disk")(full));
        }
        promised.push(Arc::downgrade(&promise));
        Ok(promise)
    }

    /// An empty file system of `bytes`, made once for each size.
    fn template(&self, bytes: u64, journal: bool) -> Result<File, DiskError> {
        let path = self.templates.join(format!("ext4-{bytes}{}", if journal { "-journal" } else { "" }));
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map_err(at(format!("open {}", path.display()))),
        }
        let new = self.templates.join(format!("new-{}", uuid::Uuid::now_v7().simple()));
        let made = self.make_template(&new, &path, bytes, journal);
        if made.is_err() {
            // What is left of a failed attempt; the failure itself is what is reported.
            match std::fs::remove_file(&new) {
                Ok(()) | Err(_) => {}
            }
        }
        made
    }

    fn make_template(&self, new: &Path, path: &Path, bytes: u64, journal: bool) -> Result<File, DiskError> {
        self.format(new, bytes, journal)?;
        self.make_room().map_err(at(format!("make room in {}", self.templates.display())))?;
        let file = File::open(new).map_err(at(format!("open {}", new.display())))?;
        std::fs::rename(new, path).map_err(at(format!("rename to {}", path.display())))?;
        Ok(file)
    }

    /// Removes the oldest templates: callers choose sizes, and every size has one.
    fn make_room(&self) -> io::Result<()> {
        let mut templates = Vec::new();
        for entry in std::fs::read_dir(&self.templates)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("ext4-") {
                templates.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        templates.sort();
        let too_many = (templates.len() + 1).saturating_sub(MAX_TEMPLATES);
        for (_, path) in templates.into_iter().take(too_many) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn format(&self, path: &Path, bytes: u64, journal: bool) -> Result<(), DiskError> {
        let file = File::create(path).map_err(at(format!("make {}", path.display())))?;
        file.set_len(bytes).map_err(at(format!("size {}", path.display())))?;
        // A disk that outlives no crash needs no journal. No reserved blocks: there is no root of the host in there.
        let journal_mb = if bytes < LARGE_BYTES { SMALL_JOURNAL_MB } else { LARGE_JOURNAL_MB };
        let features = match journal {
            // What could not be written, since the host's disk is full, must not be built upon.
            true => format!("-O has_journal,^resize_inode -J size={journal_mb} -e remount-ro"),
            false => "-O ^has_journal,^resize_inode".to_owned(),
        };
        let output = Command::new(&self.mke2fs)
            .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0"])
            .args(features.split(' '))
            // What is not written of a new file is zero anyway.
            .args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"])
            .arg(path)
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .map_err(at(format!("run {}", self.mke2fs.display())))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(DiskError { step: format!("mke2fs {}", output.status), source: io::Error::other(said) })
    }
}

/// Copies the parts of `from` that hold data.
fn copy_sparse(from: &File, to: &File) -> io::Result<()> {
    use rustix::fs::SeekFrom;
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            other => other?,
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
        let (mut read_at, mut write_at) = (start, start);
        while read_at < end {
            let wanted = usize::try_from(end - read_at).unwrap_or(usize::MAX);
            if rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), wanted)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        at = end;
    }
}

/// How often another free device is asked for when somebody else took the last.
const LOOP_TRIES: u32 = 64;

fn attach(file: &File, bytes: u64) -> Result<Attached, DiskError> {
    let (device, path) = attach_loop(file, bytes)?;
    Ok(Attached { _device: device, path })
}

/// Makes the two directories that an overlay writes to, as `owner`'s.
fn make_layers(mount: &OwnedFd, owner: u32) -> Result<(), DiskError> {
    for name in ["upper", "work"] {
        rustix::fs::mkdirat(mount, name, Mode::from_raw_mode(0o755)).map_err(at(format!("make {name}")))?;
        let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
        rustix::fs::chownat(mount, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .map_err(at(format!("chown {name}")))?;
    }
    Ok(())
}

/// The loop devices that are in use, with the path of the file that is on each: as the kernel sees it, who may have
/// another view of the file system.
pub(super) fn loop_devices() -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/sys/block")? {
        let entry = entry?;
        match std::fs::read_to_string(entry.path().join("loop/backing_file")) {
            Ok(file) => {
                found.push((
                    Path::new("/dev").join(entry.file_name()),
                    PathBuf::from(file.trim_end_matches('\n')),
                ));
            }
            // No loop device, one that is not in use, or one that is being released.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
                    || matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Whether a file is on a loop device: then it must not come to another one. By device and inode, since its path may
/// look another way from where it was attached. Blocks.
pub(super) fn is_attached(file: &Path) -> io::Result<bool> {
    let wanted = std::fs::metadata(file)?;
    for (device, _) in loop_devices()? {
        let device = match File::open(&device) {
            Ok(device) => device,
            // Removed meanwhile (LOOP_CTL_REMOVE), or never there by that name.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENXIO) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        // SAFETY: the structure holds integers only, for which all-zero is valid.
        let mut info: LoopInfo = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is a whole loop_info64 that lives until the call returns.
        let told =
            unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, std::ptr::from_mut(&mut info)) };
        if told < 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ENXIO) {
                continue;
            }
            return Err(error);
        }
        if (info.device, info.inode) == (wanted.dev(), wanted.ino()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn attach_loop(file: &File, bytes: u64) -> Result<(File, PathBuf), DiskError> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
        .map_err(at("open /dev/loop-control"))?;
    for _ in 0..LOOP_TRIES {
        // SAFETY: takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(at("get a free loop device")(io::Error::last_os_error()));
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(at(format!("open {}", path.display())))?;
        match configure(&device, file, bytes) {
            Ok(()) => return Ok((device, path)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(at(format!("configure {}", path.display()))(error)),
        }
    }
    Err(at("get a free loop device")(io::Error::from(io::ErrorKind::ResourceBusy)))
}

// linux/loop.h
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

fn configure(device: &File, file: &File, bytes: u64) -> io::Result<()> {
    // SAFETY: the structure holds integers only, for which all-zero is valid.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = file.as_raw_fd().unsigned_abs();
    config.block_size = 4096;
    config.info.size_limit = bytes / 4096 * 4096;
    config.info.flags = LO_FLAGS_AUTOCLEAR;
    // SAFETY: `config` is a whole loop_config that lives until the call returns.
    if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, std::ptr::from_ref(&config)) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn mount_ext4(device: &Path, flags: &[&str]) -> Result<OwnedFd, DiskError> {
    let fs = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC).map_err(at("open ext4"))?;
    rustix::mount::fsconfig_set_string(fs.as_fd(), "source", device.as_os_str())
        .map_err(at("set the source"))?;
    for flag in flags {
        rustix::mount::fsconfig_set_flag(fs.as_fd(), *flag).map_err(at(format!("set {flag}")))?;
    }
    rustix::mount::fsconfig_create(fs.as_fd()).map_err(at(format!("mount {}", device.display())))?;
    rustix::mount::fsmount(
        fs.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOATIME,
    )
    .map_err(at("make a mount"))
}
