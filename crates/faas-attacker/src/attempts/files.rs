//! Reading and changing the host's files: by their paths, through /proc of other processes, by links.

use std::path::Path;

use crate::attempt::{Attempt, Attempted, Control, found, must_fail};
use crate::options::Options;
use crate::sys;

pub(crate) fn all() -> Vec<Attempt> {
    use Control::Bare;
    let mut all = vec![
        Attempt::new("host_files_by_path", Bare, by_path),
        Attempt::new("private_paths_of_the_host", Bare, private_paths),
        Attempt::new("roots_of_visible_processes", Bare, |o| through_proc(o, "root", "")),
        Attempt::new("working_directories_of_visible_processes", Bare, |o| through_proc(o, "cwd", UP)),
        Attempt::new("descriptors_of_visible_processes", Bare, descriptors),
        Attempt::new("mapped_files_of_visible_processes", Bare, mapped_files),
        Attempt::new("symlinks_to_the_host", Bare, symlinks),
        Attempt::new("hard_links_to_host_files", Bare, hard_links),
        Attempt::new("hard_link_to_an_open_file", Bare, link_open_file),
        Attempt::optional("set_a_project_id", Bare, &[libc::EOPNOTSUPP, libc::ENOTTY], project_id),
        Attempt::new("redirect_a_directory_of_the_overlay", Control::None(OVERLAY), redirect),
    ];
    all.extend(super::roots::all());
    all.extend(super::programs::all());
    all
}

pub(super) const UP: &str = "/../../../../../../../../../../../../../../../..";

const OVERLAY: &str = "the attribute means something to an overlay only";

fn by_path(options: &Options) -> Attempted {
    let token = options.token()?;
    let (mut seen, mut refusal) = (Vec::new(), None);
    for file in options.all("file") {
        match sys::holds(file, &token) {
            Ok(true) => seen.push(file.to_owned()),
            Ok(false) => return Err(format!("{file} is there and is another").into()),
            Err(errno) => refusal = Some(errno),
        }
    }
    found(&seen, refusal, "no file was given")
}

/// What an image of a sandbox has no reason to hold. Being there is enough.
fn private_paths(_: &Options) -> Attempted {
    const PRIVATE: [&str; 12] = [
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/sudoers",
        "/etc/ssh",
        "/etc/fstab",
        "/sys/kernel",
        "/sys/fs/cgroup",
        "/boot/vmlinuz",
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/run/systemd",
        "/var/lib/dpkg",
    ];
    let seen: Vec<_> =
        PRIVATE.into_iter().filter(|path| Path::new(path).exists()).map(str::to_owned).collect();
    found(&seen, None, "none of them is there")
}

/// Inside, whoever is visible. On the host the victims are enough: other processes are left alone.
pub(super) fn looked_at(options: &Options) -> Result<Vec<i32>, String> {
    if options.get("control").is_some() { options.outside_pids() } else { Ok(sys::visible_pids()) }
}

/// `/proc/PID/WHAT` + `up` + the path of a file of the host.
fn through_proc(options: &Options, what: &str, up: &str) -> Attempted {
    let token = options.token()?;
    let (mut seen, mut refusal) = (Vec::new(), None);
    for pid in looked_at(options)? {
        for file in options.all("file") {
            match sys::holds(&format!("/proc/{pid}/{what}{up}{file}"), &token) {
                Ok(true) => seen.push(format!("{file} through {pid}")),
                Ok(false) => {}
                Err(errno) => refusal = Some(errno),
            }
        }
        if seen.len() > 3 {
            break;
        }
    }
    found(&seen, refusal, "no process leads there")
}

fn descriptors(options: &Options) -> Attempted {
    let token = options.token()?;
    let (mut seen, mut refusal) = (Vec::new(), None);
    for pid in looked_at(options)? {
        let dir = format!("/proc/{pid}/fd");
        for fd in sys::names(&dir).unwrap_or_default() {
            let path = format!("{dir}/{fd}");
            // Opening anything but files and directories may wait for somebody.
            let Ok(stat) = sys::stat(&path) else { continue };
            let holds = match stat.st_mode & libc::S_IFMT {
                libc::S_IFREG => sys::holds(&path, &token),
                libc::S_IFDIR => options
                    .all("file")
                    .map(|file| sys::holds(&format!("{path}{UP}{file}"), &token))
                    .find(|held| *held == Ok(true))
                    .unwrap_or(Ok(false)),
                _ => Ok(false),
            };
            match holds {
                Ok(true) => seen.push(format!("descriptor {fd} of {pid}")),
                Ok(false) => {}
                Err(errno) => refusal = Some(errno),
            }
        }
        if seen.len() > 3 {
            break;
        }
    }
    found(&seen, refusal, "no descriptor leads there")
}

fn mapped_files(options: &Options) -> Attempted {
    let token = options.token()?;
    let (mut seen, mut refusal) = (Vec::new(), None);
    for pid in looked_at(options)? {
        let dir = format!("/proc/{pid}/map_files");
        for range in sys::names(&dir).unwrap_or_default() {
            match sys::holds(&format!("{dir}/{range}"), &token) {
                Ok(true) => seen.push(format!("a mapping of {pid}")),
                Ok(false) => {}
                Err(errno) => refusal = Some(errno),
            }
        }
    }
    found(&seen, refusal, "nothing of the host is mapped")
}

fn symlinks(options: &Options) -> Attempted {
    let token = options.token()?;
    let (mut seen, mut refusal) = (Vec::new(), None);
    let at = format!("{}/link-{}", options.need("dir")?, sys::pid());
    for file in options.all("file") {
        for target in [file.to_owned(), format!("{UP}{file}"), format!("/proc/1/root{file}")] {
            std::os::unix::fs::symlink(&target, &at).map_err(|error| sys::number(&error))?;
            match sys::holds(&at, &token) {
                Ok(true) => seen.push(target),
                Ok(false) => {}
                Err(errno) => refusal = Some(errno),
            }
            std::fs::remove_file(&at).map_err(|error| sys::number(&error))?;
        }
    }
    found(&seen, refusal, "no link leads there")
}

/// Links what may not be read to where it may.
fn hard_links(options: &Options) -> Attempted {
    let token = options.token()?;
    let secret = format!("{}/secret", options.need("usr_dir")?);
    let (mut seen, mut refusal) = (Vec::new(), None);
    for (number, source) in options.all("file").chain([secret.as_str()]).enumerate() {
        let target = format!("{}/hard-{}-{number}", options.need("dir")?, sys::pid());
        match std::fs::hard_link(source, &target) {
            Ok(()) => match sys::holds(&target, &token) {
                Ok(true) => seen.push(source.to_owned()),
                Ok(false) => {}
                Err(errno) => refusal = Some(errno),
            },
            Err(error) => refusal = Some(sys::number(&error)),
        }
    }
    found(&seen, refusal, "no link could be made")
}

/// linkat(2) of what a descriptor refers to, past the path.
fn link_open_file(options: &Options) -> Attempted {
    let source = sys::open(&format!("{}/readable", options.need("usr_dir")?), libc::O_RDONLY)?;
    let (from, to) =
        (sys::c(&format!("/proc/self/fd/{source}")), format!("{}/open-{}", options.need("dir")?, sys::pid()));
    let to = sys::c(&to);
    // SAFETY: both paths live until the call returns.
    let linked = unsafe {
        libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::AT_SYMLINK_FOLLOW)
    };
    must_fail(sys::check(linked))
}

/// ioctl_fs(2): a file of its own into another project, whose quota it would then use.
fn project_id(options: &Options) -> Attempted {
    const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
    const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
    let path = format!("{}/project-{}", options.need("dir")?, sys::pid());
    sys::make_file(&path, b"", 0o644)?;
    let fd = sys::open(&path, libc::O_RDWR)?;
    // struct fsxattr: flags, extent size, number of extents, project, and more.
    let mut attributes = [0u32; 7];
    // SAFETY: both requests take a whole fsxattr of 28 bytes, which lives until the calls return.
    unsafe {
        sys::check(libc::ioctl(fd, FS_IOC_FSGETXATTR, attributes.as_mut_ptr()))?;
        attributes[3] = attributes[3].wrapping_add(1);
        must_fail(sys::check(libc::ioctl(fd, FS_IOC_FSSETXATTR, attributes.as_ptr())))
    }
}

fn redirect(options: &Options) -> Attempted {
    let dir = format!("{}/redirect-{}", options.need("dir")?, sys::pid());
    std::fs::create_dir(&dir).map_err(|error| sys::number(&error))?;
    let at = sys::c(&dir);
    for (name, value) in [
        (c"user.overlay.redirect", "/../../.."),
        (c"trusted.overlay.redirect", "/../../.."),
        (c"user.overlay.opaque", "y"),
        (c"user.overlay.metacopy", ""),
    ] {
        // SAFETY: all pointers live until the call returns, and the length is that of the value. A refusal is as good.
        unsafe { libc::setxattr(at.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    }
    let seen = sys::names(&dir)?;
    found(&seen, None, "the directory stays empty")
}
