//! A disk of a given size for one sandbox: a sparse file with an ext4 on a loop device.
//!
//! Used where a caller asks for `disk_mb`: the file system itself is the limit. Nothing of it is attached anywhere on
//! the host: the mount is a descriptor (fsmount(2)) that the sandbox's own namespace takes in, the loop device is
//! released with the last mount (`LO_FLAGS_AUTOCLEAR`), and the file has no name from the moment the device has it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// The program that makes the file system (e2fsprogs).
const MKE2FS: [&str; 3] = ["/usr/sbin/mke2fs", "/sbin/mke2fs", "/usr/local/sbin/mke2fs"];

/// The smallest disk: below that an ext4 has hardly any room for files.
pub(super) const MIN_BYTES: u64 = 4 << 20;

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
}

impl Promise {
    /// What it has not taken yet of its size.
    fn outstanding(&self) -> u64 {
        // st_blocks counts in 512 bytes (stat(2)).
        let taken = self.file.metadata().map_or(0, |meta| meta.blocks().saturating_mul(512));
        self.bytes.saturating_sub(taken)
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
        let template = self.template(bytes)?;
        // A file without a name: whatever happens to this process, nothing is left.
        let file: File = rustix::fs::open(
            &self.templates,
            OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o600),
        )
        .map_err(at(format!("make a file in {}", self.templates.display())))?
        .into();
        let promise = self.promise(file.try_clone().map_err(at("keep the file open"))?, bytes)?;
        copy_sparse(&template, &file).map_err(at("copy an empty file system"))?;
        let (device, path) = attach_loop(&file, bytes)?;
        let mount = mount_ext4(&path);
        // The mount holds the device from here on; without one it is released with this descriptor.
        drop(device);
        let mount = mount?;
        for name in ["upper", "work"] {
            rustix::fs::mkdirat(&mount, name, Mode::from_raw_mode(0o755))
                .map_err(at(format!("make {name}")))?;
            let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
            rustix::fs::chownat(&mount, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                .map_err(at(format!("chown {name}")))?;
        }
        Ok((mount, promise))
    }

    /// Takes room for a disk, if all that is spoken for and this leave the host some.
    fn promise(&self, file: File, bytes: u64) -> Result<Arc<Promise>, DiskError> {
        // No code panics while it holds the lock halfway through a change.
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        promised.retain(|promise| promise.strong_count() > 0);
        let outstanding: u64 =
            promised.iter().filter_map(Weak::upgrade).map(|promise| promise.outstanding()).sum();
        let host = rustix::fs::statvfs(&self.templates).map_err(at("look for space on the host"))?;
        let free = host.f_bavail.saturating_mul(host.f_frsize);
        if free.saturating_sub(outstanding) < bytes.saturating_add(KEPT_FREE) {
            let full = io::Error::from_raw_os_error(libc::ENOSPC);
            return Err(at("make room for a disk")(full));
        }
        let promise = Arc::new(Promise { file, bytes });
        promised.push(Arc::downgrade(&promise));
        Ok(promise)
    }

    /// An empty file system of `bytes`, made once for each size.
    fn template(&self, bytes: u64) -> Result<File, DiskError> {
        let path = self.templates.join(format!("ext4-{bytes}"));
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map_err(at(format!("open {}", path.display()))),
        }
        let new = self.templates.join(format!("new-{}", uuid::Uuid::now_v7().simple()));
        let made = self.make_template(&new, &path, bytes);
        if made.is_err() {
            // What is left of a failed attempt; the failure itself is what is reported.
            match std::fs::remove_file(&new) {
                Ok(()) | Err(_) => {}
            }
        }
        made
    }

    fn make_template(&self, new: &Path, path: &Path, bytes: u64) -> Result<File, DiskError> {
        self.format(new, bytes)?;
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

    fn format(&self, path: &Path, bytes: u64) -> Result<(), DiskError> {
        let file = File::create(path).map_err(at(format!("make {}", path.display())))?;
        file.set_len(bytes).map_err(at(format!("size {}", path.display())))?;
        // No journal: it outlives no crash anyway. No reserved blocks: there is no root of the host in there.
        let output = Command::new(&self.mke2fs)
            .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-O", "^has_journal,^resize_inode"])
            .args(["-E", "lazy_itable_init=1,nodiscard"])
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

fn mount_ext4(device: &Path) -> Result<OwnedFd, DiskError> {
    let fs = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC).map_err(at("open ext4"))?;
    rustix::mount::fsconfig_set_string(fs.as_fd(), "source", device.as_os_str())
        .map_err(at("set the source"))?;
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
