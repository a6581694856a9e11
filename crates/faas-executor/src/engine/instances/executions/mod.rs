//! Executions in an instance that outlive whoever started them.
//!
//! ```text
//!  start ----> running ----> exited | timed_out | cancelled     the agent told its end
//!    |            |
//!    |            +--------> lost                               its sandbox or its agent ended under it
//!    +---------------------> failed                             it could not be started
//! ```
//!
//! Each has a row from before the agent is asked for it, and one task that follows it: it takes the output from the agent
//! to the disk and writes down how it ended. A server that starts follows those that go on. Whoever wants the output
//! reads it from the disk, at a pace of their own.
//!
//! What somebody waits for and nobody else is to know of has no row: it is registered here while it runs.

mod data;
mod follow;
mod main_command;
mod output;
mod recover;
mod start;
mod verbs;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use faas_guest_protocol::LastingId;
use faas_types::{ExecutionId, ExecutionKind, InstanceId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(super) use data::shown;
pub use data::{ExecutionEnd, ExecutionInfo, HowEnded, MainRun, MainSpec};
pub use output::{ExecutionOutput, OutputEvent};
pub(in crate::engine) use recover::open_outputs;
pub(super) use start::new_id;
pub use start::{LastingSpec, MayHaveBegun};
pub use verbs::{ExecutionPage, ExecutionView};

/// How many lasting executions of one instance may run at once.
const MAX_RUNNING: usize = 128;

/// How many that have ended are kept of one instance.
const MAX_ENDED: usize = 64;

/// How far the output of an execution has come.
#[derive(Clone, Debug)]
struct Progress {
    /// The offset after the last byte.
    next: u64,
    end: Option<Arc<ExecutionEnd>>,
}

/// One that runs.
#[derive(Debug)]
pub(super) struct Running {
    info: ExecutionInfo,
    progress: watch::Sender<Progress>,
    /// What its agent knows it by; none of one that somebody waits for.
    wire: Option<LastingId>,
    /// Cancelled where somebody wants the end of one that has no `wire`.
    unwanted: CancellationToken,
    /// Cancelled when nobody waits any more for one that has no `wire`: with its connection, its processes end.
    given_up: CancellationToken,
    /// The sandbox that it runs in, by its count.
    count: u64,
    /// Held by whoever writes to its standard input, so that what they write does not mix.
    stdin: Arc<tokio::sync::Mutex<()>>,
}

impl Running {
    fn new(info: ExecutionInfo, wire: Option<LastingId>, count: u64, next: u64) -> Arc<Self> {
        Arc::new(Self {
            info,
            progress: watch::Sender::new(Progress { next, end: None }),
            wire,
            unwanted: CancellationToken::new(),
            given_up: CancellationToken::new(),
            count,
            stdin: Arc::default(),
        })
    }

    /// It as it stands now.
    fn now(&self) -> (ExecutionInfo, u64) {
        let progress = self.progress.borrow();
        let end = progress.end.as_ref().map(|end| ExecutionEnd::clone(end));
        (ExecutionInfo { end, ..self.info.clone() }, progress.next)
    }
}

/// Those that run, by id.
#[derive(Debug, Default)]
pub(in crate::engine) struct Registry(Mutex<BTreeMap<ExecutionId, Arc<Running>>>);

impl Registry {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ExecutionId, Arc<Running>>> {
        // No code panics while it holds the lock halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &ExecutionId) -> Option<Arc<Running>> {
        self.lock().get(id).cloned()
    }

    fn insert(&self, running: &Arc<Running>) {
        self.lock().insert(running.info.id.clone(), Arc::clone(running));
    }

    /// Adds a lasting one, if there are fewer than may be of its instance.
    fn insert_lasting(&self, running: &Arc<Running>) -> bool {
        let mut all = self.lock();
        let of_it =
            all.values().filter(|other| other.wire.is_some() && other.info.instance == running.info.instance);
        let fits = of_it.count() < MAX_RUNNING;
        if fits {
            all.insert(running.info.id.clone(), Arc::clone(running));
        }
        fits
    }

    fn remove(&self, id: &ExecutionId) {
        self.lock().remove(id);
    }

    /// Whether the main command of an instance runs, as far as is known.
    fn has_main(&self, instance: &InstanceId) -> bool {
        self.of(instance)
            .iter()
            .any(|one| one.info.kind == ExecutionKind::Main && one.progress.borrow().end.is_none())
    }

    /// The lasting ones of an instance.
    fn of(&self, instance: &InstanceId) -> Vec<Arc<Running>> {
        let all = self.lock();
        all.values().filter(|one| one.wire.is_some() && one.info.instance == *instance).cloned().collect()
    }
}

/// One that somebody waits for is registered until this is dropped.
pub(super) struct Waiting<'a> {
    registry: &'a Registry,
    running: Arc<Running>,
}

impl Waiting<'_> {
    /// Resolves when somebody else has cancelled it.
    pub(super) async fn cancelled(&self) {
        self.running.unwanted.cancelled().await;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.registry.remove(&self.running.info.id);
        self.running.given_up.cancel();
    }
}

impl Registry {
    /// Registers one that somebody waits for.
    pub(super) fn wait_for(&self, info: ExecutionInfo) -> Waiting<'_> {
        let running = Running::new(info, None, 0, 0);
        self.insert(&running);
        Waiting { registry: self, running }
    }
}
