//! The launcher: a single-threaded process that the server starts of itself, from which all native sandboxes come.
//!
//! A sandbox is never forked from the server, which has threads, a large address space and descriptors of every
//! client. The server starts its own program again with the one argument `launcher` before any runtime is there; that
//! process gives up the host's file system ([`template`]), then makes slots on demand ([`slot`]) and reaps what they
//! leave. It decides nothing: which slot makes which sandbox is between server and slot.
//!
//! When the server is gone it kills what is in its slots and ends.

mod child;
pub(in crate::native) mod landlock;
pub(in crate::native) mod message;
mod slot;
mod template;
mod user_namespace;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, WaitOptions};

use super::cgroup::{CgroupHost, SlotCgroup};
use super::layout::IdMode;
use super::seccomp;
use super::sys::{self, Fork};
use message::{LauncherCommand, LauncherEvent, LauncherSetup, SlotReply, receive, send};
use slot::Slot;
use template::HostTree;

pub(in crate::native) use message::{Failure, Step};

/// The only argument with which the server starts itself as the launcher.
pub const ARGUMENT: &str = "launcher";

/// Runs as the launcher; the connection to the server is standard input. Must be called from a process with one
/// thread, before anything else is done.
pub fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("launcher: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

struct Launcher {
    server: OwnedFd,
    children: OwnedFd,
    ids: IdMode,
    cgroups: Option<CgroupHost>,
    trees: Vec<HostTree>,
    seccomp: seccomp::Program,
    slots: BTreeMap<i32, u32>,
}

fn run() -> io::Result<()> {
    // Signals for the server's terminal are not for the sandboxes.
    rustix::process::setsid()?;
    sys::ignore_signal(libc::SIGINT)?;
    sys::ignore_signal(libc::SIGHUP)?;
    let server = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 10)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    let Some((LauncherCommand::SetUp(setup), _)) = receive(&server)? else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the first message is no set-up"));
    };
    let children = sys::child_events()?;
    let (cgroups, trees) = match set_up(&server, &setup) {
        Ok(made) => made,
        Err(failure) => return send(&server, &LauncherEvent::Failed(failure), &[]),
    };
    let seccomp = seccomp::default_program();
    let launcher =
        Launcher { server, children, ids: setup.ids, cgroups, trees, seccomp, slots: BTreeMap::new() };
    send(&launcher.server, &LauncherEvent::Ready, &[])?;
    launcher.serve()
}

fn set_up(server: &OwnedFd, setup: &LauncherSetup) -> Result<(Option<CgroupHost>, Vec<HostTree>), Failure> {
    sys::new_session_keyring().step("join a new keyring")?;
    let open = |plan| {
        CgroupHost::open(plan)
            .map_err(|error| Failure { step: format!("cgroups: {error}"), errno: libc::EIO })
    };
    let cgroups = setup.cgroups.as_ref().map(open).transpose()?;
    if let IdMode::OfUser { uid, gid, further } = setup.ids {
        user_namespace::enter(server, uid, gid, further > 0)?;
    }
    Ok((cgroups, template::enter(setup)?))
}

/// What comes of one event.
enum Turn {
    /// The next event is waited for.
    Next,
    /// The server is gone.
    ServerGone,
    /// This is the forked process of a new slot.
    Slot { number: u32, socket: OwnedFd, cgroup: Option<SlotCgroup> },
}

impl Launcher {
    /// Serves until the server is gone, then ends what is in the slots. Whatever goes wrong in between ends the same
    /// way: a launcher that cannot work leaves nothing behind.
    fn serve(mut self) -> io::Result<()> {
        let served = loop {
            match self.turn() {
                Ok(Turn::Next) => {}
                Ok(Turn::ServerGone) => break Ok(()),
                Ok(Turn::Slot { number, socket, cgroup }) => {
                    // The launcher's descriptors are not the slot's.
                    let Self { ids, trees, seccomp, server, children, cgroups, slots: _ } = self;
                    drop((server, children, cgroups));
                    Slot { number, socket, ids, cgroup, trees, seccomp }.run()
                }
                Err(error) => break Err(error),
            }
        };
        let ended = self.end();
        served.and(ended)
    }

    /// Waits for one event and acts on it.
    fn turn(&mut self) -> io::Result<Turn> {
        let (server, children) = {
            let mut fds =
                [PollFd::new(&self.server, PollFlags::IN), PollFd::new(&self.children, PollFlags::IN)];
            match rustix::event::poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => return Ok(Turn::Next),
                other => other?,
            };
            (!fds[0].revents().is_empty(), !fds[1].revents().is_empty())
        };
        if children {
            self.reap()?;
        }
        if !server {
            return Ok(Turn::Next);
        }
        match receive(&self.server)? {
            Some((LauncherCommand::MakeSlot { slot }, fds)) => self.make_slot(slot, fds),
            Some((LauncherCommand::SetUp(_) | LauncherCommand::IdsMapped, _)) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "set up twice"))
            }
            None => Ok(Turn::ServerGone),
        }
    }

    /// Ends everything that is in the slots: all of them are tried, the first failure is reported.
    fn end(&mut self) -> io::Result<()> {
        let slots = std::mem::take(&mut self.slots);
        let ended = slots.into_values().map(|slot| self.destroy_slot(slot));
        ended.fold(Ok(()), Result::and)
    }

    /// Without cgroups what runs in a slot ends when its pidfd is killed, or with the launcher (`PR_SET_PDEATHSIG`).
    fn destroy_slot(&self, slot: u32) -> io::Result<()> {
        self.cgroups.as_ref().map_or(Ok(()), |cgroups| cgroups.destroy_slot(slot))
    }

    fn make_slot(&mut self, slot: u32, fds: Vec<OwnedFd>) -> io::Result<Turn> {
        let Some(socket) = fds.into_iter().next() else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a slot without a socket"));
        };
        let cgroup = self.cgroups.as_ref().map(|cgroups| SlotCgroup::make(cgroups, slot)).transpose();
        let forked = cgroup
            .map_err(|error| Failure::at("make cgroups", &error))
            // SAFETY: the launcher is single-threaded.
            .and_then(|cgroup| match unsafe { sys::fork() } {
                Ok(fork) => Ok((fork, cgroup)),
                Err(error) => Err(Failure::at("fork a slot", &error)),
            });
        match forked {
            Ok((Fork::Child, cgroup)) => return Ok(Turn::Slot { number: slot, socket, cgroup }),
            Ok((Fork::Parent(pid), _)) => {
                self.slots.insert(pid.as_raw_nonzero().get(), slot);
            }
            Err(failure) => {
                // A server that does not listen any more sees the socket close.
                match send(&socket, &SlotReply::Failed(failure), &[]) {
                    Ok(()) | Err(_) => self.slot_gone(slot)?,
                }
            }
        }
        Ok(Turn::Next)
    }

    fn reap(&mut self) -> io::Result<()> {
        // Draining is all that is wanted of it: one event may stand for many children.
        let mut events = [0u8; size_of::<libc::signalfd_siginfo>() * 8];
        while let Ok(1..) = rustix::io::read(&self.children, &mut events) {}
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, _))) => self.child_gone(pid)?,
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn child_gone(&mut self, pid: Pid) -> io::Result<()> {
        match self.slots.remove(&pid.as_raw_nonzero().get()) {
            Some(slot) => self.slot_gone(slot),
            // A sandbox's init: the server watches it by its pidfd.
            None => Ok(()),
        }
    }

    fn slot_gone(&mut self, slot: u32) -> io::Result<()> {
        let left = self.destroy_slot(slot).err().map(|error| error.to_string());
        send(self.server.as_fd(), &LauncherEvent::SlotGone { slot, left }, &[])
    }
}
