//! The worst start that a gateway can have: secrets in its environment, in open descriptors, in its keyring; a terminal
//! of its own; capabilities, groups, limits and signals as nobody should have them.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::options::Options;
use crate::sys::{self, address, call};

/// A group that nobody of a sandbox may be in.
static GROUP: libc::gid_t = 4242;

pub(super) fn run(options: &Options) -> Result<(), String> {
    let token = options.token()?;
    let (program, arguments) = options.rest.split_first().ok_or("there is nothing to start after --")?;
    let step = |what: &'static str, result: Result<usize, i32>| {
        result.map_err(|errno| format!("{what}: {}", sys::errno_name(errno)))
    };
    step("terminal", terminal())?;
    step("keyring", keyring(&token))?;
    for file in options.all("file") {
        step("leak a file", leak(file, libc::O_RDONLY))?;
    }
    step("leak a directory", leak("/", libc::O_RDONLY | libc::O_DIRECTORY))?;
    step("leak a socket", leak_socket())?;
    // SAFETY: plain integers and values that live until the calls return.
    unsafe {
        step("groups", sys::check(libc::setgroups(1, &raw const GROUP)))?;
        libc::umask(0o002);
        for signal in [libc::SIGUSR1, libc::SIGALRM, libc::SIGHUP, libc::SIGRTMIN() + 3] {
            libc::signal(signal, libc::SIG_IGN);
        }
        // Those that libc keeps for itself; the kernel makes no difference.
        for signal in [32, 33] {
            let ignore = [libc::SIG_IGN, 0, 0, 0];
            call(libc::SYS_rt_sigaction, [signal, address(ignore.as_ptr()), 0, 8])
                .map_err(sys::errno_name)?;
        }
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGUSR2);
        step(
            "block a signal",
            sys::check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())),
        )?;
        for resource in [libc::RLIMIT_RTPRIO, libc::RLIMIT_NICE, libc::RLIMIT_CORE, libc::RLIMIT_MEMLOCK] {
            let of_priority = resource == libc::RLIMIT_RTPRIO || resource == libc::RLIMIT_NICE;
            let most = if of_priority { 40 } else { libc::RLIM_INFINITY };
            let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
            // A root without CAP_SYS_RESOURCE keeps what it has.
            libc::setrlimit(resource, &raw const limit);
        }
    }
    step("capabilities", capabilities())?;
    if options.get("shield") != Some("no") {
        // As above.
        match sys::write("/proc/self/oom_score_adj", b"-900") {
            Ok(_) | Err(_) => {}
        }
    }
    let mut command = Command::new(program);
    command.args(arguments).env("ATTACK_SECRET", &token);
    if let Some(dir) = options.get("cwd") {
        command.current_dir(dir).env("ATTACK_DIRECTORY", dir);
    }
    if let Some(dir) = options.get("data_dir") {
        command.env("ATTACK_DATA", dir);
    }
    Err(format!("{}: {}", program.display(), command.exec()))
}

/// Opens without O_CLOEXEC, at a high number.
fn leak(path: &str, flags: i32) -> Result<usize, i32> {
    let fd = sys::open(path, flags)?;
    // SAFETY: plain integers.
    sys::check(unsafe { libc::fcntl(fd, libc::F_DUPFD, 100) })
}

fn leak_socket() -> Result<usize, i32> {
    // SAFETY: plain integers.
    sys::check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) })
}

/// A session of its own with a pseudo-terminal that controls it, both of whose ends are leaked.
fn terminal() -> Result<usize, i32> {
    // SAFETY: plain integers; a buffer of the length given.
    unsafe {
        // The leader of a process group cannot leave its session, and has a terminal of its own at worst.
        libc::setsid();
        let master = libc::open(c"/dev/ptmx".as_ptr(), libc::O_RDWR | libc::O_NOCTTY);
        sys::check(master)?;
        sys::check(libc::grantpt(master))?;
        sys::check(libc::unlockpt(master))?;
        let mut name = [0; 64];
        if libc::ptsname_r(master, name.as_mut_ptr(), name.len()) != 0 {
            return Err(sys::errno());
        }
        let slave = libc::open(name.as_ptr(), libc::O_RDWR | libc::O_NOCTTY);
        sys::check(slave)?;
        sys::check(libc::ioctl(slave, libc::TIOCSCTTY, 0))
    }
}

/// A session keyring of its own with a key that holds the token.
fn keyring(token: &str) -> Result<usize, i32> {
    const JOIN_SESSION: usize = 1;
    const SESSION: usize = -3isize as usize;
    call(libc::SYS_keyctl, [JOIN_SESSION, 0])?;
    let (kind, name) = (c"user", c"faas-attack");
    call(
        libc::SYS_add_key,
        [address(kind.as_ptr()), address(name.as_ptr()), address(token.as_ptr()), token.len(), SESSION],
    )
}

/// Everything that is permitted made inheritable, and some of it ambient.
fn capabilities() -> Result<usize, i32> {
    let header = [0x2008_0522u32, 0];
    let mut data = [0u32; 6];
    call(libc::SYS_capget, [address(header.as_ptr()), address(data.as_mut_ptr())])?;
    (data[2], data[5]) = (data[1], data[4]);
    call(libc::SYS_capset, [address(header.as_ptr()), address(data.as_ptr())])?;
    const SYS_ADMIN: usize = 21;
    let raise = libc::PR_CAP_AMBIENT_RAISE as usize;
    call(libc::SYS_prctl, [libc::PR_CAP_AMBIENT as usize, raise, SYS_ADMIN, 0, 0])
}
