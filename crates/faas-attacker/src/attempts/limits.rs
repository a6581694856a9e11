//! Limits and priorities of processes that the starter of the gateway has and that a sandbox must not have.

use crate::attempt::{Attempt, Attempted, Control, Outcome, found, must_fail};
use crate::options::Options;
use crate::sys::{self, address, call};

pub(crate) fn all() -> Vec<Attempt> {
    use Control::{Bare, Started};
    vec![
        // A root without CAP_SYS_RESOURCE may not either.
        Attempt::optional("shield_itself_from_the_hosts_oom_killer", Started, &[libc::EACCES], oom_score),
        Attempt::new("real_time_priority", Started, |_| scheduler(libc::SCHED_FIFO)),
        Attempt::new("round_robin_priority", Started, |_| scheduler(libc::SCHED_RR)),
        Attempt::new("deadline_priority", Bare, |_| deadline()),
        Attempt::new("negative_nice", Started, |_| {
            must_fail(call(libc::SYS_setpriority, [0, 0, (-5isize).cast_unsigned()]))
        }),
        Attempt::new("real_time_disk_priority", Bare, |_| {
            must_fail(call(libc::SYS_ioprio_set, [1, 0, 1 << 13]))
        }),
        Attempt::new("core_dumps", Started, core_limit),
        Attempt::new("lower_the_core_limit", Bare, |_| lower_core_limit()),
        Attempt::new("lock_memory_beyond_the_limit", Bare, |_| lock_memory()),
    ]
}

/// Whether it can make itself less likely to be ended than the host's other processes.
fn oom_score(_: &Options) -> Attempted {
    let mut refusal = None;
    for score in ["-1000", "-900", "-500", "-1"] {
        match sys::write("/proc/self/oom_score_adj", score.as_bytes()) {
            Ok(_) => return Ok(Outcome::Escaped(score.to_owned())),
            Err(errno) => refusal = Some(errno),
        }
    }
    found(&[], refusal, "nothing was tried")
}

fn scheduler(policy: i32) -> Attempted {
    let parameter = 1i32;
    must_fail(call(libc::SYS_sched_setscheduler, [0, policy as usize, address(&raw const parameter)]))
}

fn deadline() -> Attempted {
    const SCHED_DEADLINE: u32 = 6;
    // struct sched_attr: size, policy, flags, nice, priority, then run time, deadline and period in nanoseconds.
    let mut attributes = [0u32; 12];
    (attributes[0], attributes[1]) = (48, SCHED_DEADLINE);
    (attributes[6], attributes[8], attributes[10]) = (1_000_000, 100_000_000, 100_000_000);
    must_fail(call(libc::SYS_sched_setattr, [0, address(attributes.as_ptr()), 0]))
}

fn limit(resource: libc::__rlimit_resource_t) -> Result<libc::rlimit, i32> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is writable and of the right type.
    sys::check(unsafe { libc::getrlimit(resource, &raw mut limit) }).map(|_| limit)
}

fn core_limit(_: &Options) -> Attempted {
    match limit(libc::RLIMIT_CORE)?.rlim_max {
        // At 1 the kernel does not even start a host's handler of cores (core(5)).
        some @ 0..=1 => Ok(Outcome::Harmless(format!("{some} bytes"))),
        more => Ok(Outcome::Escaped(format!("{more} bytes"))),
    }
}

/// From 1, where no handler of cores is started, to 0, where the host's is, as its root.
fn lower_core_limit() -> Attempted {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let core = libc::RLIMIT_CORE as usize;
    let (own, new) = (0, address(&raw const none));
    // Either may say that it is done: what counts is what is so.
    let asked = call(libc::SYS_prlimit64, [own, core, new, 0]);
    match (asked, limit(libc::RLIMIT_CORE)?.rlim_cur) {
        (_, 0) => Ok(Outcome::Escaped("to 0".to_owned())),
        (Err(errno), _) => Ok(Outcome::Refused(errno)),
        (Ok(_), some) => Ok(Outcome::Harmless(format!("it stays at {some}"))),
    }
}

fn lock_memory() -> Attempted {
    const LENGTH: usize = 32 << 20;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping where the kernel likes.
    let locked = unsafe {
        let at = libc::mmap(std::ptr::null_mut(), LENGTH, libc::PROT_READ, flags, -1, 0);
        libc::mlock(at, LENGTH)
    };
    match sys::check(locked) {
        // mlock(2) for more than RLIMIT_MEMLOCK.
        Err(libc::ENOMEM) => Ok(Outcome::Refused(libc::EPERM)),
        other => must_fail(other),
    }
}
