//! The kernel's settings and what it tells of the host: /proc and /sys.

use crate::attempt::{Attempt, Attempted, Control, Outcome, found, must_fail};
use crate::options::Options;
use crate::sys;

macro_rules! setting {
    ($name:literal, $path:literal) => {
        Attempt::optional($name, Control::Bare, &[libc::ENOENT], |_| set($path))
    };
}

macro_rules! hidden {
    ($name:literal, $path:literal) => {
        Attempt::optional($name, Control::Bare, &[libc::ENOENT, libc::EACCES, libc::EPERM], |_| read($path))
    };
}

pub(crate) fn all() -> Vec<Attempt> {
    use Control::Bare;
    vec![
        setting!("set_core_pattern", "/proc/sys/kernel/core_pattern"),
        setting!("set_modprobe", "/proc/sys/kernel/modprobe"),
        setting!("set_hotplug", "/proc/sys/kernel/hotplug"),
        setting!("set_overcommit", "/proc/sys/vm/overcommit_memory"),
        setting!("set_panic_on_oom", "/proc/sys/vm/panic_on_oom"),
        setting!("set_drop_caches", "/proc/sys/vm/drop_caches"),
        setting!("set_ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        setting!("set_file_max", "/proc/sys/fs/file-max"),
        setting!("set_inotify_limits", "/proc/sys/fs/inotify/max_user_instances"),
        setting!("set_protected_symlinks", "/proc/sys/fs/protected_symlinks"),
        setting!("set_suid_dumpable", "/proc/sys/fs/suid_dumpable"),
        // A root without CAP_SYS_RESOURCE may not either.
        Attempt::optional("set_user_namespaces", Bare, &[libc::ENOENT, libc::EACCES], |_| {
            set("/proc/sys/user/max_user_namespaces")
        }),
        setting!("set_last_pid", "/proc/sys/kernel/ns_last_pid"),
        setting!("set_hostname", "/proc/sys/kernel/hostname"),
        setting!("set_shmmax", "/proc/sys/kernel/shmmax"),
        setting!("set_sysrq", "/proc/sys/kernel/sysrq"),
        setting!("pull_sysrq_trigger", "/proc/sysrq-trigger"),
        setting!("set_binfmt_misc", "/proc/sys/fs/binfmt_misc/register"),
        setting!("set_irq_affinity", "/proc/irq/default_smp_affinity"),
        setting!("set_mtrr", "/proc/mtrr"),
        Attempt::new("everything_writable_in_proc", Bare, everything_writable),
        hidden!("read_kcore", "/proc/kcore"),
        // Opened, and no more: what is read of it is gone.
        Attempt::new("read_kmsg", Bare, |_| {
            must_fail(sys::open("/proc/kmsg", libc::O_RDONLY | libc::O_NONBLOCK).map(|_| 0))
        }),
        hidden!("read_keys", "/proc/keys"),
        hidden!("read_timer_list", "/proc/timer_list"),
        hidden!("read_sched_debug", "/proc/sched_debug"),
        hidden!("read_latency_stats", "/proc/latency_stats"),
        hidden!("read_interrupts", "/proc/interrupts"),
        hidden!("read_slabinfo", "/proc/slabinfo"),
        hidden!("read_vmallocinfo", "/proc/vmallocinfo"),
        hidden!("read_pagetypeinfo", "/proc/pagetypeinfo"),
        hidden!("read_kpagecount", "/proc/kpagecount"),
        hidden!("read_kpageflags", "/proc/kpageflags"),
        hidden!("read_kpagecgroup", "/proc/kpagecgroup"),
        Attempt::optional("physical_addresses_of_pages", Bare, &[libc::ENOENT], |_| page_frames()),
        Attempt::optional("addresses_of_devices", Bare, &[libc::ENOENT], |_| addresses("/proc/iomem")),
        Attempt::optional("files_of_acpi_and_scsi", Bare, &[libc::ENOENT], |_| directories()),
        Attempt::new("anything_in_sys", Bare, sys_tree),
        Attempt::new("host_processes_in_locks", Bare, locks),
        Attempt::new("uptime_and_boot_of_processes", Control::None("the host's own is what it is"), parents),
    ]
}

/// Opened for writing: nothing is written.
fn set(path: &str) -> Attempted {
    must_fail(sys::open(path, libc::O_WRONLY).map(|_| 0))
}

/// Whether there is anything to read.
fn read(path: &str) -> Attempted {
    let fd = sys::open(path, libc::O_RDONLY | libc::O_NONBLOCK)?;
    let bytes = sys::read_fd(fd, 64)?;
    match bytes.len() {
        0 => Ok(Outcome::Harmless("it is empty".to_owned())),
        length => Ok(Outcome::Escaped(format!("{length} bytes"))),
    }
}

/// Every file that is no process's, opened for writing. Those of pressure are open to everybody: a trigger there is for
/// whoever sets it (Documentation/accounting/psi.rst).
fn everything_writable(options: &Options) -> Attempted {
    let mut writable = Vec::new();
    // On the host its settings are enough.
    let top = if options.get("control").is_some() { "/proc/sys/kernel" } else { "/proc" };
    let mut dirs = vec![top.to_owned()];
    while let Some(dir) = dirs.pop() {
        for name in sys::names(&dir).unwrap_or_default() {
            let path = format!("{dir}/{name}");
            let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
            let is_process = dir == "/proc" && name.bytes().all(|byte| byte.is_ascii_digit());
            if path == "/proc/pressure" {
                continue;
            }
            if meta.is_dir() && !is_process {
                dirs.push(path);
            } else if meta.is_file() && sys::open(&path, libc::O_WRONLY | libc::O_NONBLOCK).is_ok() {
                writable.push(path);
            }
        }
    }
    let count = writable.len();
    writable.truncate(8);
    found(&writable, None, "nothing is").map(|outcome| match outcome {
        Outcome::Escaped(some) => Outcome::Escaped(format!("{count} files: {some}")),
        other => other,
    })
}

/// Whether pagemap tells where in memory a page is (Documentation/admin-guide/mm/pagemap.rst), which rowhammer wants.
fn page_frames() -> Attempted {
    use std::os::unix::fs::FileExt as _;
    let page = vec![1u8; 4096];
    let mut entry = [0u8; 8];
    std::fs::File::open("/proc/self/pagemap")
        .and_then(|file| file.read_exact_at(&mut entry, (page.as_ptr().addr() / 4096 * 8) as u64))
        .map_err(|error| sys::number(&error))?;
    match u64::from_ne_bytes(entry) & ((1 << 55) - 1) {
        0 => Ok(Outcome::Harmless("the numbers are blank".to_owned())),
        _ => Ok(Outcome::Escaped("the numbers are there".to_owned())),
    }
}

fn addresses(path: &str) -> Attempted {
    let text = sys::read_text(path)?;
    let told = text.lines().any(|line| {
        line.trim_start().bytes().any(|byte| matches!(byte, b'1'..=b'9'))
            && !line.trim_start().starts_with("00000000-00000000")
    });
    match told {
        true => Ok(Outcome::Escaped("addresses".to_owned())),
        false => Ok(Outcome::Harmless("the addresses are blank".to_owned())),
    }
}

fn directories() -> Attempted {
    let (mut seen, mut refusal) = (Vec::new(), None);
    for dir in ["/proc/acpi", "/proc/scsi", "/proc/asound"] {
        match sys::names(dir) {
            Ok(names) => seen.extend(names.into_iter().map(|name| format!("{dir}/{name}"))),
            Err(errno) => refusal = Some(errno),
        }
    }
    if seen.is_empty() && refusal.is_none() {
        return Ok(Outcome::Refused(libc::ENOENT));
    }
    found(&seen, refusal, "they are empty")
}

fn sys_tree(_: &Options) -> Attempted {
    let names = sys::names("/sys")?;
    found(&names, None, "it is empty")
}

/// Locks of processes that are not here.
fn locks(options: &Options) -> Attempted {
    let outside: Vec<_> = options.victims()?.into_iter().map(|victim| victim.pid.to_string()).collect();
    let text = sys::read_text("/proc/locks")?;
    let seen: Vec<_> = text
        .lines()
        .filter(|line| line.split_whitespace().any(|word| outside.iter().any(|pid| pid == word)))
        .map(str::to_owned)
        .collect();
    found(&seen, None, "only its own")
}

/// Whether anything visible has a parent that is not.
fn parents(_: &Options) -> Attempted {
    let pids = sys::visible_pids();
    let mut odd = Vec::new();
    for pid in &pids {
        let parent: i32 = sys::status_of(&pid.to_string(), "PPid").unwrap_or_default().parse().unwrap_or(0);
        if parent != 0 && !pids.contains(&parent) {
            odd.push(format!("{parent} of {pid}"));
        }
    }
    found(&odd, None, "everybody's parent is inside")
}
