//! The launcher: a single-threaded process that the server starts of itself, from which all native sandboxes come.
//!
//! A sandbox is never forked from the server, which has threads, a large address space and descriptors of every
//! client. The server starts its own program again with the one argument `launcher` before any runtime is there; that
//! process gives up the host's file system ([`template`]), then makes slots on demand ([`slot`]) and reaps what they
//! leave. It decides nothing: which slot makes which sandbox is between server and slot.
//!
//! When the server is gone it kills what is in its slots, but for the sandboxes that it was told to keep, and ends with
//! the last of these ([`kept`]).

mod child;
mod idmap;
mod kept;
pub(in crate::native) mod landlock;
pub(crate) mod message;
mod slot;
mod template;
mod user_namespace;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, WaitOptions};

use super::cgroup::{CgroupHost, SlotCgroup};
use super::id_blocks::BLOCK;
use super::layout::{IdMode, store_map_line};
use super::seccomp;
use super::sys::{self, Fork};
use kept::Kept;
use message::{LauncherCommand, LauncherEvent, LauncherSetup, SlotReply, receive, send};
use slot::Slot;
use template::Template;

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
    template: Template,
    seccomp: seccomp::Program,
    /// The slots by the PIDs of their processes.
    slots: BTreeMap<i32, u32>,
    /// Slots whose processes are gone and whose cgroups are not yet, with the attempts at each.
    clearing: BTreeMap<u32, u32>,
    /// On the blocks of ids that its slots are of.
    locks: BTreeMap<u32, OwnedFd>,
    /// The sandboxes that go on without the server.
    kept: Kept,
    /// A lock that later servers wait for: it says that there is something to be cleared up yet.
    uncleared: Option<OwnedFd>,
}

fn run() -> io::Result<()> {
    rustix::thread::set_name(c"faas-launcher")?;
    // Sandboxes must come to what is made here, whatever the starter's umask is.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // Signals for the server's terminal are not for the sandboxes.
    rustix::process::setsid()?;
    sys::ignore_signal(libc::SIGINT)?;
    sys::ignore_signal(libc::SIGHUP)?;
    let server = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 10)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    let Some((LauncherCommand::SetUp(setup), fds)) = receive(&server)? else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the first message is no set-up"));
    };
    let uncleared = fds.into_iter().next();
    let children = sys::child_events()?;
    let (cgroups, template) = match set_up(&server, &setup) {
        Ok(made) => made,
        Err(failure) => return send(&server, &LauncherEvent::Failed(failure), &[]),
    };
    let seccomp = seccomp::default_program();
    let no_images = template.images.as_ref().err().cloned();
    let launcher = Launcher {
        server,
        children,
        ids: setup.ids,
        cgroups,
        template,
        seccomp,
        slots: BTreeMap::new(),
        clearing: BTreeMap::new(),
        locks: BTreeMap::new(),
        kept: Kept::default(),
        uncleared,
    };
    send(&launcher.server, &LauncherEvent::Ready { no_images }, &[])?;
    launcher.serve()
}

/// How long until what was not cleared at once is tried again, in nanoseconds.
const CLEARING_STEP_NS: i64 = 2_000_000;

/// After so many attempts there is a word about it.
const LONG_CLEARING: u32 = 2500;

fn set_up(server: &OwnedFd, setup: &LauncherSetup) -> Result<(Option<CgroupHost>, Template), Failure> {
    sys::new_session_keyring().step("join a new keyring")?;
    let open = |plan| {
        CgroupHost::open(plan)
            .map_err(|error| Failure { step: format!("cgroups: {error}"), errno: libc::EIO })
    };
    let cgroups = setup.cgroups.as_ref().map(open).transpose()?;
    if let IdMode::OfUser { uid, gid, further } = setup.ids {
        user_namespace::enter(server, uid, gid, further > 0)?;
    }
    let mut template = template::enter(setup)?;
    if setup.ids == IdMode::OwnRanges && template.images.is_ok() {
        let namespace = idmap::namespace(&store_map_line(setup.ids.of_slot(0)))?;
        template.images = idmap::try_overlay(&namespace)?.map_err(|failure| {
            format!("this kernel, or the file system of the data directory, cannot show files with other ids ({failure})")
        });
    }
    Ok((cgroups, template))
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
    /// Serves until the server is gone, then ends what is in the slots and waits for the kept sandboxes. Whatever goes
    /// wrong in between ends the same way: a launcher that cannot work leaves nothing behind.
    fn serve(mut self) -> io::Result<()> {
        let served = loop {
            match self.turn() {
                Ok(Turn::Next) => {}
                Ok(Turn::ServerGone) => break Ok(()),
                Ok(Turn::Slot { number, socket, cgroup }) => {
                    // The launcher's descriptors are not the slot's.
                    let Self {
                        ids,
                        template,
                        seccomp,
                        server,
                        children,
                        cgroups,
                        slots: _,
                        clearing: _,
                        locks,
                        kept,
                        uncleared,
                    } = self;
                    drop((server, children, cgroups, locks, kept, uncleared));
                    Slot { number, socket, ids, cgroup, template, seccomp }.run()
                }
                Err(error) => break Err(error),
            }
        };
        let ended = self.end();
        served.and(ended).and(self.linger())
    }

    /// Waits until the last kept sandbox has ended: as their parent it reaps them, and it holds what is theirs. Another
    /// server, with a launcher of its own, may look after them meanwhile, so nothing of theirs is touched.
    fn linger(mut self) -> io::Result<()> {
        self.uncleared = None;
        if self.kept.is_empty() {
            return Ok(());
        }
        // A server that was killed does not hear it.
        match send(&self.server, &LauncherEvent::Cleared, &[]) {
            Ok(()) | Err(_) => {}
        }
        let Self { server, children, mut kept, locks: _locks, .. } = self;
        drop(server);
        // Whoever reads what the server said waits for its end.
        let null = std::fs::File::options().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stderr(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        loop {
            for pid in reap(&children)? {
                kept.ended(pid);
            }
            if kept.is_empty() {
                return Ok(());
            }
            match rustix::event::poll(&mut [PollFd::new(&children, PollFlags::IN)], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for one event and acts on it.
    fn turn(&mut self) -> io::Result<Turn> {
        let (server, children) = {
            let mut fds =
                [PollFd::new(&self.server, PollFlags::IN), PollFd::new(&self.children, PollFlags::IN)];
            let step = Timespec { tv_sec: 0, tv_nsec: CLEARING_STEP_NS };
            match rustix::event::poll(&mut fds, (!self.clearing.is_empty()).then_some(&step)) {
                Err(rustix::io::Errno::INTR) => return Ok(Turn::Next),
                other => other?,
            };
            (!fds[0].revents().is_empty(), !fds[1].revents().is_empty())
        };
        self.clear()?;
        if children {
            self.reap()?;
        }
        if !server {
            return Ok(Turn::Next);
        }
        match receive(&self.server)? {
            Some((LauncherCommand::MakeSlot { slot }, fds)) => self.make_slot(slot, fds),
            Some((LauncherCommand::Keep { slot, init }, fds)) => {
                // One that has ended was reaped, and its PID may be another child's by now.
                let kept = kept::is_child(init) && self.slots.values().any(|known| *known == slot);
                if kept {
                    self.kept.add(slot, init, fds);
                }
                send(&self.server, &LauncherEvent::Kept { slot, kept }, &[])?;
                Ok(Turn::Next)
            }
            Some((LauncherCommand::Release { slot }, _)) => {
                if self.kept.remove(slot) {
                    self.clear_unless_slot_lives(slot);
                }
                Ok(Turn::Next)
            }
            Some((LauncherCommand::SetUp(_) | LauncherCommand::IdsMapped, _)) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "set up twice"))
            }
            None => Ok(Turn::ServerGone),
        }
    }

    /// Ends everything that is in the slots and not kept: all of them are tried, the first failure is reported.
    fn end(&mut self) -> io::Result<()> {
        let Some(cgroups) = &self.cgroups else {
            // What runs in a slot is asked to end with the launcher (`PR_SET_PDEATHSIG`), but a sandbox's root can have
            // its `init` take that back.
            return self.kept.end_others(&self.children);
        };
        let kept = &self.kept;
        let slots = std::mem::take(&mut self.slots).into_values().filter(|slot| !kept.has(*slot));
        let clearing = std::mem::take(&mut self.clearing).into_keys();
        cgroups
            .destroy_slots(slots.chain(clearing))
            .into_iter()
            .next()
            .map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Tries once to remove what each slot left whose process is gone, and says which are cleared. What does not end at
    /// once (a frozen process, a large exit) holds up nothing else.
    fn clear(&mut self) -> io::Result<()> {
        let mut cleared = Vec::new();
        for (slot, tries) in &mut self.clearing {
            let tried = self.cgroups.as_ref().map_or(Ok(true), |cgroups| cgroups.try_destroy_slot(*slot));
            *tries = tries.saturating_add(1);
            match tried {
                Ok(true) => cleared.push(*slot),
                Ok(false) if *tries == LONG_CLEARING => {
                    eprintln!("launcher: slot {slot}: its processes do not end");
                }
                Ok(false) => {}
                Err(error) if *tries % LONG_CLEARING == 1 => eprintln!("launcher: slot {slot}: {error}"),
                Err(_) => {}
            }
        }
        for slot in cleared {
            self.clearing.remove(&slot);
            send(self.server.as_fd(), &LauncherEvent::SlotGone { slot }, &[])?;
        }
        Ok(())
    }

    fn make_slot(&mut self, slot: u32, fds: Vec<OwnedFd>) -> io::Result<Turn> {
        let mut fds = fds.into_iter();
        let Some(socket) = fds.next() else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a slot without a socket"));
        };
        if let Some(lock) = fds.next() {
            self.locks.entry(slot / BLOCK).or_insert(lock);
        }
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
                    Ok(()) | Err(_) => self.slot_gone(slot),
                }
            }
        }
        Ok(Turn::Next)
    }

    fn reap(&mut self) -> io::Result<()> {
        for pid in reap(&self.children)? {
            self.child_gone(pid);
        }
        Ok(())
    }

    fn child_gone(&mut self, pid: Pid) {
        // One that is in neither list is a sandbox's init: the server watches it by its pidfd.
        if let Some(slot) = self.slots.remove(&pid.as_raw_nonzero().get()) {
            self.slot_gone(slot);
        } else if let Some(slot) = self.kept.ended(pid) {
            self.clear_unless_slot_lives(slot);
        }
    }

    /// What a kept sandbox was in is cleared up as soon as neither it nor the slot's own process needs it.
    fn clear_unless_slot_lives(&mut self, slot: u32) {
        if !self.slots.values().any(|living| *living == slot) {
            self.slot_gone(slot);
        }
    }

    fn slot_gone(&mut self, slot: u32) {
        if !self.kept.has(slot) {
            self.clearing.insert(slot, 0);
        }
    }
}

/// Reaps every child that has ended. `children` is the signalfd that tells of some.
fn reap(children: &OwnedFd) -> io::Result<Vec<Pid>> {
    // Draining is all that is wanted of it: one event may stand for many children.
    let mut events = [0u8; size_of::<libc::signalfd_siginfo>() * 8];
    while let Ok(1..) = rustix::io::read(children, &mut events) {}
    let mut ended = Vec::new();
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, _))) => ended.push(pid),
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(ended),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
pub(in crate::native) mod tests {
    use std::collections::BTreeMap;
    use std::process::{Command, ExitCode};

    use super::kept::{Kept, is_child};
    use super::template::Template;
    use super::{IdMode, Launcher, message, seccomp, sys};

    /// The only argument with which the test program is [`ending`].
    pub(in crate::native) const ARGUMENT: &str = "ending-launcher";

    /// The end of a launcher without cgroups that has a child to which its own death says nothing.
    pub(in crate::native) fn ending() -> ExitCode {
        let (server, _other_end) = message::socket_pair().unwrap();
        let mut launcher = Launcher {
            server,
            children: sys::child_events().unwrap(),
            ids: IdMode::OwnRanges,
            cgroups: None,
            template: Template { trees: Vec::new(), images: Err("none".to_owned()) },
            seccomp: seccomp::default_program(),
            slots: BTreeMap::new(),
            clearing: BTreeMap::new(),
            locks: BTreeMap::new(),
            kept: Kept::default(),
            uncleared: None,
        };
        #[expect(clippy::zombie_processes, reason = "the launcher waits for it")]
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        launcher.end().unwrap();
        if !is_child(child.id()) {
            return ExitCode::SUCCESS;
        }
        child.kill().unwrap();
        ExitCode::FAILURE
    }

    #[test]
    fn without_cgroups_a_launcher_ends_its_children_itself() {
        // Whoever waits for all children must have none of other tests.
        let ended = Command::new(std::env::current_exe().unwrap()).arg(ARGUMENT).status().unwrap();
        assert!(ended.success(), "{ended}");
    }
}
