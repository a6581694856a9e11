//! The server's slots: which stand ready, who waits for one, which numbers are taken.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::cgroup::{CgroupHost, SlotCgroup};
use super::launcher::message::SlotReply;
use super::launcher_process::{LauncherConfig, LauncherError, LauncherProcess, Notice};
use super::layout::MAX_SLOTS;
use super::socket::Socket;

/// A slot that stands ready, or that holds a sandbox. When it is dropped its process ends, and the launcher kills what
/// is in its cgroups.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) socket: Socket,
    /// Its cgroups, for what is read of them; none where the server has no cgroups.
    pub(super) cgroup: Option<SlotCgroup>,
    /// The launcher that made it, by count.
    launcher: u64,
}

/// How long slots beyond the spare ones must have stood unused before they are given up.
const TRIM_PERIOD: Duration = Duration::from_secs(10);

/// Why there is no slot.
#[derive(Debug, thiserror::Error)]
pub(super) enum SlotError {
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    #[error("all {MAX_SLOTS} slots are in use")]
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

#[derive(Debug, Default)]
struct State {
    /// The last one given back is claimed first, so that the surplus of a burst stays at the front.
    idle: Vec<Slot>,
    /// The fewest that stood ready since the last look: so many were not needed.
    fewest_idle: usize,
    waiters: VecDeque<oneshot::Sender<Result<Slot, SlotError>>>,
    /// Slots that are being parked.
    making: usize,
    /// Numbers that are in use, or that the host has given to somebody else.
    taken: BTreeSet<u32>,
    closed: bool,
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
    notices: mpsc::UnboundedSender<Notice>,
}

impl Slots {
    /// Starts the launcher and begins to park `spare` slots. `reserved` are ranges of ids that belong to the host's
    /// users.
    pub(super) async fn start(
        config: LauncherConfig,
        cgroups: Option<Arc<CgroupHost>>,
        spare: usize,
        reserved: &[(u64, u64)],
    ) -> Result<Arc<Self>, LauncherError> {
        let taken = (0..MAX_SLOTS)
            .filter(|slot| {
                let ids = config.setup.ids.of_slot(*slot);
                reserved.iter().any(|(start, count)| ids.overlaps(*start, *count))
            })
            .collect();
        let (notices, received) = mpsc::unbounded_channel();
        let slots = Arc::new(Self {
            config,
            cgroups,
            spare,
            state: Mutex::new(State { taken, ..State::default() }),
            launcher: tokio::sync::Mutex::default(),
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
        receiver.await.unwrap_or(Err(SlotError::Closed))
    }

    /// Gives back a slot whose sandbox is gone.
    pub(super) fn release(&self, slot: Slot) {
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
        while !state.closed && state.making + state.idle.len() < self.spare.max(state.waiters.len()) {
            let free = (0..MAX_SLOTS).find(|number| !state.taken.contains(number));
            let Some(number) = free else {
                if let Some(waiter) = state.waiters.pop_front() {
                    answer(waiter, Err(SlotError::Exhausted));
                    continue;
                }
                return;
            };
            state.taken.insert(number);
            state.making += 1;
            tokio::spawn(Arc::clone(self).make(number));
        }
    }

    async fn make(self: Arc<Self>, number: u32) {
        let made = self.park(number).await;
        let failed = {
            let mut state = self.state();
            state.making -= 1;
            match made {
                Ok(slot) => {
                    drop(state);
                    self.release(slot);
                    None
                }
                Err(error) => {
                    tracing::error!(slot = number, %error, "cannot make a slot");
                    // The launcher says when it has cleared up after a slot that failed; one that it never heard of
                    // is free at once.
                    if matches!(error, SlotError::Launcher(_)) {
                        state.taken.remove(&number);
                    }
                    state.waiters.pop_front().map(|waiter| (waiter, error))
                }
            }
        };
        if let Some((waiter, error)) = failed {
            answer(waiter, Err(error));
        }
    }

    async fn park(&self, number: u32) -> Result<Slot, SlotError> {
        let (socket, there) = Socket::pair().map_err(LauncherError::Talk)?;
        let launcher = {
            let mut launcher = self.launcher.lock().await;
            if self.state().closed {
                return Err(SlotError::Closed);
            }
            let process = self.ensure_launcher(&mut launcher).await?;
            process.make_slot(number, there).await?;
            launcher.count
        };
        match socket.receive::<SlotReply>().await.map_err(LauncherError::Talk)? {
            Some((SlotReply::Parked, _)) => {
                let cgroup = self.cgroups.as_ref().map(|cgroups| SlotCgroup::open(cgroups, number));
                let cgroup = cgroup.transpose().map_err(SlotError::Cgroup)?;
                Ok(Slot { number, socket, cgroup, launcher })
            }
            Some((SlotReply::Failed(failure), _)) => Err(SlotError::Park(failure)),
            Some((SlotReply::Created { .. }, _)) | None => Err(SlotError::Ended),
        }
    }

    async fn ensure_launcher<'a>(
        &self,
        launcher: &'a mut Launcher,
    ) -> Result<&'a LauncherProcess, LauncherError> {
        if launcher.process.is_none() {
            let process = LauncherProcess::start(&self.config, self.notices.clone()).await?;
            launcher.count += 1;
            launcher.process = Some(process);
        }
        launcher.process.as_ref().ok_or(LauncherError::Ended)
    }

    /// Acts on what becomes known of the launcher, for as long as the executor lives.
    async fn follow(self: Arc<Self>, mut notices: mpsc::UnboundedReceiver<Notice>) {
        while let Some(notice) = notices.recv().await {
            match notice {
                Notice::SlotGone { slot } => {
                    self.state().taken.remove(&slot);
                }
                Notice::LauncherGone => {
                    let mut launcher = self.launcher.lock().await;
                    launcher.process = None;
                    let orphans = {
                        let mut state = self.state();
                        if state.closed {
                            return;
                        }
                        std::mem::take(&mut state.idle)
                    };
                    drop(launcher);
                    tracing::warn!("the launcher is gone; starting another");
                    for slot in orphans {
                        self.forget(slot);
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
        }
    }

    /// Gives up a slot for good: its process, what runs in it, its cgroups.
    pub(super) fn forget(self: &Arc<Self>, slot: Slot) {
        let (number, made_by) = (slot.number, slot.launcher);
        // Its process ends, and its launcher clears up, if that is still there.
        drop(slot);
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let orphaned = {
                let launcher = this.launcher.lock().await;
                launcher.process.is_none() || launcher.count != made_by
            };
            if orphaned {
                this.destroy_orphan(number).await;
            }
        });
    }

    async fn destroy_orphan(self: &Arc<Self>, number: u32) {
        let Some(cgroups) = self.cgroups.clone() else {
            self.state().taken.remove(&number);
            return;
        };
        match tokio::task::spawn_blocking(move || cgroups.destroy_slot(number)).await {
            Ok(Ok(())) => {
                self.state().taken.remove(&number);
            }
            Ok(Err(error)) => tracing::error!(slot = number, %error, "a slot's cgroups could not be removed"),
            Err(error) => tracing::error!(slot = number, %error, "removing a slot's cgroups failed"),
        }
    }

    /// Whether `slot`'s launcher is the one that runs.
    pub(super) async fn is_current(&self, slot: &Slot) -> bool {
        let launcher = self.launcher.lock().await;
        launcher.process.is_some() && launcher.count == slot.launcher
    }

    /// Ends all slots and the launcher, and waits until they are gone.
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
