//! System calls that a sandbox has no business with. Their arguments are such that nothing happens where one is let
//! through: an answer other than the policy's says that the kernel looked at it.

use crate::attempt::{Attempt, Attempted, Control, must_fail, policy};
use crate::options::Options;
use crate::sys::{self, address, call};

const BAD_FD: usize = usize::MAX;

/// A path that is nowhere.
const NOWHERE: &std::ffi::CStr = c"/nowhere/at-all";

macro_rules! refused {
    ($name:literal, $number:expr, [$($argument:expr),* $(,)?]) => {
        Attempt::optional($name, Control::Bare, &[libc::ENOSYS], |_| policy(call($number, [$($argument),*])))
    };
}

pub(crate) fn all() -> Vec<Attempt> {
    use Control::{Bare, Host};
    let mut all = vec![
        refused!("bpf", libc::SYS_bpf, [0xffff, 0, 0]),
        refused!("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0, BAD_FD, 0]),
        refused!("userfaultfd", libc::SYS_userfaultfd, [0xffff_ffff]),
        refused!("io_uring_setup", libc::SYS_io_uring_setup, [0, 0]),
        refused!("io_uring_enter", libc::SYS_io_uring_enter, [BAD_FD, 0, 0, 0, 0, 0]),
        refused!("io_uring_register", libc::SYS_io_uring_register, [BAD_FD, 0xffff, 0, 0]),
        Attempt::new("open_by_handle_at", Bare, open_by_handle),
        // With modules switched off even root is told EPERM.
        Attempt::optional("init_module", Bare, &[libc::ENOSYS, libc::EPERM], |_| {
            policy(call(libc::SYS_init_module, [0, 0, 0]))
        }),
        Attempt::optional("finit_module", Bare, &[libc::ENOSYS, libc::EPERM], |_| {
            policy(call(libc::SYS_finit_module, [BAD_FD, 0, 0]))
        }),
        Attempt::optional("delete_module", Bare, &[libc::ENOSYS, libc::EPERM], |_| {
            policy(call(libc::SYS_delete_module, [address(c"no_such_module".as_ptr()), 0]))
        }),
        refused!("kexec_load", libc::SYS_kexec_load, [0, usize::MAX, 0, 0xffff]),
        refused!("syslog", libc::SYS_syslog, [10, 0, 0]),
        refused!("swapon", libc::SYS_swapon, [address(NOWHERE.as_ptr()), 0]),
        refused!("swapoff", libc::SYS_swapoff, [address(NOWHERE.as_ptr())]),
        // Without the numbers that it asks for it does nothing (reboot(2)).
        refused!("reboot", libc::SYS_reboot, [0, 0, 0, 0]),
        refused!("settimeofday", libc::SYS_settimeofday, [0, 0]),
        refused!("clock_settime", libc::SYS_clock_settime, [0, 0]),
        Attempt::new("adjtimex", Bare, |_| adjust_clock(|time| call(libc::SYS_adjtimex, [time]))),
        Attempt::new("clock_adjtime", Bare, |_| {
            adjust_clock(|time| call(libc::SYS_clock_adjtime, [0, time]))
        }),
        refused!("acct", libc::SYS_acct, [address(NOWHERE.as_ptr())]),
        refused!("quotactl", libc::SYS_quotactl, [0x0080_0400, address(NOWHERE.as_ptr()), 0, 0]),
        refused!("quotactl_fd", 443, [BAD_FD, 0x0080_0400, 0, 0]),
        refused!("vhangup_without_a_terminal", libc::SYS_vhangup, []),
        refused!("personality_without_randomization", libc::SYS_personality, [0x0004_0000]),
        refused!("personality_readable_is_executable", libc::SYS_personality, [0x0040_0000]),
        refused!("mbind", libc::SYS_mbind, [0, 0, 0xffff, 0, 0, 0xffff]),
        refused!("set_mempolicy", libc::SYS_set_mempolicy, [0xffff, 0, 0]),
        refused!("get_mempolicy", libc::SYS_get_mempolicy, [0, 0, 0, 0, 0xffff]),
        refused!("migrate_pages", libc::SYS_migrate_pages, [0, 0, 0, 0]),
        refused!("move_pages", libc::SYS_move_pages, [0, 0, 0, 0, 0, 0xffff]),
        refused!("fanotify_init", libc::SYS_fanotify_init, [0xffff_ffff, 0]),
        refused!("lsm_set_self_attr", 460, [0, 0, 0, 0]),
        refused!(
            "add_key",
            libc::SYS_add_key,
            [address(c"no_such_type".as_ptr()), address(c"x".as_ptr()), 0, 0, 0]
        ),
        refused!(
            "request_key",
            libc::SYS_request_key,
            [address(c"user".as_ptr()), address(c"x".as_ptr()), 0, 0]
        ),
        refused!("keyctl", libc::SYS_keyctl, [0xffff, 0, 0, 0, 0]),
        // It needs CAP_SYS_RESOURCE, which not every root has.
        Attempt::optional("prctl_set_mm", Bare, &[libc::EPERM], |_| {
            policy(call(libc::SYS_prctl, [35, 1, 0, 0, 0]))
        }),
        Attempt::new("capset_of_everything", Bare, |_| capset()),
        Attempt::new("a_syscall_of_tomorrow", Control::None("no kernel has it"), |_| policy(call(4000, [0]))),
        Attempt::new("chroot_into_a_host_path", Host, |o| {
            let path = sys::c(o.need("host_dir")?);
            // SAFETY: the path lives until the call returns.
            must_fail(sys::check(unsafe { libc::chroot(path.as_ptr()) }))
        }),
    ];
    all.extend(here());
    all
}

#[cfg(target_arch = "x86_64")]
fn here() -> Vec<Attempt> {
    vec![
        refused!("kexec_file_load", libc::SYS_kexec_file_load, [BAD_FD, BAD_FD, 0, 0, 0xffff]),
        refused!("iopl", libc::SYS_iopl, [4]),
        refused!("ioperm", libc::SYS_ioperm, [0xffff_ffff, 1, 0]),
        refused!("modify_ldt", libc::SYS_modify_ldt, [0, 0, 0]),
        refused!("sysfs", libc::SYS_sysfs, [3]),
        refused!("ustat", libc::SYS_ustat, [0, 0]),
        Attempt::optional("a_32_bit_call", Control::Bare, &[libc::ENOSYS], |_| int80()),
        Attempt::new("an_x32_call", Control::None("few kernels have them"), |_| {
            policy(call(0x4000_0000 | libc::SYS_getpid, [0]))
        }),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn here() -> Vec<Attempt> {
    Vec::new()
}

/// getpid by the gate of 32-bit programs, in a child: the policy ends whoever makes such a call.
#[cfg(target_arch = "x86_64")]
fn int80() -> Attempted {
    use crate::attempt::Outcome;
    let (said, status) = sys::fork_with(|| {
        const GETPID: u64 = 20;
        let result: u64;
        // SAFETY: the call reads no memory; the registers that it may change are named.
        unsafe {
            std::arch::asm!("int 0x80", inlateout("rax") GETPID => result, out("r8") _, out("r9") _, out("r10") _,
                out("r11") _);
        }
        result.to_string()
    })?;
    match (said.parse::<i64>(), status & 0x7f) {
        (Ok(pid), 0) if pid > 0 => Ok(Outcome::Escaped(format!("its number is {pid}"))),
        (_, libc::SIGSYS) => Ok(Outcome::Refused(libc::EPERM)),
        // The gate is closed for everybody.
        (_, libc::SIGSEGV) => Ok(Outcome::Refused(libc::ENOSYS)),
        _ => Err(format!("{said:?}, wait status {status:#x}").into()),
    }
}

/// By a handle of a file that cannot be reached by its path. Inside, of one that can: the call is what counts.
fn open_by_handle(options: &Options) -> Attempted {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        handle: [u8; 128],
    }
    let mut handle = Handle { bytes: 128, kind: 0, handle: [0; 128] };
    let mut mount = 0i32;
    let file = options.all("file").find(|file| sys::stat(file).is_ok()).unwrap_or("/usr");
    let path = sys::c(file);
    // A file system that gives no handles leaves the zeros, which no file has.
    let named = call(
        libc::SYS_name_to_handle_at,
        [
            libc::AT_FDCWD as usize,
            address(path.as_ptr()),
            address(&raw mut handle),
            address(&raw mut mount),
            0,
        ],
    );
    if named.is_err() && options.get("control").is_some() {
        return Err(format!("no handle for {file}").into());
    }
    let root = sys::open("/", libc::O_RDONLY | libc::O_DIRECTORY)?;
    policy(call(
        libc::SYS_open_by_handle_at,
        [usize::try_from(root).unwrap_or(0), address(&raw const handle), libc::O_RDONLY as usize],
    ))
}

/// Sets what is there already: the estimated error, which the host's root may.
fn adjust_clock(made: impl Fn(usize) -> Result<usize, i32>) -> Attempted {
    const ADJ_ESTERROR: libc::c_uint = 8;
    // SAFETY: the structure holds integers only, for which all-zero is valid.
    let mut time: libc::timex = unsafe { std::mem::zeroed() };
    made(address(&raw mut time))?;
    time.modes = ADJ_ESTERROR;
    must_fail(made(address(&raw mut time)))
}

/// capset(2) with every capability. In the control the process has them.
fn capset() -> Attempted {
    let header = [0x2008_0522u32, 0];
    let last: u32 =
        sys::read_text("/proc/sys/kernel/cap_last_cap")?.trim().parse().map_err(|_| libc::EINVAL)?;
    // What the control may lack: the host's own root need not have the whole of it.
    let bounding = u64::from_str_radix(&sys::status_of("1", "CapBnd")?, 16).unwrap_or(0);
    let wanted = if bounding > 0xffff_ffff { bounding } else { (1u64 << (last + 1)) - 1 };
    let (low, high) = ((wanted & 0xffff_ffff) as u32, (wanted >> 32) as u32);
    let data = [low, low, 0, high, high, 0];
    must_fail(call(libc::SYS_capset, [address(header.as_ptr()), address(data.as_ptr())]))
}
