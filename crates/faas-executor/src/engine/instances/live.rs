//! One instance while this server runs: its row as it was last written, its sandbox, who uses it now.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;

use super::data::{InstanceInfo, now_ms};
use super::executions::MainRun;
use crate::guest::{AgentClient, AgentConnection};
use crate::sandbox::{SandboxHandle, SandboxSpec};
use crate::state::InstanceState;

/// How many connections to an agent are kept for the next command.
const KEPT_CONNECTIONS: usize = 8;

/// How far the time of last use in the store may be behind, in milliseconds.
pub(super) const ACTIVE_STEP_MS: u64 = 10_000;

/// The sandbox of an instance, and which one it is: it has another after each start.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) sandbox: Option<SandboxHandle>,
    pub(super) count: u64,
}

/// How long an instance has been paused in all, so that no command's time runs meanwhile.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frozen {
    pub(super) before: Duration,
    pub(super) since: Option<Instant>,
}

impl Frozen {
    /// So far.
    pub(super) fn total(&self, now: Instant) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

/// An instance. One for each row of the store.
#[derive(Debug)]
pub(super) struct Live {
    info: Mutex<InstanceInfo>,
    /// Held by whoever changes its state, from before to after.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Its sandbox, written to only by who has the turn.
    pub(super) place: RwLock<Place>,
    /// Cancelled when it is to be deleted: whatever takes long gives up.
    pub(super) doomed: CancellationToken,
    /// Whether its backend has still to be asked what became of it.
    pub(super) unseen: AtomicBool,
    /// Whether what its time being over leads to is under way, or has just failed.
    pub(super) expiring: AtomicBool,
    pub(super) frozen: watch::Sender<Frozen>,
    users: AtomicUsize,
    last_active_ms: AtomicU64,
    connections: Mutex<Vec<(u64, AgentConnection)>>,
    /// A connection for lasting executions, with the count of the sandbox it is to.
    client: Mutex<Option<(u64, AgentClient)>>,
    main_run: Mutex<Option<MainRun>>,
    /// The image that its files lie over, whether it runs or not.
    #[cfg(all(target_os = "linux", feature = "native"))]
    image: Mutex<Option<crate::images::ImageLease>>,
}

/// A little of an instance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Glance {
    pub(super) state: InstanceState,
    pub(super) born: bool,
    pub(super) expires_at_ms: Option<u64>,
    /// How much later it was last used than the store knows.
    pub(super) unwritten_ms: u64,
}

/// Somebody uses the instance until this is dropped.
#[derive(Debug)]
pub(super) struct InUse(Arc<Live>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.last_active_ms.store(now_ms(), Ordering::Relaxed);
        self.0.users.fetch_sub(1, Ordering::Release);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds a lock halfway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    /// `doomed` is cancelled by whoever wants it no more.
    pub(super) fn new(info: InstanceInfo, doomed: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            last_active_ms: AtomicU64::new(info.last_active_at_ms),
            info: Mutex::new(info),
            turn: tokio::sync::Mutex::default(),
            place: RwLock::default(),
            doomed,
            unseen: AtomicBool::new(false),
            expiring: AtomicBool::new(false),
            frozen: watch::Sender::new(Frozen::default()),
            users: AtomicUsize::new(0),
            connections: Mutex::default(),
            client: Mutex::default(),
            main_run: Mutex::default(),
            #[cfg(all(target_os = "linux", feature = "native"))]
            image: Mutex::default(),
        })
    }

    /// It as it was last written, with the time of its last use as it is.
    pub(super) fn info(&self) -> InstanceInfo {
        InstanceInfo {
            last_active_at_ms: self.last_active_ms(),
            main_run: lock(&self.main_run).clone(),
            ..lock(&self.info).clone()
        }
    }

    fn last_active_ms(&self) -> u64 {
        if self.users.load(Ordering::Acquire) > 0 {
            now_ms()
        } else {
            self.last_active_ms.load(Ordering::Relaxed)
        }
    }

    /// What whoever looks at all of them again and again has to know.
    pub(super) fn glance(&self) -> Glance {
        let last_active_ms = self.last_active_ms();
        let info = lock(&self.info);
        Glance {
            state: info.state,
            born: info.born,
            expires_at_ms: info.expires_if_active_at(last_active_ms),
            unwritten_ms: last_active_ms.saturating_sub(info.last_active_at_ms),
        }
    }

    /// Puts what has just been written in place.
    pub(super) fn set_info(&self, info: InstanceInfo) {
        *lock(&self.info) = info;
    }

    /// From here on it is not known how it stands, until it has been looked at again.
    pub(super) fn lose_sight(&self) {
        self.unseen.store(true, Ordering::Release);
    }

    /// It is used from here on.
    pub(super) fn use_it(self: &Arc<Self>) -> InUse {
        self.users.fetch_add(1, Ordering::AcqRel);
        InUse(Arc::clone(self))
    }

    /// Whether somebody uses it. Whoever begins to does so before looking at its state.
    pub(super) fn is_in_use(&self) -> bool {
        self.users.load(Ordering::Acquire) > 0
    }

    /// It was used just now.
    pub(super) fn touch(&self) {
        self.last_active_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// A connection to its agent that was used before and is still good.
    pub(super) fn take_connection(&self, count: u64) -> Option<AgentConnection> {
        let mut kept = lock(&self.connections);
        while let Some((of, mut connection)) = kept.pop() {
            if of == count && connection.is_idle() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection that is good for another command.
    pub(super) fn keep_connection(&self, count: u64, connection: AgentConnection) {
        let mut kept = lock(&self.connections);
        if kept.len() < KEPT_CONNECTIONS {
            kept.push((count, connection));
        }
    }

    /// Closes the connections that are kept.
    pub(super) fn drop_connections(&self) {
        let kept = std::mem::take(&mut *lock(&self.connections));
        let client = lock(&self.client).take();
        drop((kept, client));
    }

    /// The connection for lasting executions of a sandbox, where there is one that is still good.
    pub(super) fn client(&self, count: u64) -> Option<AgentClient> {
        let kept = lock(&self.client);
        kept.as_ref()
            .filter(|(of, client)| *of == count && client.is_open())
            .map(|(_, client)| client.clone())
    }

    /// Keeps a connection for lasting executions.
    pub(super) fn set_client(&self, count: u64, client: AgentClient) {
        let before = lock(&self.client).replace((count, client));
        drop(before);
    }

    /// Lets go of it: nobody runs there any more.
    pub(super) fn drop_client(&self, count: u64) {
        let dropped = lock(&self.client).take_if(|(of, _)| *of == count);
        drop(dropped);
    }

    /// Its image stays in the store for as long as this lives, where it is from there.
    #[cfg(all(target_os = "linux", feature = "native"))]
    pub(super) fn hold_image(&self, spec: &SandboxSpec) {
        let before = std::mem::replace(&mut *lock(&self.image), spec.stored.clone());
        drop(before);
    }

    /// There is no image store.
    #[cfg(not(all(target_os = "linux", feature = "native")))]
    #[expect(clippy::unused_self, reason = "it is as the one with an image store")]
    pub(super) fn hold_image(&self, _spec: &SandboxSpec) {}

    /// Its main command runs as this.
    pub(super) fn set_main_run(&self, run: Option<MainRun>) {
        *lock(&self.main_run) = run;
    }
}
