//! What the gateway was started with and must not pass on. For the control the attempts are started by the tool
//! `starter` themselves.

use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;

use crate::attempt::{Attempt, Attempted, Control, Outcome, found, policy};
use crate::options::Options;
use crate::sys::{self, address, call};

pub(crate) fn all() -> Vec<Attempt> {
    use Control::{Bare, Started};
    let mut all = vec![
        Attempt::new("descriptors_of_the_command", Started, own_descriptors),
        Attempt::new("descriptors_of_the_agent", Started, agents_descriptors),
        Attempt::new("environments_of_visible_processes", Started, environments),
        Attempt::new("memory_of_the_agent", Bare, memory),
        Attempt::new("session_keyring", Started, keyring),
        Attempt::new("keys_in_proc", Started, keys),
        Attempt::new("controlling_terminal", Started, terminal),
        Attempt::new("push_input_into_a_terminal", Started, push_input),
        Attempt::optional(
            "read_the_console",
            Bare,
            &[libc::ENOENT, libc::ENXIO, libc::EIO, libc::ENODEV],
            |_| console(),
        ),
        Attempt::new("ignored_and_blocked_signals", Started, signals),
        Attempt::new("working_directories", Started, working_directories),
        Attempt::new("the_gateways_directory_in_mounts", Started, data_dir_in_mounts),
        Attempt::new("cgroup_of_the_gateway", Bare, cgroup),
        Attempt::new("file_mode_mask", Started, |_| match sys::status_of("self", "Umask")?.as_str() {
            "0022" => Ok(Outcome::Harmless("0022".to_owned())),
            other => Ok(Outcome::Escaped(other.to_owned())),
        }),
    ];
    all.extend(super::limits::all());
    all
}

/// Number and target of each descriptor that was open when the program began.
static AT_START: OnceLock<Vec<(String, String)>> = OnceLock::new();

/// Remembers which descriptors are open. Called before anything else.
pub(crate) fn note_descriptors() {
    let noted = AT_START.set(descriptors("self"));
    // Only the first call counts, and there is one.
    match noted {
        Ok(()) | Err(_) => {}
    }
}

fn descriptors(pid: &str) -> Vec<(String, String)> {
    let dir = format!("/proc/{pid}/fd");
    let names = sys::names(&dir).unwrap_or_default();
    // The one that the directory is read by is gone by now.
    names
        .into_iter()
        .filter_map(|name| Some((name.clone(), sys::link(&format!("{dir}/{name}")).ok()?)))
        .collect()
}

fn own_descriptors(_: &Options) -> Attempted {
    let more: Vec<_> = AT_START
        .get()
        .into_iter()
        .flatten()
        .filter(|(number, _)| !matches!(number.as_str(), "0" | "1" | "2"))
        .map(|(number, target)| format!("{number}: {target}"))
        .collect();
    found(&more, None, "0, 1 and 2")
}

/// Processes that are not this execution's: whoever was there before it. Inside, these are init, keeper and agent.
fn others() -> Vec<i32> {
    // SAFETY: no memory is touched.
    let own = unsafe { libc::getsid(0) };
    let session = |pid: i32| {
        // SAFETY: plain integers.
        unsafe { libc::getsid(pid) }
    };
    sys::visible_pids().into_iter().filter(|pid| session(*pid) != own).collect()
}

/// The agent has /dev/null, its connection, its listener, a signalfd and the pipes of its executions.
fn agents_descriptors(options: &Options) -> Attempted {
    let mut odd = Vec::new();
    let pids = if options.get("control").is_some() { vec![sys::pid()] } else { others() };
    for pid in &pids {
        for (number, target) in descriptors(&pid.to_string()) {
            let usual = match number.as_str() {
                "0" | "1" | "2" => target == "/dev/null",
                _ => ["socket:[", "pipe:[", "anon_inode:[signalfd]"]
                    .iter()
                    .any(|kind| target.starts_with(kind)),
            };
            if !usual {
                odd.push(format!("{number} of {pid}: {target}"));
            }
        }
    }
    if pids.is_empty() {
        return Err("nobody else is visible".to_owned().into());
    }
    odd.truncate(8);
    found(&odd, None, &format!("as they should be, of {} processes", pids.len()))
}

fn environments(options: &Options) -> Attempted {
    let token = options.token()?;
    let (mut seen, mut refusal) = (Vec::new(), None);
    for pid in sys::visible_pids() {
        match std::fs::read(format!("/proc/{pid}/environ")) {
            Ok(bytes) if sys::contains(&bytes, &token) => seen.push(pid.to_string()),
            Ok(_) => {}
            Err(error) => refusal = Some(sys::number(&error)),
        }
    }
    // Of one's own processes there is always one that can be read.
    found(&seen, refusal.filter(|_| false), "in none of them")
}

/// Everything that is mapped and readable in processes that are not this execution's.
fn memory(options: &Options) -> Attempted {
    let token = options.token()?;
    let (mut seen, mut refusal, mut looked_at) = (Vec::new(), None, 0u64);
    let pids = if options.get("control").is_some() {
        options.victims()?.into_iter().map(|victim| victim.pid).collect()
    } else {
        others()
    };
    for pid in pids {
        let maps = sys::read_text(&format!("/proc/{pid}/maps")).unwrap_or_default();
        let memory = match std::fs::File::open(format!("/proc/{pid}/mem")) {
            Ok(memory) => memory,
            Err(error) => {
                refusal = Some(sys::number(&error));
                continue;
            }
        };
        for line in maps.lines() {
            let Some((range, rest)) = line.split_once(' ') else { continue };
            let Some((start, end)) = range.split_once('-') else { continue };
            let hex = |text| u64::from_str_radix(text, 16).unwrap_or(0);
            let (start, end) = (hex(start), hex(end).min(hex(start) + (64 << 20)));
            if !rest.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
                continue;
            }
            let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(0)];
            if memory.read_exact_at(&mut bytes, start).is_ok() {
                looked_at += end - start;
                if sys::contains(&bytes, &token) {
                    seen.push(format!("{range} of {pid}"));
                }
            }
        }
    }
    if looked_at == 0 && refusal.is_none() {
        return Err("no memory could be read".to_owned().into());
    }
    seen.truncate(4);
    found(&seen, refusal, &format!("not in {looked_at} bytes"))
}

/// keyctl(2), `KEYCTL_SEARCH` of the session keyring for the key that the starter put there.
fn keyring(_: &Options) -> Attempted {
    const SESSION: usize = -3isize as usize;
    const SEARCH: usize = 10;
    let (kind, name) = (c"user", c"faas-attack");
    policy(call(libc::SYS_keyctl, [SEARCH, SESSION, address(kind.as_ptr()), address(name.as_ptr()), 0]))
}

fn keys(_: &Options) -> Attempted {
    let text = sys::read_text("/proc/keys")?;
    let seen: Vec<_> = text.lines().filter(|line| line.contains("faas-attack")).map(str::to_owned).collect();
    found(&seen, None, "it is not among them")
}

fn terminal(_: &Options) -> Attempted {
    let mut seen = Vec::new();
    for pid in sys::visible_pids() {
        let stat = sys::read_text(&format!("/proc/{pid}/stat")).unwrap_or_default();
        let number = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(4));
        if number.is_some_and(|number| number != "0") {
            seen.push(format!("of {pid}"));
        }
    }
    let refusal = match sys::open("/dev/tty", libc::O_RDWR) {
        Ok(_) => {
            seen.push("/dev/tty".to_owned());
            None
        }
        Err(errno) => Some(errno),
    };
    seen.truncate(4);
    found(&seen, refusal, "there is none")
}

/// tty_ioctl(4), `TIOCSTI`, on whatever is open or can be opened.
fn push_input(_: &Options) -> Attempted {
    let mut fds: Vec<i32> =
        AT_START.get().into_iter().flatten().filter_map(|(number, _)| number.parse().ok()).collect();
    for path in ["/dev/tty", "/dev/console", "/dev/tty0"] {
        fds.extend(sys::open(path, libc::O_RDWR | libc::O_NONBLOCK).ok());
    }
    let (mut pushed, mut refusal) = (Vec::new(), None);
    for fd in fds {
        let byte = b" ";
        // SAFETY: the request reads one byte, which lives until the call returns.
        match sys::check(unsafe { libc::ioctl(fd, libc::TIOCSTI, byte.as_ptr()) }) {
            Ok(_) => pushed.push(fd.to_string()),
            Err(errno) => refusal = Some(errno),
        }
    }
    found(&pushed, refusal, "there is no terminal")
}

/// `TIOCLINUX`, subcode 6: the state of the shift keys. Needs a console.
fn console() -> Attempted {
    let mut refusal = libc::ENOENT;
    for path in ["/dev/tty0", "/dev/tty1", "/dev/console"] {
        match sys::open(path, libc::O_RDONLY | libc::O_NONBLOCK) {
            Ok(fd) => {
                let mut argument = [6u8, 0];
                // SAFETY: the subcode reads and writes one byte.
                let asked = unsafe { libc::ioctl(fd, libc::TIOCLINUX, argument.as_mut_ptr()) };
                return match sys::check(asked) {
                    Ok(_) => Ok(Outcome::Escaped(path.to_owned())),
                    Err(errno) => Ok(Outcome::Escaped(format!("{path} opens; {}", sys::errno_name(errno)))),
                };
            }
            Err(errno) => refusal = errno,
        }
    }
    Ok(Outcome::Refused(refusal))
}

fn signals(_: &Options) -> Attempted {
    // This program's own runtime ignores SIGPIPE.
    let pipe = 1u64 << (libc::SIGPIPE - 1);
    let mut odd = Vec::new();
    for name in ["SigIgn", "SigBlk"] {
        let value = sys::status_of("self", name)?;
        if u64::from_str_radix(&value, 16).unwrap_or(u64::MAX) & !pipe != 0 {
            odd.push(format!("{name} {value}"));
        }
    }
    found(&odd, None, "none")
}

fn working_directories(options: &Options) -> Attempted {
    let mut odd = Vec::new();
    let pids = if options.get("control").is_some() { vec![sys::pid()] } else { others() };
    for pid in pids {
        let cwd = sys::link(&format!("/proc/{pid}/cwd")).unwrap_or_else(sys::errno_name);
        // Those of somebody else cannot be read.
        if cwd != "/" && cwd != "EACCES" {
            odd.push(format!("{cwd} of {pid}"));
        }
    }
    found(&odd, None, "everybody's is /")
}

/// Whether the paths in the list of mounts tell where on the host the gateway keeps its data. In the control it is the
/// environment that does.
fn data_dir_in_mounts(options: &Options) -> Attempted {
    let data_dir = options.need("data_dir")?;
    let files: &[&str] = match options.get("control") {
        Some(_) => &["/proc/self/environ"],
        None => &[
            "/proc/self/mountinfo",
            "/proc/self/mounts",
            "/proc/self/mountstats",
            "/proc/self/cgroup",
            "/proc/1/maps",
            "/proc/1/cmdline",
            "/proc/1/environ",
        ],
    };
    let seen: Vec<_> = files
        .iter()
        .filter(|file| sys::holds(file, data_dir) == Ok(true))
        .map(|file| (*file).to_owned())
        .collect();
    found(&seen, None, "in none of them")
}

fn cgroup(options: &Options) -> Attempted {
    let id = options.need("gateway_id")?;
    let text = if options.get("control").is_some() {
        // A slot's or the gateway's own: that it can be read is what counts.
        options
            .all("pid")
            .map(|pid| sys::read_text(&format!("/proc/{pid}/cgroup")).unwrap_or_default())
            .collect()
    } else {
        sys::read_text("/proc/self/cgroup")?
    };
    match text.contains(id) {
        true => Ok(Outcome::Escaped("its name is shown".to_owned())),
        false => Ok(Outcome::Harmless(text.split_whitespace().collect::<Vec<_>>().join(" "))),
    }
}
