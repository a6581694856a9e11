//! Namespaces: being in those of the host, entering others, making new ones, widening the id maps.

use crate::attempt::{Attempt, Attempted, Control, Outcome, found, must_fail, policy};
use crate::options::Options;
use crate::sys::{self, address, call};

pub(crate) fn all() -> Vec<Attempt> {
    use Control::{Bare, Host, None, Unmapped};
    vec![
        Attempt::new("share_the_user_namespace", Bare, |o| share(o, "user")),
        Attempt::new("share_the_pid_namespace", Bare, |o| share(o, "pid")),
        Attempt::new("share_the_mount_namespace", Bare, |o| share(o, "mnt")),
        Attempt::new("share_the_network_namespace", Bare, |o| share(o, "net")),
        Attempt::new("share_the_ipc_namespace", Bare, |o| share(o, "ipc")),
        Attempt::new("share_the_uts_namespace", Bare, |o| share(o, "uts")),
        Attempt::new("share_the_cgroup_namespace", Bare, |o| share(o, "cgroup")),
        Attempt::optional("share_the_time_namespace", Bare, &[libc::ENOENT], |o| share(o, "time")),
        Attempt::new("host_namespaces_of_visible_processes", Bare, visible),
        Attempt::new("setns_to_every_visible_namespace", Host, setns),
        Attempt::new("setns_by_pidfd", Host, setns_pidfd),
        Attempt::new(
            "parents_of_own_namespaces",
            None("a parent is beyond the reach of whoever is inside"),
            parents,
        ),
        Attempt::new("unshare_user", Host, |_| unshare(libc::CLONE_NEWUSER)),
        Attempt::new("unshare_mount", Host, |_| unshare(libc::CLONE_NEWNS)),
        Attempt::new("unshare_pid", Host, |_| unshare(libc::CLONE_NEWPID)),
        Attempt::new("unshare_network", Host, |_| unshare(libc::CLONE_NEWNET)),
        Attempt::new("unshare_ipc", Host, |_| unshare(libc::CLONE_NEWIPC)),
        Attempt::new("unshare_uts", Host, |_| unshare(libc::CLONE_NEWUTS)),
        Attempt::new("unshare_cgroup", Host, |_| unshare(libc::CLONE_NEWCGROUP)),
        Attempt::optional("unshare_time", Host, &[libc::EINVAL], |_| unshare(CLONE_NEWTIME)),
        Attempt::new("clone_user", Host, |_| clone(libc::CLONE_NEWUSER as usize)),
        Attempt::new("clone_mount", Host, |_| clone(libc::CLONE_NEWNS as usize)),
        Attempt::new("clone_pid", Host, |_| clone(libc::CLONE_NEWPID as usize)),
        Attempt::new("clone_network", Host, |_| clone(libc::CLONE_NEWNET as usize)),
        Attempt::new("clone_ipc", Host, |_| clone(libc::CLONE_NEWIPC as usize)),
        Attempt::new("clone_uts", Host, |_| clone(libc::CLONE_NEWUTS as usize)),
        Attempt::new("clone_cgroup", Host, |_| clone(libc::CLONE_NEWCGROUP as usize)),
        Attempt::new("clone_user_with_high_bits", Host, |_| clone(1 << 40 | libc::CLONE_NEWUSER as usize)),
        Attempt::new("clone3_plain", Host, |_| clone3(0)),
        Attempt::new("clone3_user", Host, |_| clone3(libc::CLONE_NEWUSER as u64)),
        Attempt::new("clone3_into_a_cgroup", Host, |_| clone3(CLONE_INTO_CGROUP)),
        Attempt::new("rewrite_uid_map", Unmapped, |_| rewrite("uid_map", "0 0 1")),
        Attempt::new("rewrite_gid_map", Unmapped, gid_map),
        // projid_map is not among them: it may be written by anybody, and gives nothing (see set_a_project_id).
        Attempt::new("rewrite_setgroups", Unmapped, |_| rewrite("setgroups", "deny")),
        Attempt::new("rewrite_maps_of_visible_processes", Unmapped, maps_of_others),
        Attempt::new("set_the_clock_of_the_time_namespace", Host, time_offsets),
        Attempt::new("sethostname", Host, |_| {
            policy(call(libc::SYS_sethostname, [address(c"x".as_ptr()), 1]))
        }),
        Attempt::new("setdomainname", Host, |_| {
            policy(call(libc::SYS_setdomainname, [address(c"x".as_ptr()), 1]))
        }),
    ]
}

// linux/sched.h
const CLONE_NEWTIME: i32 = 0x80;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The kinds of namespaces, as they are called in `/proc/PID/ns`.
const KINDS: [&str; 8] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"];

/// Whether this process is in the host's namespace; `ns=KIND:INODE` says which that is.
fn share(options: &Options, kind: &str) -> Attempted {
    let prefix = format!("{kind}:");
    let host = options.all("ns").find_map(|ns| ns.strip_prefix(&prefix));
    let Some(host) = host else {
        // A kernel without namespaces of this kind has none to be shared.
        sys::stat(&format!("/proc/self/ns/{kind}"))?;
        return Err(format!("the option ns for {kind} is missing").into());
    };
    let own = sys::stat(&format!("/proc/self/ns/{kind}"))?.st_ino.to_string();
    if own == host {
        return Ok(Outcome::Escaped(format!("{kind}:[{own}]")));
    }
    Ok(Outcome::Harmless(format!("{kind}:[{own}]")))
}

fn visible(options: &Options) -> Attempted {
    let (mut seen, mut refusal) = (Vec::new(), None);
    for pid in sys::visible_pids() {
        for kind in KINDS {
            match sys::stat(&format!("/proc/{pid}/ns/{kind}")) {
                Ok(stat) if options.all("ns").any(|ns| ns == format!("{kind}:{}", stat.st_ino)) => {
                    seen.push(format!("{kind} of {pid}"));
                }
                Ok(_) => {}
                Err(errno) => refusal = Some(errno),
            }
        }
    }
    seen.truncate(5);
    found(&seen, refusal, "none of them is the host's")
}

fn setns(_: &Options) -> Attempted {
    let mut outcome = Err("there is no namespace".to_owned().into());
    for pid in sys::visible_pids() {
        for kind in KINDS {
            let Ok(fd) = sys::open(&format!("/proc/{pid}/ns/{kind}"), libc::O_RDONLY) else { continue };
            outcome = policy(call(libc::SYS_setns, [usize::try_from(fd).unwrap_or(0), 0]));
            if matches!(outcome, Ok(Outcome::Escaped(_))) {
                return outcome;
            }
            sys::close(fd);
        }
    }
    outcome
}

fn setns_pidfd(_: &Options) -> Attempted {
    let pidfd = call(libc::SYS_pidfd_open, [usize::try_from(sys::pid()).unwrap_or(0), 0])?;
    policy(call(libc::SYS_setns, [pidfd, libc::CLONE_NEWUTS as usize]))
}

/// ioctl_ns(2).
fn parents(options: &Options) -> Attempted {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    const NS_GET_PARENT: libc::c_ulong = 0xb702;
    let (mut seen, mut refusal) = (Vec::new(), None);
    for kind in KINDS {
        let Ok(fd) = sys::open(&format!("/proc/self/ns/{kind}"), libc::O_RDONLY) else { continue };
        for request in [NS_GET_USERNS, NS_GET_PARENT] {
            // SAFETY: these requests take no argument.
            let got = unsafe { libc::ioctl(fd, request) };
            match sys::check(got) {
                Ok(_) => {
                    let inode = sys::stat_fd(got)?.st_ino;
                    if options.all("ns").any(|ns| ns.ends_with(&format!(":{inode}"))) {
                        seen.push(format!("{request:#x} of {kind}"));
                    }
                }
                Err(errno) => refusal = Some(errno),
            }
        }
    }
    found(&seen, refusal, "none of them is the host's")
}

fn unshare(flag: i32) -> Attempted {
    policy(call(libc::SYS_unshare, [flag as usize]))
}

/// clone(2) without a stack: a fork. The child ends at once.
fn clone(flags: usize) -> Attempted {
    let made = call(libc::SYS_clone, [flags | libc::SIGCHLD as usize, 0, 0, 0, 0]);
    end_if_child(made)
}

fn clone3(flags: u64) -> Attempted {
    let mut arguments = [0u64; 11];
    arguments[0] = flags;
    arguments[4] = u64::from(libc::SIGCHLD.unsigned_abs());
    // A cgroup that is no descriptor.
    arguments[10] = 9999;
    end_if_child(call(libc::SYS_clone3, [address(arguments.as_ptr()), size_of_val(&arguments)]))
}

fn end_if_child(made: Result<usize, i32>) -> Attempted {
    if made == Ok(0) {
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    policy(made)
}

fn rewrite(file: &str, text: &str) -> Attempted {
    must_fail(sys::write(&format!("/proc/self/{file}"), text.as_bytes()))
}

fn gid_map(options: &Options) -> Attempted {
    if options.get("control").is_some() {
        // user_namespaces(7): without privilege above, gid_map wants this first.
        sys::write("/proc/self/setgroups", b"deny")?;
    }
    rewrite("gid_map", "0 0 1")
}

fn maps_of_others(options: &Options) -> Attempted {
    let (mut written, mut refusal) = (Vec::new(), None);
    let pids = if options.get("control").is_some() { vec![sys::pid()] } else { sys::visible_pids() };
    for pid in pids {
        for map in ["uid_map", "gid_map"] {
            match sys::write(&format!("/proc/{pid}/{map}"), b"0 0 1") {
                Ok(_) => written.push(format!("{map} of {pid}")),
                Err(errno) => refusal = Some(errno),
            }
        }
    }
    found(&written, refusal, "there is no process")
}

fn time_offsets(options: &Options) -> Attempted {
    if options.get("control").is_some() {
        call(libc::SYS_unshare, [CLONE_NEWTIME as usize])?;
    }
    must_fail(sys::write("/proc/self/timens_offsets", b"monotonic 1 0\n"))
}
