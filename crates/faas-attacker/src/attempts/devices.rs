//! Device nodes: making them, opening those that are there, changing those that all sandboxes share.

use crate::attempt::{Attempt, Attempted, Control, found};
use crate::options::Options;
use crate::sys;

pub(crate) fn all() -> Vec<Attempt> {
    use Control::Bare;
    vec![
        Attempt::new("make_block_devices", Bare, |o| make(o, libc::S_IFBLK, &BLOCK)),
        Attempt::new("make_character_devices", Bare, |o| make(o, libc::S_IFCHR, &CHARACTER)),
        Attempt::new("devices_in_dev", Bare, in_dev),
        Attempt::new("change_devices_that_all_share", Bare, change),
        Attempt::new("add_to_dev", Bare, add),
        Attempt::new("devices_of_the_host_by_path", Bare, by_path),
    ]
}

/// Disks and what stands before them (Documentation/admin-guide/devices.txt).
const BLOCK: [(&str, u32, u32); 8] = [
    ("ram", 1, 0),
    ("sda", 8, 0),
    ("sda1", 8, 1),
    ("loop", 7, 0),
    ("dm", 253, 0),
    ("vda", 254, 0),
    ("vda", 252, 0),
    ("nvme", 259, 0),
];

const CHARACTER: [(&str, u32, u32); 16] = [
    ("mem", 1, 1),
    ("kmem", 1, 2),
    ("port", 1, 4),
    ("kmsg", 1, 11),
    ("tty0", 4, 0),
    ("ttyS0", 4, 64),
    ("console", 5, 1),
    ("loop-control", 10, 237),
    ("mapper", 10, 236),
    ("fuse", 10, 229),
    ("kvm", 10, 232),
    ("snapshot", 10, 231),
    ("tun", 10, 200),
    ("uhid", 10, 239),
    ("cpu0-msr", 202, 0),
    ("sg0", 21, 0),
];

fn make(options: &Options, kind: u32, devices: &[(&str, u32, u32)]) -> Attempted {
    let (mut made, mut refusal) = (Vec::new(), None);
    for dir in [options.need("dir")?, "/dev/shm", "/run", "/.faas/run", "/dev/pts"] {
        // On the host only where the test clears up.
        if options.get("control").is_some() && options.get("dir") != Some(dir) {
            continue;
        }
        for (name, major, minor) in devices {
            let path = format!("{dir}/node-{}-{major}-{minor}", sys::pid());
            let at = sys::c(&path);
            // SAFETY: the path lives until the call returns.
            match sys::check(unsafe { libc::mknod(at.as_ptr(), kind | 0o666, libc::makedev(*major, *minor)) })
            {
                Ok(_) => {
                    let opened = sys::open(&path, libc::O_RDONLY | libc::O_NONBLOCK);
                    made.push(format!(
                        "{name} (open: {})",
                        opened.map_or_else(sys::errno_name, |_| "yes".to_owned())
                    ));
                    std::fs::remove_file(&path).map_err(|error| sys::number(&error))?;
                }
                Err(errno) => refusal = Some(errno),
            }
        }
    }
    found(&made, refusal, "nothing was tried")
}

/// What a container's `/dev` has (OCI runtime specification, "Default Devices"): major and minor numbers.
const USUAL: [(u32, u32); 7] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];

/// Majors of the slaves of a devpts of its own.
const PTY_SLAVES: std::ops::RangeInclusive<u32> = 136..=143;

fn in_dev(_: &Options) -> Attempted {
    let mut seen = Vec::new();
    let mut dirs = vec!["/dev".to_owned()];
    while let Some(dir) = dirs.pop() {
        for name in sys::names(&dir).unwrap_or_default() {
            let path = format!("{dir}/{name}");
            let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() && dirs.len() < 100 {
                dirs.push(path);
                continue;
            }
            let Ok(stat) = sys::stat(&path) else { continue };
            let (major, minor) = (libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
            let is_usual = match stat.st_mode & libc::S_IFMT {
                libc::S_IFBLK => false,
                libc::S_IFCHR => USUAL.contains(&(major, minor)) || PTY_SLAVES.contains(&major),
                _ => true,
            };
            if !is_usual {
                seen.push(format!("{path} ({major}, {minor})"));
            }
        }
    }
    seen.truncate(10);
    found(&seen, None, "only what every container has")
}

/// In the control a null device of its own stands for the one that all sandboxes share.
fn change(options: &Options) -> Attempted {
    let node = if options.get("control").is_some() {
        let node = format!("{}/null-{}", options.need("dir")?, sys::pid());
        let at = sys::c(&node);
        // SAFETY: the path lives until the call returns.
        sys::check(unsafe { libc::mknod(at.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, 3)) })?;
        node
    } else {
        "/dev/null".to_owned()
    };
    let (at, other) = (sys::c(&node), sys::c(&format!("{node}.aside")));
    let mut changed = Vec::new();
    let mut refusal = None;
    let mut note = |what: &str, result: libc::c_int| match sys::check(result) {
        Ok(_) => changed.push(what.to_owned()),
        Err(errno) => refusal = Some(errno),
    };
    // SAFETY: the paths live until the calls return; null times mean now.
    unsafe {
        note("mode", libc::chmod(at.as_ptr(), 0o600));
        note("owner", libc::chown(at.as_ptr(), 0, 0));
        note("times", libc::utimensat(libc::AT_FDCWD, at.as_ptr(), std::ptr::null(), 0));
        note("rename", libc::rename(at.as_ptr(), other.as_ptr()));
        note("remove", libc::unlink(at.as_ptr()));
    }
    found(&changed, refusal, "nothing was tried")
}

fn add(options: &Options) -> Attempted {
    let dir = if options.get("control").is_some() { options.need("dir")? } else { "/dev" };
    let path = format!("{dir}/added-{}", sys::pid());
    let made = [
        ("file", sys::make_file(&path, b"", 0o666)),
        ("directory", std::fs::create_dir(format!("{path}.d")).map_err(|error| sys::number(&error))),
        ("link", std::os::unix::fs::symlink("x", format!("{path}.l")).map_err(|error| sys::number(&error))),
    ];
    let refusal = made.iter().find_map(|(_, result)| result.err());
    let made: Vec<_> =
        made.iter().filter(|(_, result)| result.is_ok()).map(|(what, _)| (*what).to_owned()).collect();
    found(&made, refusal, "nothing was tried")
}

fn by_path(_: &Options) -> Attempted {
    let (mut seen, mut refusal) = (Vec::new(), None);
    for name in
        ["mem", "kmsg", "kvm", "fuse", "net/tun", "loop-control", "loop0", "sda", "vda", "vsock", "console"]
    {
        match sys::open(&format!("/dev/{name}"), libc::O_RDONLY | libc::O_NONBLOCK) {
            Ok(_) => seen.push(name.to_owned()),
            Err(errno) => refusal = Some(errno),
        }
    }
    found(&seen, refusal, "nothing was tried")
}
