//! Starts a program: like posix_spawn(3), with a session, an identity and a working directory of its own.
//!
//! The child borrows the agent's memory until it executes (`CLONE_VM|CLONE_VFORK`, on a stack of its own), which
//! spares the copy of the page tables and lets it say what failed without a pipe. So between the two it makes system
//! calls only: nothing is allocated, no lock is taken.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::sync::OnceLock;

use rustix::process::Pid;

use crate::program::{Candidates, Image, PATH_BYTES};
use crate::users::Identity;

/// What failed on the way to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpawnError {
    /// No process could be made.
    Fork(i32),
    /// The program was not found at any of its places.
    NotFound,
    /// It was found and is not one that can be executed.
    NotExecutable(i32),
    /// Arguments and environment are too large.
    TooLarge,
    /// The identity could not be taken.
    Identity(i32),
    /// The working directory could not be entered.
    WorkingDir(i32),
    /// Anything else.
    Other(i32),
}

/// Standard input, output and error of a program.
#[derive(Clone, Copy)]
pub(crate) struct Stdio<'a> {
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
    /// Whether they are a terminal, which becomes the controlling one of the program's session.
    pub(crate) is_terminal: bool,
}

/// The `oom_score_adj` of programs: when the sandbox's memory runs out the kernel takes one of them and not the agent.
const OOM_SCORE_ADJ: &[u8] = b"500";

/// The child's stack: it holds a path and little else.
const STACK_BYTES: usize = 32 * 1024;

static GROUPS_ARE_FIXED: OnceLock<bool> = OnceLock::new();

/// See user_namespaces(7), `/proc/PID/setgroups`.
fn setgroups_is_denied() -> bool {
    std::fs::read("/proc/self/setgroups").is_ok_and(|text| text.starts_with(b"deny"))
}

#[derive(Clone, Copy)]
#[repr(i32)]
enum Stage {
    Setup,
    Identity,
    WorkingDir,
    Exec,
}

struct Context<'a> {
    stdio: [RawFd; 3],
    is_terminal: bool,
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: *const libc::gid_t,
    group_count: usize,
    /// Whether the sandbox's user namespace denies setgroups(2): then there is one user, whose groups stay.
    groups_are_fixed: bool,
    cwd: *const libc::c_char,
    /// Seconds of CPU time.
    cpu_time_limit: Option<u64>,
    candidates: Candidates<'a>,
    argv: *const *const libc::c_char,
    /// `/bin/sh`, a place for a candidate, then the arguments after the first.
    shell_argv: *mut *const libc::c_char,
    envp: *const *const libc::c_char,
    stage: Stage,
    errno: i32,
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
}

/// Starts `image` as `identity` in `cwd` with `stdio`, as the leader of a session of its own.
pub(crate) fn spawn(
    image: &Image,
    identity: &Identity,
    cwd: &CString,
    stdio: Stdio<'_>,
    cpu_time_limit_s: Option<u64>,
) -> Result<Pid, SpawnError> {
    let argv = pointers(&image.argv);
    let envp = pointers(&image.envp);
    let mut shell_argv = vec![c"/bin/sh".as_ptr(), std::ptr::null()];
    shell_argv.extend_from_slice(&argv[1..]);
    let mut context = Context {
        stdio: [stdio.stdin.as_raw_fd(), stdio.stdout.as_raw_fd(), stdio.stderr.as_raw_fd()],
        is_terminal: stdio.is_terminal,
        uid: identity.uid,
        gid: identity.gid,
        groups: identity.groups.as_ptr(),
        group_count: identity.groups.len(),
        groups_are_fixed: *GROUPS_ARE_FIXED.get_or_init(setgroups_is_denied),
        cwd: cwd.as_ptr(),
        cpu_time_limit: cpu_time_limit_s,
        candidates: Candidates::new(image.name.as_bytes(), image.path.as_bytes()),
        argv: argv.as_ptr(),
        shell_argv: shell_argv.as_mut_ptr(),
        envp: envp.as_ptr(),
        stage: Stage::Setup,
        errno: 0,
    };
    // A stack that nobody else uses: the agent has one thread, and it waits for the child.
    let mut stack = vec![0u128; STACK_BYTES / size_of::<u128>()];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack's top is the end of the vector, aligned to 16; with CLONE_VFORK this thread does not go on
    // until the child has executed or ended, so everything that `context` points to outlives its use; the child runs
    // `child` alone, which keeps to system calls.
    let pid =
        unsafe { libc::clone(child, stack.as_mut_ptr_range().end.cast(), flags, (&raw mut context).cast()) };
    drop(stack);
    let Some(pid) = (pid > 0).then(|| Pid::from_raw(pid)).flatten() else {
        return Err(SpawnError::Fork(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN)));
    };
    let errno = context.errno;
    if errno == 0 {
        return Ok(pid);
    }
    // It has ended with this error; nothing else can be its status.
    match rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()) {
        Ok(_) | Err(_) => {}
    }
    Err(match context.stage {
        Stage::Setup => SpawnError::Other(errno),
        Stage::Identity => SpawnError::Identity(errno),
        Stage::WorkingDir => SpawnError::WorkingDir(errno),
        Stage::Exec => match errno {
            libc::ENOENT | libc::ENOTDIR => SpawnError::NotFound,
            libc::E2BIG => SpawnError::TooLarge,
            libc::ENOMEM | libc::EAGAIN => SpawnError::Fork(errno),
            _ => SpawnError::NotExecutable(errno),
        },
    })
}

fn errno() -> i32 {
    // SAFETY: the address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() }
}

extern "C" fn child(context: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `spawn` passes its own context, which nobody else touches while this runs.
    let context = unsafe { &mut *context.cast::<Context<'_>>() };
    // SAFETY: only system calls on values that `spawn` prepared.
    unsafe { to_program(context) };
    // Only a failure comes here.
    crate::sys::exit(127)
}

/// Everything between clone(2) and execve(2).
///
/// # Safety
/// The pointers of `context` are valid and their lists end in null.
unsafe fn to_program(context: &mut Context<'_>) {
    // SAFETY: plain system calls; see each.
    unsafe {
        context.stage = Stage::Setup;
        // Its own, since CLONE_SIGHAND is not given. The Rust runtime ignores SIGPIPE; programs expect the default.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        if libc::setsid() < 0 {
            context.errno = errno();
            return;
        }
        let adj = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if adj >= 0 {
            // Where /proc is not as it should be the program is no worse off than the agent.
            libc::write(adj, OOM_SCORE_ADJ.as_ptr().cast(), OOM_SCORE_ADJ.len());
            libc::close(adj);
        }
        for (target, fd) in (0..).zip(context.stdio) {
            // The agent's descriptors are all above 2, and dup2 leaves the copy open on exec.
            if libc::dup2(fd, target) < 0 {
                context.errno = errno();
                return;
            }
        }
        if context.is_terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) != 0 {
            context.errno = errno();
            return;
        }
        // Everything else of the agent is closed on exec; this holds even where that was forgotten.
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        libc::umask(0o022);
        if let Some(seconds) = context.cpu_time_limit {
            // SIGXCPU at the limit, SIGKILL a second later (getrlimit(2)).
            let limit = libc::rlimit { rlim_cur: seconds, rlim_max: seconds.saturating_add(1) };
            if libc::setrlimit(libc::RLIMIT_CPU, &raw const limit) != 0 {
                context.errno = errno();
                return;
            }
        }

        context.stage = Stage::Identity;
        // The raw calls: libc's would tell other threads, and this is no thread of the agent.
        let grouped = libc::syscall(libc::SYS_setgroups, context.group_count, context.groups) == 0
            || context.groups_are_fixed;
        let taken = grouped
            && libc::syscall(libc::SYS_setresgid, context.gid, context.gid, context.gid) == 0
            && libc::syscall(libc::SYS_setresuid, context.uid, context.uid, context.uid) == 0;
        if !taken {
            context.errno = errno();
            return;
        }

        context.stage = Stage::WorkingDir;
        if libc::chdir(context.cwd) != 0 {
            context.errno = errno();
            return;
        }

        context.stage = Stage::Exec;
        let mut path = [0u8; PATH_BYTES];
        let mut last = libc::ENOENT;
        while context.candidates.next_into(&mut path) {
            let candidate = path.as_ptr().cast::<libc::c_char>();
            libc::execve(candidate, context.argv, context.envp);
            match errno() {
                // Not here; perhaps at the next place.
                error @ (libc::ENOENT | libc::ENOTDIR) => {
                    if last != libc::EACCES {
                        last = error;
                    }
                }
                libc::EACCES => last = libc::EACCES,
                libc::ENOEXEC => {
                    // A text without `#!`: the shell's (execvp(3)).
                    *context.shell_argv.add(1) = candidate;
                    libc::execve(c"/bin/sh".as_ptr(), context.shell_argv, context.envp);
                    last = libc::ENOEXEC;
                    break;
                }
                error => {
                    last = error;
                    break;
                }
            }
        }
        context.errno = last;
    }
}
