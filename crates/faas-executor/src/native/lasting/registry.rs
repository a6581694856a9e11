//! What is known of lasting sandboxes beside their handles. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use faas_types::SandboxId;

use super::record::Init;
use crate::native::disk::Promise;

/// A sandbox of an earlier server that has neither been adopted nor removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::native) enum Waiting {
    /// It may run in this slot, which was taken over.
    Slot(u32),
    /// It was ended at the start, for this reason.
    Ended(String),
}

/// Says that somebody has a handle of a sandbox, for as long as it lives.
#[derive(Debug)]
pub(in crate::native) struct Token {
    _held: Arc<()>,
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<SandboxId, Waiting>,
    /// What is spoken for of the host's disk, for as long as a sandbox's files are there.
    promises: BTreeMap<SandboxId, Arc<Promise>>,
    /// Those that run, with their slots.
    live: BTreeMap<SandboxId, Running>,
    /// How many calls are at work on each.
    busy: BTreeMap<SandboxId, usize>,
}

#[derive(Debug)]
struct Running {
    slot: u32,
    init: Init,
    token: Weak<()>,
}

impl Running {
    /// Whether nobody has a handle of it any more.
    fn is_lost(&self) -> bool {
        self.token.strong_count() == 0
    }
}

/// All lasting sandboxes of one executor.
#[derive(Debug, Default)]
pub(in crate::native) struct Registry(Mutex<State>);

/// A sandbox that a call is at work on, until this is dropped.
#[derive(Debug)]
pub(in crate::native) struct Busy {
    registry: Arc<Registry>,
    id: SandboxId,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.registry.state();
        if let Some(count) = state.busy.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                state.busy.remove(&self.id);
            }
        }
    }
}

impl Registry {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::native) fn busy(self: &Arc<Self>, id: &SandboxId) -> Busy {
        *self.state().busy.entry(id.clone()).or_insert(0) += 1;
        Busy { registry: Arc::clone(self), id: id.clone() }
    }

    pub(in crate::native) fn wait(&self, id: SandboxId, waiting: Waiting) {
        self.state().waiting.insert(id, waiting);
    }

    pub(in crate::native) fn waiting(&self, id: &SandboxId) -> Option<Waiting> {
        self.state().waiting.get(id).cloned()
    }

    /// It waits no more; how it did.
    pub(in crate::native) fn waits_no_more(&self, id: &SandboxId) -> Option<Waiting> {
        self.state().waiting.remove(id)
    }

    pub(in crate::native) fn promise(&self, id: &SandboxId, promise: Arc<Promise>) {
        self.state().promises.insert(id.clone(), promise);
    }

    pub(in crate::native) fn has_promise(&self, id: &SandboxId) -> bool {
        self.state().promises.contains_key(id)
    }

    /// It runs in this slot, and somebody has a handle of it.
    pub(in crate::native) fn live(&self, id: &SandboxId, slot: u32, init: Init) -> Token {
        let token = Arc::new(());
        let running = Running { slot, init, token: Arc::downgrade(&token) };
        self.state().live.insert(id.clone(), running);
        Token { _held: token }
    }

    /// The slot and the first process of one that runs and that nobody has a handle of any more.
    pub(in crate::native) fn lost(&self, id: &SandboxId) -> Option<(u32, Init)> {
        let state = self.state();
        state.live.get(id).filter(|running| running.is_lost()).map(|running| (running.slot, running.init))
    }

    /// Its processes have ended.
    pub(in crate::native) fn ended(&self, id: &SandboxId) {
        self.state().live.remove(id);
    }

    /// Nothing is left of it.
    pub(in crate::native) fn removed(&self, id: &SandboxId) {
        let mut state = self.state();
        state.live.remove(id);
        state.promises.remove(id);
        state.waiting.remove(id);
    }

    /// Those that somebody has a handle of, or is at work on.
    pub(in crate::native) fn owned(&self) -> BTreeSet<SandboxId> {
        let state = self.state();
        let held = state.live.iter().filter(|(_, running)| !running.is_lost()).map(|(id, _)| id);
        held.chain(state.busy.keys()).cloned().collect()
    }

    /// Those that run and that nobody has a handle of any more, with their slots.
    pub(in crate::native) fn all_lost(&self) -> Vec<(SandboxId, u32)> {
        let state = self.state();
        let lost = state.live.iter().filter(|(_, running)| running.is_lost());
        lost.map(|(id, running)| (id.clone(), running.slot)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use faas_types::SandboxId;

    use super::{Init, Registry, Waiting};

    #[test]
    fn one_is_owned_while_there_is_a_handle_or_a_call() {
        let registry = Arc::new(Registry::default());
        let id = SandboxId("sb-1".to_owned());
        let busy = [registry.busy(&id), registry.busy(&id)];
        let init = Init::of(std::process::id()).unwrap();
        let token = registry.live(&id, 7, init);
        drop(busy);
        assert!(registry.owned().contains(&id) && registry.lost(&id).is_none());
        drop(token);
        assert!(registry.owned().is_empty());
        assert_eq!((registry.lost(&id), registry.all_lost()), (Some((7, init)), vec![(id.clone(), 7)]));
        registry.ended(&id);
        assert!(registry.all_lost().is_empty());
    }

    #[test]
    fn one_that_waits_is_taken_once() {
        let registry = Registry::default();
        let id = SandboxId("sb-1".to_owned());
        registry.wait(id.clone(), Waiting::Slot(3));
        assert_eq!(registry.waiting(&id), Some(Waiting::Slot(3)));
        assert_eq!(registry.waits_no_more(&id), Some(Waiting::Slot(3)));
        assert_eq!(registry.waits_no_more(&id), None);
    }
}
