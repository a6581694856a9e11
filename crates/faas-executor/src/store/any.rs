//! The store that a gateway has, whichever database it is in.

use std::time::Duration;

use tokio::sync::watch;

use super::{
    Begun, Event, EventBounds, EventFilter, Execution, Instance, InstanceFilter, KeptAnswer, KeyClaim,
    NewEvent, Position, PostgresStore, SqliteStore, Store, StoreError, StoreLocation,
};

/// How long a call may take: beyond all that it can wait for in the drivers, so that it counts only where an answer
/// never comes.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the answer to nothing is waited for.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// A store in one of the databases. Cheap to clone: all clones are one store.
#[derive(Clone, Debug)]
pub enum AnyStore {
    /// In a file.
    Sqlite(SqliteStore),
    /// On a server.
    Postgres(PostgresStore),
}

impl AnyStore {
    /// Opens the store of the gateway `gateway`: brings its schema up to date, and marks the idempotency keys whose
    /// requests an earlier process of the gateway left running as interrupted.
    ///
    /// # Errors
    /// [`StoreError::TooNew`], [`StoreError::Foreign`], [`StoreError::Unreachable`] and others.
    pub async fn open(location: &StoreLocation, gateway: &str) -> Result<Self, StoreError> {
        match location {
            StoreLocation::File(path) => SqliteStore::open(path, gateway).await.map(Self::Sqlite),
            StoreLocation::Url(url) => PostgresStore::open(url, gateway).await.map(Self::Postgres),
        }
    }

    /// The database's kind in one word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgresql",
        }
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_elapsed) => {
            Err(StoreError::Unreachable { reason: format!("no answer within {} s", limit.as_secs()) })
        }
    }
}

macro_rules! either {
    ($self:ident, $call:ident($($argument:expr),*), $limit:expr) => {
        match $self {
            Self::Sqlite(store) => within($limit, store.$call($($argument),*)).await,
            Self::Postgres(store) => within($limit, store.$call($($argument),*)).await,
        }
    };
    ($self:ident, $call:ident($($argument:expr),*)) => { either!($self, $call($($argument),*), CALL_TIMEOUT) };
}

impl Store for AnyStore {
    async fn insert_instance(&self, instance: &Instance, event: Option<&NewEvent>) -> Result<(), StoreError> {
        either!(self, insert_instance(instance, event))
    }

    async fn instance(&self, tenant: &str, id: &str) -> Result<Option<Instance>, StoreError> {
        either!(self, instance(tenant, id))
    }

    async fn instances(
        &self,
        tenant: &str,
        filter: &InstanceFilter,
        after: Option<&Position>,
        limit: u32,
    ) -> Result<Vec<Instance>, StoreError> {
        either!(self, instances(tenant, filter, after, limit))
    }

    async fn all_instances(&self) -> Result<Vec<Instance>, StoreError> {
        either!(self, all_instances())
    }

    async fn update_instance(
        &self,
        instance: &Instance,
        event: Option<&NewEvent>,
    ) -> Result<i64, StoreError> {
        either!(self, update_instance(instance, event))
    }

    async fn delete_instance(
        &self,
        tenant: &str,
        id: &str,
        at_ms: i64,
        event: Option<&NewEvent>,
    ) -> Result<bool, StoreError> {
        either!(self, delete_instance(tenant, id, at_ms, event))
    }

    async fn was_deleted(&self, tenant: &str, id: &str) -> Result<bool, StoreError> {
        either!(self, was_deleted(tenant, id))
    }

    async fn prune_tombstones(&self, before_ms: i64) -> Result<u64, StoreError> {
        either!(self, prune_tombstones(before_ms))
    }

    async fn insert_execution(
        &self,
        execution: &Execution,
        event: Option<&NewEvent>,
    ) -> Result<(), StoreError> {
        either!(self, insert_execution(execution, event))
    }

    async fn execution(&self, tenant: &str, id: &str) -> Result<Option<Execution>, StoreError> {
        either!(self, execution(tenant, id))
    }

    async fn executions(
        &self,
        tenant: &str,
        instance_id: &str,
        after: Option<&Position>,
        limit: u32,
    ) -> Result<Vec<Execution>, StoreError> {
        either!(self, executions(tenant, instance_id, after, limit))
    }

    async fn execution_ids(&self) -> Result<Vec<(String, String)>, StoreError> {
        either!(self, execution_ids())
    }

    async fn update_execution(
        &self,
        execution: &Execution,
        event: Option<&NewEvent>,
    ) -> Result<bool, StoreError> {
        either!(self, update_execution(execution, event))
    }

    async fn delete_execution(&self, tenant: &str, id: &str) -> Result<bool, StoreError> {
        either!(self, delete_execution(tenant, id))
    }

    async fn append_event(&self, event: &NewEvent) -> Result<i64, StoreError> {
        either!(self, append_event(event))
    }

    async fn events(&self, tenant: &str, after: i64, limit: u32) -> Result<Vec<Event>, StoreError> {
        either!(self, events(tenant, after, limit))
    }

    async fn filtered_events(
        &self,
        tenant: &str,
        filter: &EventFilter,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        either!(self, filtered_events(tenant, filter, after, limit))
    }

    async fn all_events(&self, after: i64, limit: u32) -> Result<Vec<Event>, StoreError> {
        either!(self, all_events(after, limit))
    }

    fn appended(&self) -> watch::Receiver<u64> {
        match self {
            Self::Sqlite(store) => store.appended(),
            Self::Postgres(store) => store.appended(),
        }
    }

    async fn event_bounds(&self) -> Result<EventBounds, StoreError> {
        either!(self, event_bounds())
    }

    async fn prune_events(&self, before_ms: i64, keep: u32) -> Result<u64, StoreError> {
        either!(self, prune_events(before_ms, keep))
    }

    async fn begin_key(&self, claim: &KeyClaim) -> Result<Begun, StoreError> {
        either!(self, begin_key(claim))
    }

    async fn finish_key(&self, tenant: &str, key: &str, answer: &KeptAnswer) -> Result<bool, StoreError> {
        either!(self, finish_key(tenant, key, answer))
    }

    async fn forget_key(&self, tenant: &str, key: &str) -> Result<bool, StoreError> {
        either!(self, forget_key(tenant, key))
    }

    async fn interrupt_key(&self, tenant: &str, key: &str) -> Result<bool, StoreError> {
        either!(self, interrupt_key(tenant, key))
    }

    async fn prune_keys(&self, before_ms: i64) -> Result<u64, StoreError> {
        either!(self, prune_keys(before_ms))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        either!(self, ping(), PING_TIMEOUT)
    }

    async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => store.close().await,
        }
    }
}
