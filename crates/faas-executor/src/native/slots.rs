//! The server's slots: which stand ready, who waits for one, which numbers are taken.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::cgroup::{CgroupHost, SlotCgroup};
use super::id_blocks::IdBlocks;
use super::launcher::message::SlotReply;
use super::launcher_process::{LauncherConfig, LauncherError, LauncherProcess, Notice};
use super::layout::MAX_SLOTS;
use super::numbers::Numbers;
use super::socket::Socket;

/// A slot that stands ready, or that holds a sandbox. When it is dropped its process ends, and the launcher kills what
/// is in its cgroups, unless that is kept. To be given back by [`Slots::release`] or given up by [`Slots::forget`].
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) number: u32,
    /// Its cgroups, for what is read of them; none where the server has no cgroups.
    pub(super) cgroup: Option<Arc<SlotCgroup>>,
    /// None for one that an earlier server's launcher made, and that is of no use after the sandbox in it.
    process: Option<Process>,
}

/// The process of a slot.
#[derive(Debug)]
struct Process {
    socket: Socket,
    /// The launcher that made it, by count.
    launcher: u64,
}

impl Slot {
    /// The connection to its process, which takes orders for sandboxes.
    pub(super) fn socket(&self) -> io::Result<&Socket> {
        self.process
            .as_ref()
            .map(|process| &process.socket)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Whether an earlier server's launcher made it.
    pub(super) fn is_adopted(&self) -> bool {
        self.process.is_none()
    }

    /// Whether its process is there.
    pub(super) fn has_process(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !process.socket.is_closed())
    }

    fn is_of(&self, launcher: u64) -> bool {
        self.process.as_ref().is_some_and(|process| process.launcher == launcher)
    }
}

/// A place among those who wait for a slot. One that comes when nobody waits any more is given back.
struct Queued {
    slots: Arc<Slots>,
    receiver: oneshot::Receiver<Result<Slot, SlotError>>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.receiver.close();
        if let Ok(Ok(slot)) = self.receiver.try_recv() {
            self.slots.release(slot);
        }
    }
}

/// After so many slots that ended while they were parked whoever waits is told.
const MAX_FAILED_IN_A_ROW: u32 = 16;

/// How many launchers are started one after the other when they end while they are set up.
const LAUNCHER_TRIES: u32 = 3;

/// How long slots beyond the spare ones must have stood unused before they are given up.
const TRIM_PERIOD: Duration = Duration::from_secs(10);

/// Why there is no slot.
#[derive(Debug, thiserror::Error)]
pub(super) enum SlotError {
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    #[error("all slots of this host are in use")]
    Exhausted,
    #[error("cannot park a slot: {0}")]
    Park(super::launcher::Failure),
    #[error("cannot open a slot's cgroups: {0}")]
    Cgroup(std::io::Error),
    #[error("a slot ended while it was parked")]
    Ended,
    #[error("the native runtime is shutting down")]
    Closed,
}

#[derive(Debug)]
struct State {
    /// The last one given back is claimed first, so that the surplus of a burst stays at the front.
    idle: Vec<Slot>,
    /// The fewest that stood ready since the last look: so many were not needed.
    fewest_idle: usize,
    waiters: VecDeque<oneshot::Sender<Result<Slot, SlotError>>>,
    /// Slots that are being parked.
    making: usize,
    /// How many could not be parked since the last that could.
    failed_in_a_row: u32,
    numbers: Numbers,
    blocks: IdBlocks,
    /// The numbers of slots whose sandboxes go on without the server.
    kept: BTreeSet<u32>,
    closed: bool,
}

/// The numbers of one gateway, before there are slots.
#[derive(Debug)]
pub(super) struct Reserved {
    numbers: Numbers,
    blocks: IdBlocks,
    kept: BTreeSet<u32>,
}

impl Reserved {
    /// None of them is taken. Those that `is_reserved` names are the host's.
    pub(super) fn new(blocks: IdBlocks, is_reserved: impl Fn(&u32) -> bool) -> Self {
        let numbers = Numbers::new((0..MAX_SLOTS).filter(is_reserved).collect());
        Self { numbers, blocks, kept: BTreeSet::new() }
    }

    /// Takes the slot over that an earlier server's sandbox is in. The inner error: its ids are somebody else's now.
    pub(super) fn take_over(&mut self, number: u32) -> io::Result<Result<(), String>> {
        if number >= MAX_SLOTS || !self.blocks.take_over(number)? {
            return Ok(Err("its ids were taken by another gateway".to_owned()));
        }
        if self.numbers.take([number]).is_none() {
            return Ok(Err("its ids were given to somebody else by the host".to_owned()));
        }
        self.kept.insert(number);
        Ok(Ok(()))
    }

    /// No slot is to have that number: there is something of an earlier one still.
    pub(super) fn leave_out(&mut self, number: u32) {
        self.numbers.reserve(number);
    }

    /// Those that were taken over.
    pub(super) fn kept(&self) -> &BTreeSet<u32> {
        &self.kept
    }
}

impl State {
    /// A number for another slot.
    fn take_number(&mut self) -> Option<u32> {
        loop {
            if let Some(number) = self.numbers.take(self.blocks.numbers()) {
                return Some(number);
            }
            match self.blocks.take_another() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    tracing::error!(%error, "cannot take another block of ids");
                    return None;
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct Launcher {
    process: Option<LauncherProcess>,
    /// How many there have been.
    count: u64,
}

/// All slots of one executor.
#[derive(Debug)]
pub(super) struct Slots {
    config: LauncherConfig,
    cgroups: Option<Arc<CgroupHost>>,
    /// How many stand ready when nothing happens.
    spare: usize,
    state: Mutex<State>,
    launcher: tokio::sync::Mutex<Launcher>,
    /// The count of the launcher that runs, 0 when none does.
    current: AtomicU64,
    /// Why the last launcher could not be started, if it could not.
    broken: Mutex<Option<String>>,
    notices: mpsc::UnboundedSender<Notice>,
}

impl Slots {
    /// Starts the launcher and begins to park `spare` slots.
    pub(super) async fn start(
        config: LauncherConfig,
        cgroups: Option<Arc<CgroupHost>>,
        spare: usize,
        reserved: Reserved,
    ) -> Result<Arc<Self>, LauncherError> {
        let Reserved { numbers, blocks, kept } = reserved;
        let (notices, received) = mpsc::unbounded_channel();
        let slots = Arc::new(Self {
            config,
            cgroups,
            spare,
            state: Mutex::new(State {
                idle: Vec::new(),
                fewest_idle: 0,
                waiters: VecDeque::new(),
                making: 0,
                failed_in_a_row: 0,
                numbers,
                blocks,
                kept,
                closed: false,
            }),
            launcher: tokio::sync::Mutex::default(),
            current: AtomicU64::new(0),
            broken: Mutex::default(),
            notices,
        });
        slots.ensure_launcher(&mut *slots.launcher.lock().await).await?;
        tokio::spawn(Arc::clone(&slots).follow(received));
        tokio::spawn(Arc::clone(&slots).trim());
        slots.refill();
        Ok(slots)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot that stands ready; waits until there is one.
    pub(super) async fn claim(self: &Arc<Self>) -> Result<Slot, SlotError> {
        let receiver = {
            let mut state = self.state();
            if state.closed {
                return Err(SlotError::Closed);
            }
            if let Some(slot) = state.idle.pop() {
                state.fewest_idle = state.fewest_idle.min(state.idle.len());
                return Ok(slot);
            }
            state.fewest_idle = 0;
            let (sender, receiver) = oneshot::channel();
            state.waiters.push_back(sender);
            receiver
        };
        self.refill();
        let mut queued = Queued { slots: Arc::clone(self), receiver };
        (&mut queued.receiver).await.unwrap_or(Err(SlotError::Closed))
    }

    /// How many slots may be found of no use one after the other, without a fault of whoever asks: those that stand
    /// ready, and no fewer than are meant to.
    pub(super) fn at_hand(&self) -> usize {
        self.state().idle.len().max(self.spare)
    }

    /// Gives back a slot whose sandbox is gone. One that has ended meanwhile is given up, or whose launcher has.
    pub(super) fn release(self: &Arc<Self>, slot: Slot) {
        if !slot.is_of(self.current.load(Ordering::Relaxed)) || !slot.has_process() {
            return self.forget(slot);
        }
        let mut slot = slot;
        let mut state = self.state();
        if state.closed {
            return;
        }
        while let Some(waiter) = state.waiters.pop_front() {
            match waiter.send(Ok(slot)) {
                Ok(()) => return,
                // It went away while it waited.
                Err(Ok(returned)) => slot = returned,
                Err(Err(_)) => return,
            }
        }
        state.idle.push(slot);
    }

    /// Parks as many slots as are wanted: one for each who waits, and the spare ones.
    fn refill(self: &Arc<Self>) {
        let mut state = self.state();
        state.waiters.retain(|waiter| !waiter.is_closed());
        while !state.closed && state.making + state.idle.len() < self.spare.max(state.waiters.len()) {
            let Some(number) = state.take_number() else {
                if let Some(waiter) = state.waiters.pop_front() {
                    answer(waiter, Err(SlotError::Exhausted));
                    continue;
                }
                return;
            };
            state.making += 1;
            tokio::spawn(Arc::clone(self).make(number));
        }
    }

    async fn make(self: Arc<Self>, number: u32) {
        let made = self.park(number).await;
        let mut state = self.state();
        state.making -= 1;
        match made {
            Ok(slot) => {
                state.failed_in_a_row = 0;
                drop(state);
                self.release(slot);
            }
            Err(error) => {
                tracing::error!(slot = number, %error, "cannot make a slot");
                state.numbers.left_by_server(number);
                state.failed_in_a_row += 1;
                // One that was ended says nothing of the next.
                let ended = matches!(error, SlotError::Ended | SlotError::Cgroup(_));
                if !ended || state.failed_in_a_row >= MAX_FAILED_IN_A_ROW {
                    if let Some(waiter) = state.waiters.pop_front() {
                        answer(waiter, Err(error));
                    }
                } else if !state.waiters.is_empty() {
                    drop(state);
                    self.refill();
                }
            }
        }
    }

    async fn park(&self, number: u32) -> Result<Slot, SlotError> {
        let (socket, there) = Socket::pair().map_err(LauncherError::Talk)?;
        let launcher = {
            let mut launcher = self.launcher.lock().await;
            if self.state().closed {
                return Err(SlotError::Closed);
            }
            self.ensure_launcher(&mut launcher).await?;
            let Some(process) = &launcher.process else { return Err(LauncherError::Ended.into()) };
            let lock = {
                let mut state = self.state();
                state.numbers.given_to_launcher(number, launcher.count);
                state.blocks.lock_of(number).map(|lock| lock.try_clone_to_owned()).transpose()
            };
            let lock = lock.map_err(LauncherError::Talk)?;
            if let Err(error) = process.make_slot(number, there, lock).await {
                // It has heard nothing of it.
                self.state().numbers.left_by_launcher(number, launcher.count);
                return match error {
                    // It is gone, which is told in a moment. The next one is not kept waiting for that.
                    LauncherError::Talk(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        launcher.process = None;
                        Err(SlotError::Ended)
                    }
                    error => Err(error.into()),
                };
            }
            launcher.count
        };
        match socket.receive::<SlotReply>().await.map_err(LauncherError::Talk)? {
            Some((SlotReply::Parked, _)) => {
                let cgroup = self.cgroups.as_ref().map(|cgroups| SlotCgroup::open(cgroups, number));
                let cgroup = cgroup.transpose().map_err(SlotError::Cgroup)?;
                let process = Some(Process { socket, launcher });
                Ok(Slot { number, cgroup: cgroup.map(Arc::new), process })
            }
            Some((SlotReply::Failed(failure), _)) => Err(SlotError::Park(failure)),
            Some((SlotReply::Created { .. }, _)) | None => Err(SlotError::Ended),
        }
    }

    async fn ensure_launcher(&self, launcher: &mut Launcher) -> Result<(), LauncherError> {
        if launcher.process.is_some() {
            return Ok(());
        }
        let mut tries = 0;
        let started = loop {
            launcher.count += 1;
            tries += 1;
            match LauncherProcess::start(&self.config, launcher.count, self.notices.clone()).await {
                // Somebody ended it: that says nothing of the next.
                Err(LauncherError::Ended | LauncherError::Talk(_)) if tries < LAUNCHER_TRIES => {}
                started => break started,
            }
        };
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) =
            started.as_ref().err().map(ToString::to_string);
        launcher.process = Some(started?);
        self.current.store(launcher.count, Ordering::Relaxed);
        Ok(())
    }

    /// Why no sandbox can be made now: the launcher does not start.
    pub(super) fn broken(&self) -> Option<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why sandboxes can have no image but the host's, if they cannot.
    pub(super) async fn no_images(&self) -> Option<String> {
        self.launcher.lock().await.process.as_ref().and_then(|process| process.no_images.clone())
    }

    /// Acts on what becomes known of the launcher, for as long as the executor lives.
    async fn follow(self: Arc<Self>, mut notices: mpsc::UnboundedReceiver<Notice>) {
        while let Some(notice) = notices.recv().await {
            match notice {
                Notice::SlotGone { launcher, slot } => {
                    let mut state = self.state();
                    // One that stood ready is no longer of use.
                    let is_it = |idle: &Slot| idle.number == slot && idle.is_of(launcher);
                    if let Some(place) = state.idle.iter().position(is_it) {
                        drop(state.idle.swap_remove(place));
                        state.numbers.left_by_server(slot);
                    }
                    state.numbers.left_by_launcher(slot, launcher);
                }
                Notice::LauncherGone { launcher } => {
                    let mut current = self.launcher.lock().await;
                    if current.count == launcher {
                        current.process = None;
                        self.current.store(0, Ordering::Relaxed);
                    }
                    drop(current);
                    let orphans = {
                        let mut state = self.state();
                        if state.closed {
                            return;
                        }
                        let (its, others): (Vec<_>, Vec<_>) =
                            state.idle.drain(..).partition(|slot| slot.is_of(launcher));
                        state.idle = others;
                        for slot in its {
                            state.numbers.left_by_server(slot.number);
                        }
                        state.numbers.orphans_of(launcher)
                    };
                    tracing::warn!(orphans = orphans.len(), "the launcher is gone; starting another");
                    for number in orphans {
                        tokio::spawn(Arc::clone(&self).destroy_orphan(number, launcher));
                    }
                }
            }
            self.refill();
        }
    }

    /// Gives up, now and then, what a burst of work left beyond the spare slots.
    async fn trim(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TRIM_PERIOD).await;
            let surplus = {
                let mut state = self.state();
                if state.closed {
                    return;
                }
                let unused = state.fewest_idle.min(state.idle.len()).saturating_sub(self.spare);
                let surplus: Vec<_> = state.idle.drain(..unused).collect();
                state.fewest_idle = state.idle.len();
                surplus
            };
            for slot in surplus {
                self.forget(slot);
            }
            // What could not be made before may be possible now.
            self.refill();
        }
    }

    /// Gives up a slot for good: its process, what runs in it, its cgroups.
    pub(super) fn forget(self: &Arc<Self>, slot: Slot) {
        let number = slot.number;
        let this = Arc::clone(self);
        let Some(made_by) = slot.process.as_ref().map(|process| process.launcher) else {
            tokio::spawn(async move { this.end_slot(number).await });
            return;
        };
        tokio::spawn(async move {
            this.release_kept(&slot).await;
            // Its process ends, and its launcher clears up, if that is still there.
            drop(slot);
            let orphaned = {
                let launcher = this.launcher.lock().await;
                this.state().numbers.left_by_server(number);
                launcher.process.is_none() || launcher.count != made_by
            };
            if orphaned {
                this.destroy_orphan(number, made_by).await;
            }
        });
    }

    /// Clears up after a slot in its dead launcher's stead, as often as it takes. Its number stays taken until then.
    async fn destroy_orphan(self: Arc<Self>, number: u32, launcher: u64) {
        if self.destroy(number).await {
            self.state().numbers.left_by_launcher(number, launcher);
        }
    }

    /// Kills and removes what is in a slot's cgroups, as often as it takes; `false` when the server ends first.
    async fn destroy(&self, number: u32) -> bool {
        while let Some(cgroups) = self.cgroups.clone() {
            match tokio::task::spawn_blocking(move || cgroups.destroy_slot(number)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => {
                    tracing::error!(slot = number, %error, "a slot's cgroups cannot be removed; trying again");
                }
                Err(error) => tracing::error!(slot = number, %error, "removing a slot's cgroups failed"),
            }
            tokio::time::sleep(TRIM_PERIOD).await;
            if self.state().closed {
                return false;
            }
        }
        true
    }

    /// The slot of an earlier server that was taken over at the start.
    pub(super) fn adopt(&self, number: u32) -> io::Result<Slot> {
        let cgroup = self.cgroups.as_ref().map(|cgroups| SlotCgroup::open(cgroups, number)).transpose()?;
        Ok(Slot { number, cgroup: cgroup.map(Arc::new), process: None })
    }

    /// Ends such a slot and what is in it. Returns when it is gone and its number is free.
    pub(super) async fn end_slot(&self, number: u32) {
        self.state().kept.remove(&number);
        if self.destroy(number).await {
            self.state().numbers.left_by_server(number);
        }
    }

    /// From here on the sandbox in a slot, whose `init` has this PID, goes on without the server; `held` is kept open
    /// for as long. The error says why it does not.
    pub(super) async fn keep(&self, slot: &Slot, init: u32, held: Option<OwnedFd>) -> Result<(), String> {
        let Some(made_by) = slot.process.as_ref().map(|process| process.launcher) else { return Ok(()) };
        self.state().kept.insert(slot.number);
        let kept = self.tell_to_keep(slot.number, made_by, init, held).await;
        if kept.is_err() {
            self.state().kept.remove(&slot.number);
        }
        kept
    }

    async fn tell_to_keep(
        &self,
        number: u32,
        made_by: u64,
        init: u32,
        held: Option<OwnedFd>,
    ) -> Result<(), String> {
        let answer = {
            let launcher = self.launcher.lock().await;
            match &launcher.process {
                Some(process) if launcher.count == made_by => process.keep(number, init, held).await.ok(),
                _ => None,
            }
        };
        let answer = match answer {
            Some(answer) => answer.await.ok(),
            None => None,
        };
        match answer {
            Some(true) => Ok(()),
            Some(false) => Err("it has ended".to_owned()),
            // Nobody is left who would end it with the server, but the kernel where there are no cgroups.
            None if self.cgroups.is_some() => Ok(()),
            None => Err("it ended with its launcher".to_owned()),
        }
    }

    /// Has the sandbox in a slot end with the server again. Before the slot is given back or up.
    pub(super) async fn release_kept(&self, slot: &Slot) {
        let Some(process) = slot.process.as_ref().filter(|_| self.state().kept.remove(&slot.number)) else {
            return;
        };
        let launcher = self.launcher.lock().await;
        if let Some(current) = launcher.process.as_ref().filter(|_| launcher.count == process.launcher)
            && let Err(error) = current.release(slot.number).await
        {
            tracing::debug!(slot = slot.number, %error, "the launcher is gone");
        }
    }

    /// The numbers of slots whose sandboxes go on without the server.
    pub(super) fn kept(&self) -> BTreeSet<u32> {
        self.state().kept.clone()
    }

    /// Whether anybody has a slot of this number: it stands ready, holds a sandbox, or is being made or cleared up.
    pub(super) fn has(&self, number: u32) -> bool {
        self.state().numbers.is_taken(number)
    }

    /// Ends all slots and the launcher, and waits until they are gone; what is kept goes on.
    pub(super) async fn stop(&self) {
        let idle = {
            let mut state = self.state();
            state.closed = true;
            state.waiters.clear();
            std::mem::take(&mut state.idle)
        };
        drop(idle);
        let process = self.launcher.lock().await.process.take();
        if let Some(process) = process {
            process.stop().await;
        }
    }
}

fn answer(waiter: oneshot::Sender<Result<Slot, SlotError>>, answer: Result<Slot, SlotError>) {
    // A waiter that went away wants no answer; a slot that comes back ends when it is dropped.
    match waiter.send(answer) {
        Ok(()) | Err(_) => {}
    }
}
