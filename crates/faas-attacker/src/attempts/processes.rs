//! Processes of the outside: seeing them, reading and writing their memory, ending them, by the PIDs that the host
//! knows them by.

use crate::attempt::{Attempt, Attempted, Control, Outcome, found, policy};
use crate::options::{Options, Victim};
use crate::sys::{self, address, call};

pub(crate) fn all() -> Vec<Attempt> {
    use Control::Bare;
    vec![
        Attempt::new("see_in_proc", Bare, see),
        Attempt::new("read_memory_with_process_vm_readv", Bare, vm_read),
        Attempt::new("write_memory_with_process_vm_writev", Bare, vm_write),
        Attempt::new("read_memory_in_proc", Bare, proc_mem),
        Attempt::new("ptrace_attach", Bare, |o| trace(o, libc::PTRACE_ATTACH)),
        Attempt::new("ptrace_seize", Bare, |o| trace(o, libc::PTRACE_SEIZE)),
        Attempt::new("kill", Bare, |o| each(o, |pid| call(libc::SYS_kill, [pid, 0]))),
        Attempt::new("tgkill", Bare, |o| each(o, |pid| call(libc::SYS_tgkill, [pid, pid, 0]))),
        Attempt::new("queue_a_signal", Bare, queue),
        Attempt::new("pidfd_open", Bare, |o| each(o, |pid| call(libc::SYS_pidfd_open, [pid, 0]))),
        Attempt::new("pidfd_signal", Bare, pidfd_signal),
        Attempt::new("pidfd_getfd", Bare, pidfd_getfd),
        Attempt::new("pidfd_by_opening_proc", Bare, proc_pidfd),
        Attempt::new("process_madvise", Bare, |_| {
            policy(call(libc::SYS_process_madvise, [usize::MAX, 0, 0, 0, 0]))
        }),
        Attempt::new("kcmp", Bare, |_| policy(call(libc::SYS_kcmp, [own(), own(), 0, 0, 0]))),
        Attempt::new("robust_list", Bare, robust_list),
        // Of another user's process it takes CAP_SYS_RESOURCE, which not every root has.
        Attempt::optional("read_limits", Bare, &[libc::EPERM], limits),
        Attempt::new("set_affinity", Bare, affinity),
        Attempt::new("read_affinity", Bare, |o| {
            each(o, |pid| {
                let mut set = [0u8; 1024];
                call(libc::SYS_sched_getaffinity, [pid, set.len(), address(set.as_mut_ptr())])
            })
        }),
        Attempt::new("set_priority", Bare, priority),
        Attempt::new("talk_to_its_own_agent", Control::None("a test of its own does, from outside"), agent),
        Attempt::new("read_session", Bare, |o| each(o, |pid| call(libc::SYS_getsid, [pid]))),
        Attempt::new("read_scheduling", Bare, |o| each(o, |pid| call(libc::SYS_sched_getscheduler, [pid]))),
    ]
}

fn own() -> usize {
    usize::try_from(sys::pid()).unwrap_or(0)
}

/// Makes a call for every PID of the outside; one that is let through is an escape.
fn each(options: &Options, made: impl Fn(usize) -> Result<usize, i32>) -> Attempted {
    let (mut reached, mut refusal) = (Vec::new(), None);
    for pid in options.outside_pids()? {
        match made(usize::try_from(pid).unwrap_or(0)) {
            Ok(_) => reached.push(pid.to_string()),
            Err(errno) => refusal = Some(errno),
        }
    }
    found(&reached, refusal, "no PID was given")
}

/// Makes a call for every victim; one that finds the token, or writes, is an escape.
fn each_victim(options: &Options, made: impl Fn(Victim) -> Result<bool, i32>) -> Attempted {
    let (mut reached, mut refusal) = (Vec::new(), None);
    for victim in options.victims()? {
        match made(victim) {
            Ok(true) => reached.push(victim.pid.to_string()),
            Ok(false) => {}
            Err(errno) => refusal = Some(errno),
        }
    }
    found(&reached, refusal, "nothing of theirs was found")
}

fn see(options: &Options) -> Attempted {
    each(options, |pid| sys::stat(&format!("/proc/{pid}/status")).map(|_| 0))
}

fn vectors(buffer: &mut [u8], victim: Victim) -> (libc::iovec, libc::iovec) {
    let length = buffer.len();
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: length };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(victim.address), iov_len: length };
    (local, remote)
}

fn vm_read(options: &Options) -> Attempted {
    let token = options.token()?;
    each_victim(options, |victim| {
        let mut buffer = vec![0u8; token.len()];
        let (local, remote) = vectors(&mut buffer, victim);
        // SAFETY: the local buffer is writable and of the length given; the remote one is the kernel's to check.
        let read =
            unsafe { libc::process_vm_readv(victim.pid, &raw const local, 1, &raw const remote, 1, 0) };
        if read < 0 { Err(sys::errno()) } else { Ok(sys::contains(&buffer, &token)) }
    })
}

fn vm_write(options: &Options) -> Attempted {
    // The token itself: nothing changes.
    let token = options.token()?;
    each_victim(options, |victim| {
        let mut buffer = token.clone().into_bytes();
        let (local, remote) = vectors(&mut buffer, victim);
        // SAFETY: the local buffer is readable and of the length given; the remote one is the kernel's to check.
        let written =
            unsafe { libc::process_vm_writev(victim.pid, &raw const local, 1, &raw const remote, 1, 0) };
        if written < 0 { Err(sys::errno()) } else { Ok(true) }
    })
}

fn proc_mem(options: &Options) -> Attempted {
    use std::os::unix::fs::FileExt as _;
    let token = options.token()?;
    each_victim(options, |victim| {
        let mut buffer = vec![0u8; token.len()];
        let offset = u64::try_from(victim.address).unwrap_or(0);
        std::fs::File::open(format!("/proc/{}/mem", victim.pid))
            .and_then(|file| file.read_exact_at(&mut buffer, offset))
            .map_err(|error| sys::number(&error))?;
        Ok(sys::contains(&buffer, &token))
    })
}

fn trace(options: &Options, request: libc::c_uint) -> Attempted {
    each(options, |pid| {
        let number = usize::try_from(request).unwrap_or(0);
        call(libc::SYS_ptrace, [number, pid, 0, 0])?;
        // It goes on when this process ends; a stop that is under way is waited for first.
        if request == libc::PTRACE_ATTACH {
            sys::wait(i32::try_from(pid).unwrap_or(0))?;
        }
        call(libc::SYS_ptrace, [usize::try_from(libc::PTRACE_DETACH).unwrap_or(0), pid, 0, 0]).or(Ok(0))
    })
}

fn queue(options: &Options) -> Attempted {
    // si_code SI_QUEUE, as sigqueue(3) has it; signal 0 asks only whether it may.
    let mut info = [0i32; 32];
    info[2] = -1;
    each(options, |pid| call(libc::SYS_rt_sigqueueinfo, [pid, 0, address(info.as_ptr())]))
}

fn pidfd_signal(options: &Options) -> Attempted {
    each(options, |pid| {
        let pidfd = call(libc::SYS_pidfd_open, [pid, 0])?;
        call(libc::SYS_pidfd_send_signal, [pidfd, 0, 0, 0])
    })
}

/// Of its own process: the call alone must be refused, since it would give the agent's connection to whoever may trace
/// the agent.
fn pidfd_getfd(_: &Options) -> Attempted {
    let pidfd = call(libc::SYS_pidfd_open, [own(), 0])?;
    policy(call(libc::SYS_pidfd_getfd, [pidfd, 1, 0]))
}

/// A descriptor of `/proc/PID` serves as a pidfd too (pidfd_send_signal(2)).
fn proc_pidfd(options: &Options) -> Attempted {
    each(options, |pid| {
        let dir = sys::open(&format!("/proc/{pid}"), libc::O_RDONLY | libc::O_DIRECTORY)?;
        call(libc::SYS_pidfd_send_signal, [usize::try_from(dir).unwrap_or(0), 0, 0, 0])
    })
}

fn robust_list(options: &Options) -> Attempted {
    each(options, |pid| {
        let (mut head, mut length) = (0usize, 0usize);
        call(libc::SYS_get_robust_list, [pid, address(&raw mut head), address(&raw mut length)])
    })
}

fn limits(options: &Options) -> Attempted {
    each(options, |pid| {
        let mut old = [0u64; 2];
        let nofile = usize::try_from(libc::RLIMIT_NOFILE).unwrap_or(0);
        call(libc::SYS_prlimit64, [pid, nofile, 0, address(old.as_mut_ptr())])
    })
}

fn affinity(options: &Options) -> Attempted {
    // What the victim has, set again.
    each(options, |pid| {
        let mut set = [0u8; 1024];
        let length = call(libc::SYS_sched_getaffinity, [pid, set.len(), address(set.as_mut_ptr())])?;
        call(libc::SYS_sched_setaffinity, [pid, length, address(set.as_ptr())])
    })
}

fn priority(options: &Options) -> Attempted {
    // getpriority(2) by the raw call gives 20 less the value.
    each(options, |pid| {
        let raw = call(libc::SYS_getpriority, [0, pid])?;
        let nice = 20 - i64::try_from(raw).unwrap_or(20);
        call(libc::SYS_setpriority, [0, pid, nice.cast_unsigned() as usize])
    })
}

/// The agent answers whoever is outside of its sandbox; everybody else is hung up on without a word.
fn agent(_: &Options) -> Attempted {
    use std::io::Read as _;
    let stream = std::os::unix::net::UnixStream::connect("/.faas/run/agent.sock");
    let mut said = [0; 64];
    match stream.and_then(|mut stream| stream.read(&mut said)) {
        Ok(0) => Ok(Outcome::Refused(libc::ECONNRESET)),
        Ok(length) => Ok(Outcome::Escaped(format!("it says {length} bytes"))),
        Err(error) => Ok(Outcome::Refused(sys::number(&error))),
    }
}
