//! Instances: sandboxes with a life of their own.
//!
//! The store has a row for each before anything of it is on the host, and until nothing of it is. A change of state is
//! made by whoever has the instance's turn, in a task of its own, so that no client that goes away leaves it half made:
//! the row says what is about to be, the backend does it, the row says what is.

mod create;
mod data;
mod exec;
pub(super) mod executions;
mod file_work;
mod files;
mod lifecycle;
mod live;
mod logs;
pub(super) mod recover;
mod remove;
mod times;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use faas_types::{InstanceId, Runtime, TenantId};

use super::Inner;
use super::backend::Backend;
use crate::error::EngineError;
use crate::sandbox::{Leak, Measures, SandboxError};
use crate::state::{InstanceState, Operation};
use crate::store::{InstanceFilter, Position, Store as _, StoreError};

pub(super) use data::now_ms;
pub use data::{CommandDefaults, InstanceInfo, NewInstance, Times};
pub use exec::ExecSpec;
pub use executions::{
    ExecutionEnd, ExecutionInfo, ExecutionOutput, ExecutionPage, ExecutionView, HowEnded, LastingSpec,
    MainRun, MainSpec, MayHaveBegun, OutputEvent,
};
pub use file_work::FileWork;
pub use files::FileCall;
pub use lifecycle::LimitChange;
use live::Live;
pub use logs::{LogEntry, LogFollower, LogItem};
pub use remove::Removal;
pub use times::TimeChange;

/// The instances of an engine. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Instances {
    pub(super) inner: Arc<Inner>,
}

/// All that there are, by id.
#[derive(Debug, Default)]
pub(super) struct Registry(Mutex<Registered>);

#[derive(Debug, Default)]
struct Registered {
    lives: BTreeMap<InstanceId, Arc<Live>>,
    /// How many are about to be there.
    coming: usize,
}

/// A place for one more, until it is taken or this is dropped.
struct Coming<'a>(&'a Registry);

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.0.lock().coming -= 1;
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Registered> {
        // No code panics while it holds the lock halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &InstanceId) -> Option<Arc<Live>> {
        self.lock().lives.get(id).cloned()
    }

    fn insert(&self, live: &Arc<Live>) {
        self.lock().lives.insert(live.info().id, Arc::clone(live));
    }

    fn remove(&self, id: &InstanceId) {
        self.lock().lives.remove(id);
    }

    fn all(&self) -> Vec<Arc<Live>> {
        self.lock().lives.values().cloned().collect()
    }

    /// A place for one more, if there are fewer than `most`.
    fn reserve(&self, most: usize) -> Option<Coming<'_>> {
        let mut registered = self.lock();
        if registered.lives.len() + registered.coming >= most {
            return None;
        }
        registered.coming += 1;
        Some(Coming(self))
    }
}

/// A page of a list of instances.
#[derive(Debug)]
pub struct InstancePage {
    /// The newest first.
    pub instances: Vec<InstanceInfo>,
    /// Where the next page begins, where there is one.
    pub next: Option<Position>,
}

impl Instances {
    /// One instance.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] where the tenant has none of that id.
    pub fn get(&self, tenant: &TenantId, id: &InstanceId) -> Result<InstanceInfo, EngineError> {
        Ok(self.live(tenant, id)?.info())
    }

    /// Those of a tenant, the newest first.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn list(
        &self,
        tenant: &TenantId,
        filter: &InstanceFilter,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<InstancePage, EngineError> {
        let one_more = u32::try_from(limit).unwrap_or(u32::MAX).saturating_add(1);
        let rows = self.inner.store.instances(tenant.as_str(), filter, after, one_more).await?;
        let more = rows.len() > limit;
        let mut instances = Vec::new();
        for row in rows.into_iter().take(limit) {
            let stored = InstanceInfo::from_row(row)?;
            // The time of its last use is newer here.
            instances.push(self.inner.instances.get(&stored.id).map_or(stored, |live| live.info()));
        }
        let next = instances.last().filter(|_| more).map(|last| Position {
            created_at_ms: data::signed(last.created_at_ms),
            id: last.id.as_str().to_owned(),
        });
        Ok(InstancePage { instances, next })
    }

    /// One instance and what it uses now; nothing is known of one that does not run.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn measure(
        &self,
        tenant: &TenantId,
        id: &InstanceId,
    ) -> Result<(InstanceInfo, Measures), EngineError> {
        let live = self.live(tenant, id)?;
        let info = live.info();
        let place = live.place.read().await;
        let measures = match &place.sandbox {
            Some(sandbox) if info.state.has_sandbox() => self.backend(info.runtime)?.measure(sandbox).await?,
            _ => Measures::default(),
        };
        Ok((info, measures))
    }

    /// What is on the host with this gateway's mark and belongs to nobody, of every runtime that is available.
    ///
    /// # Errors
    /// [`EngineError`] where a runtime cannot be asked.
    pub async fn leaks(&self) -> Result<Vec<(Runtime, Leak)>, EngineError> {
        let mut leaks = Vec::new();
        for runtime in Runtime::ALL {
            let Ok(backend) = self.inner.backends.get(runtime) else { continue };
            let its = |info: &InstanceInfo| info.runtime == runtime;
            let lasting: BTreeSet<_> = (self.inner.instances.all().iter())
                .map(|live| live.info())
                .filter(its)
                .map(|info| info.sandbox_id())
                .collect();
            match backend.leaks(&lasting).await {
                Ok(found) => leaks.extend(found.into_iter().map(|leak| (runtime, leak))),
                // Nothing can be seen of what it has, and nothing can be made there either.
                Err(SandboxError::RuntimeUnavailable { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(leaks)
    }

    fn live(&self, tenant: &TenantId, id: &InstanceId) -> Result<Arc<Live>, EngineError> {
        let found = self.inner.instances.get(id).filter(|live| live.info().tenant == *tenant);
        found.ok_or_else(|| EngineError::NotFound { what: format!("instance {id}") })
    }

    fn backend(&self, runtime: Runtime) -> Result<Backend<'_>, EngineError> {
        Ok(self.inner.backends.get(runtime)?)
    }

    /// Writes an instance in its new state. Only for who has its turn.
    async fn write(&self, live: &Live, info: InstanceInfo) -> Result<(), EngineError> {
        let before = live.info();
        let info = InstanceInfo { last_active_at_ms: before.last_active_at_ms, ..info };
        let mut info = info.with_time_of_pause();
        let event = (before.state != info.state).then(|| info.event());
        let mut row = info.to_row()?;
        info.revision = match self.inner.store.update_instance(&row, event.as_ref()).await {
            Err(StoreError::Stale) => {
                // Nobody else writes it: what was written last is there although that was told as an error.
                let there =
                    self.inner.store.instance(&row.tenant, &row.id).await?.ok_or(StoreError::Stale)?;
                let is_known = there.status == row.status && there.status_reason == row.status_reason;
                row.revision = there.revision;
                self.inner.store.update_instance(&row, event.as_ref().filter(|_| !is_known)).await?
            }
            written => written?,
        };
        tracing::debug!(instance = %info.id, state = info.state.as_str(), "written");
        live.set_info(info);
        Ok(())
    }

    /// Writes an instance in another state, for this reason.
    async fn become_state(
        &self,
        live: &Live,
        state: InstanceState,
        reason: Option<String>,
    ) -> Result<(), EngineError> {
        self.write(live, InstanceInfo { state, reason, ..live.info() }).await
    }

    /// Runs a change of state to its end, whether its caller waits for that or not.
    async fn to_its_end<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        let task = self.inner.background.spawn(change);
        match task.await {
            Ok(changed) => changed,
            Err(error) => Err(SandboxError::Create {
                step: "change an instance".to_owned(),
                source: std::io::Error::other(error),
            }
            .into()),
        }
    }
}

/// The refusal for an instance of which it is not known how it stands.
fn unseen(info: &InstanceInfo) -> EngineError {
    SandboxError::RuntimeUnavailable {
        runtime: info.runtime,
        reason:
            "what became of the instance is not known yet: its runtime, or the store, could not be reached; \
                 it is tried again"
                .to_owned(),
    }
    .into()
}

/// The refusal of an operation, unless the state allows it. `Ok(false)`: there is nothing to be done.
fn allowed(live: &Live, operation: Operation) -> Result<bool, EngineError> {
    let info = live.info();
    if live.unseen.load(Ordering::Acquire) {
        return Err(unseen(&info));
    }
    if info.state.is_where(operation) {
        return Ok(false);
    }
    if info.state.can(operation) {
        return Ok(true);
    }
    Err(crate::state::Illegal::new(info.state, info.reason, operation).into())
}
