//! Changing what is mounted where.

use crate::attempt::{Attempt, Attempted, Control, found, policy};
use crate::options::Options;
use crate::sys::{self, address, call};

pub(crate) fn all() -> Vec<Attempt> {
    use Control::{Bare, Host};
    vec![
        Attempt::new("mount_a_tmpfs", Host, |o| mount(o, "tmpfs", "tmpfs", 0)),
        Attempt::new("mount_a_proc", Host, |o| mount(o, "proc", "proc", 0)),
        Attempt::new("mount_a_sysfs", Host, |o| mount(o, "sysfs", "sysfs", 0)),
        Attempt::new("mount_a_cgroup2", Host, |o| mount(o, "cgroup2", "cgroup2", 0)),
        Attempt::new("mount_an_overlay", Host, |o| mount(o, "overlay", "overlay", 0)),
        Attempt::new("bind_a_directory", Host, |o| mount(o, "/usr", "", libc::MS_BIND)),
        Attempt::new("bind_the_whole_tree", Host, |o| mount(o, "/", "", libc::MS_BIND | libc::MS_REC)),
        Attempt::new("bind_a_root_of_another_process", Host, |o| mount(o, "/proc/1/root", "", libc::MS_BIND)),
        Attempt::new("remount_writable", Host, |_| change("/proc", libc::MS_REMOUNT | libc::MS_BIND)),
        Attempt::new("make_mounts_shared", Host, |_| change("/", libc::MS_SHARED | libc::MS_REC)),
        Attempt::new("unmount_proc", Host, unmount),
        Attempt::new("pivot_root", Host, pivot_root),
        Attempt::new("fsopen", Host, |_| policy(call(libc::SYS_fsopen, [address(c"tmpfs".as_ptr()), 0]))),
        Attempt::new("fsconfig", Host, |_| policy(call(libc::SYS_fsconfig, [BAD_FD, 6, 0, 0, 0]))),
        Attempt::new("fsmount", Host, |_| policy(call(libc::SYS_fsmount, [BAD_FD, 0, 0]))),
        Attempt::new("fspick", Host, |_| policy(call(libc::SYS_fspick, [CWD, address(c"/".as_ptr()), 0]))),
        Attempt::new("open_tree", Host, open_tree),
        Attempt::new("move_mount", Host, move_mount),
        Attempt::new("mount_setattr", Host, mount_setattr),
        Attempt::optional("open_tree_attr", Host, &[libc::ENOSYS], |_| {
            policy(call(OPEN_TREE_ATTR, [BAD_FD, address(c"".as_ptr()), 0, 0, 0]))
        }),
        Attempt::optional("statmount", Host, &[libc::ENOSYS], |_| policy(call(STATMOUNT, [0, 0, 0, 0]))),
        Attempt::optional("listmount", Host, &[libc::ENOSYS], |_| policy(call(LISTMOUNT, [0, 0, 0, 0]))),
        Attempt::new("flags_of_all_mounts", Bare, flags),
    ]
}

const BAD_FD: usize = usize::MAX;
const CWD: usize = libc::AT_FDCWD as usize;

// Numbers from 424 on are the same on all architectures.
const STATMOUNT: libc::c_long = 457;
const LISTMOUNT: libc::c_long = 458;
const OPEN_TREE_ATTR: libc::c_long = 467;

fn mount(options: &Options, source: &str, kind: &str, flags: libc::c_ulong) -> Attempted {
    let target = format!("{}/mount-{}", options.need("dir")?, sys::pid());
    std::fs::create_dir(&target).map_err(|error| sys::number(&error))?;
    let (source, kind, target) = (sys::c(source), sys::c(kind), sys::c(&target));
    // An overlay without its options is looked at and refused; everything else is carried out.
    // SAFETY: the strings live until the call returns; no data is passed.
    policy(sys::check(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, std::ptr::null())
    }))
}

fn change(target: &str, flags: libc::c_ulong) -> Attempted {
    let target = sys::c(target);
    // SAFETY: the target lives until the call returns; source and kind may be null for a change.
    policy(sys::check(unsafe {
        libc::mount(std::ptr::null(), target.as_ptr(), std::ptr::null(), flags, std::ptr::null())
    }))
}

fn unmount(_: &Options) -> Attempted {
    for target in [c"/proc/sys", c"/proc/kcore", c"/usr"] {
        // SAFETY: the target is a C string.
        if sys::check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) }).is_ok() {
            return policy(Ok(0));
        }
    }
    // SAFETY: as above.
    policy(sys::check(unsafe { libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH) }))
}

fn pivot_root(_: &Options) -> Attempted {
    policy(call(libc::SYS_pivot_root, [address(c".".as_ptr()), address(c".".as_ptr())]))
}

fn open_tree(_: &Options) -> Attempted {
    const CLONE: usize = 1;
    policy(call(libc::SYS_open_tree, [CWD, address(c"/".as_ptr()), CLONE]))
}

fn move_mount(_: &Options) -> Attempted {
    let path = address(c"/".as_ptr());
    policy(call(libc::SYS_move_mount, [CWD, path, CWD, path, 0]))
}

fn mount_setattr(_: &Options) -> Attempted {
    // SAFETY: the structure holds integers only, for which all-zero is valid. It asks for no change.
    let attr: libc::mount_attr = unsafe { std::mem::zeroed() };
    let path = address(c"/".as_ptr());
    policy(call(libc::SYS_mount_setattr, [CWD, path, 0, address(&raw const attr), size_of_val(&attr)]))
}

/// What `/proc/self/mountinfo` (proc_pid_mountinfo(5)) says: everything `nosuid`; everything `nodev` but the two that
/// have devices, and where a device is a mount of its own; writable only what is the sandbox's own.
fn flags(_: &Options) -> Attempted {
    const WITH_DEVICES: [&str; 2] = ["/dev", "/dev/pts"];
    const WRITABLE: [&str; 6] = ["/", "/dev/pts", "/dev/shm", "/run", "/.faas/run", "/proc"];
    let mut odd = Vec::new();
    for line in sys::read_text("/proc/self/mountinfo")?.lines() {
        let mut fields = line.split(' ').skip(4);
        let (at, flags) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let has = |flag: &str| flags.split(',').any(|other| other == flag);
        // A device that is laid over a file of /proc to hide it is a mount of its own.
        let hides =
            at.starts_with("/proc/") && sys::stat(at).is_ok_and(|stat| stat.st_rdev == libc::makedev(1, 3));
        if !has("nosuid") {
            odd.push(format!("{at} without nosuid"));
        }
        let is_device = at.starts_with("/dev/")
            && sys::stat(at).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFCHR);
        if !has("nodev") && !hides && !is_device && !WITH_DEVICES.contains(&at) {
            odd.push(format!("{at} without nodev"));
        }
        if !has("ro") && !WRITABLE.contains(&at) {
            odd.push(format!("{at} writable"));
        }
    }
    odd.truncate(10);
    found(&odd, None, "as they should be")
}
