//! The launcher's own mount namespace: everything that a sandbox's is made from, and nothing else.
//!
//! Every sandbox begins with a copy of this namespace, and copying one costs time for each mount in it; what is not
//! here cannot be reached while a sandbox is being made. The root is a tmpfs:
//!
//! | path | what |
//! |---|---|
//! | `/host/N` | the host's `/usr` (and `/bin`, `/lib*` where they are directories), read-only |
//! | `/skeleton` | the rest of the image `host`: an `/etc` of its own, empty `/home`, `/root`, `/tmp`, `/var` |
//! | `/images` | root file systems of images, one below it each; in a slot: idmapped to the slot's ids |
//! | `/files` | an ordinary user's: the files of lasting sandboxes, one directory below it each |
//! | `/lower` | in a slot: the skeleton, idmapped to the slot's ids |
//! | `/dev`, `/faas`, `/proc` | device nodes; the guest agent; the host's /proc, which the kernel wants to see before it lets a user namespace mount one |
//! | `/empty`, `/upper`, `/root` | an empty directory; mount points for a sandbox's own file system and its root |

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::message::{Failure, LauncherSetup, Step as _};
use crate::native::layout::IdMode;
use crate::native::{host_image, sys};

/// A piece of the host's file system that sandboxes see.
#[derive(Clone, Debug)]
pub(super) struct HostTree {
    /// Where it is in this namespace.
    pub(super) at: PathBuf,
    /// Where it is in a sandbox, without the leading slash.
    pub(super) target: PathBuf,
    /// Or a single file, mounted over another.
    pub(super) is_dir: bool,
}

/// What there is to make sandboxes from.
#[derive(Debug)]
pub(super) struct Template {
    /// The host's program directories.
    pub(super) trees: Vec<HostTree>,
    /// Whether the directory of images is at [`IMAGES`]; otherwise why not.
    pub(super) images: Result<(), String>,
}

/// Where the directory with the files of lasting sandboxes is in this namespace.
pub(super) const FILES: &str = "/files";

/// Where the directory of images is in this namespace.
pub(super) const IMAGES: &str = "/images";

/// The attributes of everything that sandboxes only read.
pub(super) fn read_only() -> libc::mount_attr {
    libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    }
}

/// Moves the process into a mount namespace of its own with the layout above as its root.
pub(super) fn enter(setup: &LauncherSetup) -> Result<Template, Failure> {
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    // SAFETY: the launcher is single-threaded and shares no file system state with anybody.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.step("unshare the mount namespace")?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step("make mounts private")?;
    let root = setup.mount_point.as_path();
    rustix::mount::mount(
        "faas",
        root,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME,
        c"mode=0755,size=64m",
    )
    .step("mount the launcher's root")?;
    for dir in
        ["host", "skeleton", "lower", "images", "files", "dev", "faas", "proc", "empty", "upper", "root"]
    {
        let dir = root.join(dir);
        fs::create_dir(&dir).step(format!("make {}", dir.display()))?;
    }
    let skeleton = root.join("skeleton");
    host_image::build_skeleton(&skeleton)?;
    if let IdMode::OfUser { .. } = setup.ids {
        // All sandboxes have the same ids, so it is theirs from the start.
        let base = setup.ids.of_slot(0).base;
        chown_tree(&skeleton, base).step("give the skeleton to the sandboxes")?;
    }
    let trees = host_trees(root)?;
    make_devices(&root.join("dev"), &devices_of_the_host())?;
    clone_tree(&setup.agent_dir, &root.join("faas"), false, &read_only())?;
    rustix::mount::mount_bind_recursive("/proc", root.join("proc")).step("bind /proc")?;
    let images = match &setup.images_dir {
        Some(dir) => {
            clone_tree(dir, &root.join("images"), false, &read_only())?;
            Ok(())
        }
        None => Err("the server keeps no images".to_owned()),
    };
    if let Some(dir) = &setup.files_dir {
        let mut writable = read_only();
        writable.attr_set &= !libc::MOUNT_ATTR_RDONLY;
        clone_tree(dir, &root.join("files"), false, &writable)?;
    }
    pivot(root)?;
    Ok(Template { trees, images })
}

/// Makes `root` the root of the namespace and lets go of the old one.
pub(super) fn pivot(root: &Path) -> Result<(), Failure> {
    rustix::process::chdir(root).step("enter the new root")?;
    // pivot_root(2): with "." twice the old root ends up on top of the new one, from where it is unmounted.
    rustix::process::pivot_root(".", ".").step("pivot_root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).step("unmount the old root")?;
    rustix::process::chdir("/").step("enter the new root")
}

/// Binds `from` at `to`, with these attributes.
fn clone_tree(from: &Path, to: &Path, recursive: bool, attr: &libc::mount_attr) -> Result<(), Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let step = || format!("bind {}", from.display());
    let (tree, recursive) = match rustix::mount::open_tree(rustix::fs::CWD, from, flags) {
        // In a user namespace what is mounted below may not be uncovered: it comes along.
        Err(rustix::io::Errno::INVAL) if !recursive => {
            let flags = flags | OpenTreeFlags::AT_RECURSIVE;
            (rustix::mount::open_tree(rustix::fs::CWD, from, flags).step(step())?, true)
        }
        other => (other.step(step())?, recursive),
    };
    sys::mount_setattr(&tree, recursive, attr).step(step())?;
    rustix::mount::move_mount(&tree, "", rustix::fs::CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .step(step())
}

/// Brings in the host's program directories, each mount below them as a tree of its own, since an overlay does not
/// cross mounts.
fn host_trees(root: &Path) -> Result<Vec<HostTree>, Failure> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").step("read /proc/self/mountinfo")?;
    let mut trees = Vec::new();
    for dir in host_image::program_dirs().step("look at the host's program directories")? {
        let below = mountinfo
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .map(unescape)
            .filter(|mount| *mount != dir && mount.starts_with(&dir));
        for source in std::iter::once(dir.clone()).chain(below) {
            let at = root.join("host").join(trees.len().to_string());
            let meta = fs::metadata(&source).step(format!("look at {}", source.display()))?;
            if meta.is_dir() {
                fs::create_dir(&at).step(format!("make {}", at.display()))?;
            } else {
                fs::write(&at, "").step(format!("make {}", at.display()))?;
            }
            clone_tree(&source, &at, false, &read_only())?;
            let inside = Path::new("/host").join(trees.len().to_string());
            let target = source.strip_prefix("/").unwrap_or(&source).to_owned();
            trees.push(HostTree { at: inside, target, is_dir: meta.is_dir() });
        }
    }
    Ok(trees)
}

/// Gives a tree to `id`, links themselves and not what they lead to.
fn chown_tree(path: &Path, id: u32) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(id), Some(id))?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            chown_tree(&entry?.path(), id)?;
        }
    }
    Ok(())
}

/// Copies a tree, as `id`'s: for a kernel that cannot idmap the file system it is on.
pub(super) fn copy_tree(from: &Path, to: &Path, id: u32) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    if meta.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
    } else if meta.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy_tree(&from.join(&name), &to.join(&name), id)?;
        }
    } else {
        fs::copy(from, to)?;
    }
    std::os::unix::fs::lchown(to, Some(id), Some(id))?;
    if !meta.is_symlink() {
        fs::set_permissions(to, meta.permissions())?;
    }
    Ok(())
}

/// A path of mountinfo: space, tab, line break and backslash are three octal digits there (proc_pid_mountinfo(5)).
fn unescape(text: &str) -> PathBuf {
    let mut path = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                path.push(byte);
                rest = &after[3..];
            }
            _ => {
                path.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

/// Device nodes as in every container (OCI runtime specification, "Default Devices"), by their major and minor numbers.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Mounts, nowhere yet, of those that are in `/dev`: for whoever can make none.
pub(super) fn devices_of_the_host() -> [rustix::io::Result<OwnedFd>; 6] {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    DEVICES.map(|(name, ..)| rustix::mount::open_tree(rustix::fs::CWD, Path::new("/dev").join(name), clone))
}

/// Mounts a device of the host over `path`. A read-only mount keeps nobody from writing to a device, and everybody from
/// changing its times.
fn mount_device(device: &rustix::io::Result<OwnedFd>, path: &Path) -> Result<(), Failure> {
    let step = || format!("bind {}", path.display());
    fs::write(path, "").step(format!("make {}", path.display()))?;
    let device = device.as_ref().map_err(|errno| *errno).step(step())?;
    let mut attr = read_only();
    attr.attr_set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    sys::mount_setattr(device, false, &attr).step(step())?;
    rustix::mount::move_mount(device, "", rustix::fs::CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .step(step())
}

/// Makes a `/dev` with [`DEVICES`], a tmpfs that sandboxes cannot write to. `of_the_host` are those of the host.
pub(super) fn make_devices(
    dev: &Path,
    of_the_host: &[rustix::io::Result<OwnedFd>; 6],
) -> Result<(), Failure> {
    rustix::mount::mount(
        "dev",
        dev,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NOATIME,
        c"mode=0755,size=64k",
    )
    .step("mount dev")?;
    for ((name, major, minor), device) in DEVICES.into_iter().zip(of_the_host) {
        let path = dev.join(name);
        let made = rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            rustix::fs::makedev(major, minor),
        );
        match made {
            // In a user namespace there are no new devices, only the host's.
            Err(rustix::io::Errno::PERM) => mount_device(device, &path)?,
            other => {
                other.step(format!("make {}", path.display()))?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).step("set a device's mode")?;
            }
        }
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        std::os::unix::fs::symlink(target, dev.join(name)).step(format!("make dev/{name}"))?;
    }
    for name in ["pts", "shm"] {
        fs::create_dir(dev.join(name)).step(format!("make dev/{name}"))?;
    }
    let read_only = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC;
    rustix::mount::mount_remount(dev, read_only, c"").step("make dev read-only")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::unescape;

    #[test]
    fn a_path_of_mountinfo_is_read_as_it_is() {
        assert_eq!(unescape(r"/usr/a\040b\134c"), PathBuf::from(r"/usr/a b\c"));
        assert_eq!(unescape(r"/usr/a\04"), PathBuf::from(r"/usr/a\04"));
    }
}
