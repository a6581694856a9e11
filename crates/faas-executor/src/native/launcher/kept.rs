//! The sandboxes that go on without the server. The launcher is their parent and lives as long as they do.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal};

/// The kept sandboxes by their slots.
#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<u32, Sandbox>);

#[derive(Debug)]
struct Sandbox {
    init: u32,
    /// What is kept open for it: the lock on its image.
    _held: Vec<OwnedFd>,
}

impl Kept {
    pub(super) fn add(&mut self, slot: u32, init: u32, held: Vec<OwnedFd>) {
        self.0.insert(slot, Sandbox { init, _held: held });
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, slot: u32) -> bool {
        self.0.remove(&slot).is_some()
    }

    pub(super) fn has(&self, slot: u32) -> bool {
        self.0.contains_key(&slot)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A child was reaped. If it was a kept sandbox's `init` that is none any more; the slot is returned.
    pub(super) fn ended(&mut self, child: Pid) -> Option<u32> {
        let slot =
            self.0.iter().find_map(|(slot, sandbox)| (pid_of(child) == sandbox.init).then_some(*slot))?;
        self.0.remove(&slot);
        Some(slot)
    }

    /// Kills every other child, and waits until all are gone: where no cgroup tells what belongs to a sandbox, its
    /// `init` is enough, and every `init` is a child. `children` is the signalfd that tells of those that ended.
    pub(super) fn end_others(&mut self, children: &OwnedFd) -> io::Result<()> {
        loop {
            for pid in super::reap(children)? {
                self.ended(pid);
            }
            // Again and again: a slot may just have been making one.
            let others: Vec<_> = own_children()?
                .into_iter()
                .filter(|child| !self.0.values().any(|sandbox| sandbox.init == pid_of(*child)))
                .collect();
            if others.is_empty() {
                return Ok(());
            }
            for pid in others {
                match rustix::process::kill_process(pid, Signal::KILL) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let step = Timespec { tv_sec: 0, tv_nsec: super::CLEARING_STEP_NS };
            match rustix::event::poll(&mut [PollFd::new(children, PollFlags::IN)], Some(&step)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn pid_of(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// Whether this process has a child of that PID that has not been reaped.
pub(super) fn is_child(pid: u32) -> bool {
    parent_of(pid) == Some(pid_of(rustix::process::getpid()))
}

fn own_children() -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if is_child(pid) {
            children.extend(i32::try_from(pid).ok().and_then(Pid::from_raw));
        }
    }
    Ok(children)
}

/// The parent of a process; none where there is no such process (proc_pid_stat(5)).
fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rustix::process::Pid;

    use super::{Kept, is_child};

    #[test]
    fn a_kept_sandbox_is_let_go_when_its_init_is_reaped() {
        let mut kept = Kept::default();
        kept.add(3, 77, Vec::new());
        assert!(kept.has(3) && !kept.has(4));
        assert_eq!(kept.ended(Pid::from_raw(78).unwrap()), None);
        assert_eq!(kept.ended(Pid::from_raw(77).unwrap()), Some(3));
        assert!(kept.is_empty() && !kept.remove(3));
    }

    #[test]
    fn a_child_is_known_by_its_parent() {
        assert!(!is_child(std::process::id()));
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(is_child(child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!is_child(child.id()));
    }
}
