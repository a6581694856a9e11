//! What lasts: rows of instances, their executions, lifecycle events and idempotency keys, in a database.
//!
//! The store is the truth about what should exist; it makes nothing on the host and decides nothing. What an instance
//! is made from and how its backend finds it again is kept as it is given, without a look inside.
//!
//! Two databases, one set of statements: `sql/` is compiled once against each driver, since SQLite and PostgreSQL take
//! the same ones. [`sqlite`] and [`postgres`] open theirs and say how a transaction that writes begins.

mod any;
mod error;
mod location;
mod postgres;
mod rows;
mod schema;
mod sqlite;

use tokio::sync::watch;

pub use any::AnyStore;
pub use error::StoreError;
pub use location::{DatabaseUrl, StoreLocation};
pub use postgres::PostgresStore;
pub use rows::{
    Begun, Event, EventBounds, EventFilter, Execution, Instance, InstanceFilter, KeptAnswer, KeyClaim,
    NewEvent, Position,
};
pub use sqlite::SqliteStore;

/// The tenant of all that is not told whose it is.
pub const DEFAULT_TENANT: &str = "default";

/// The rows of one gateway.
///
/// The caller guarantees that it is the only process with this store open (the data directory's lock does, and the
/// gateway's id in the store), and that times are Unix milliseconds.
///
/// The callee guarantees that what it has acknowledged survives the end of the process at any moment and a power cut,
/// that each call happens as a whole or not at all, and that it comes to an end in bounded time. Text is any UTF-8 but
/// for NUL, which PostgreSQL cannot hold: [`StoreError::Text`].
///
/// A call whose future is dropped may have happened or not, as a whole.
pub trait Store {
    /// Adds an instance with revision 1, and the event with it. `instance.revision` is not looked at.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], [`StoreError::Exists`].
    fn insert_instance(
        &self,
        instance: &Instance,
        event: Option<&NewEvent>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// One instance.
    ///
    /// # Errors
    /// [`StoreError`].
    fn instance(
        &self,
        tenant: &str,
        id: &str,
    ) -> impl Future<Output = Result<Option<Instance>, StoreError>> + Send;

    /// A page of a tenant's instances, the newest first, at most `limit`; those after `after`, where it is given.
    ///
    /// # Errors
    /// [`StoreError`].
    fn instances(
        &self,
        tenant: &str,
        filter: &InstanceFilter,
        after: Option<&Position>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Instance>, StoreError>> + Send;

    /// Every instance of every tenant, the oldest first: for recovery.
    ///
    /// # Errors
    /// [`StoreError`].
    fn all_instances(&self) -> impl Future<Output = Result<Vec<Instance>, StoreError>> + Send;

    /// Writes an instance that was read at `instance.revision`, and the event with it; the new revision. Its id, tenant,
    /// labels, parent, snapshot and time of creation stay what they were.
    ///
    /// # Errors
    /// [`StoreError::Stale`] where it has been written or deleted since, [`StoreError::NameTaken`].
    fn update_instance(
        &self,
        instance: &Instance,
        event: Option<&NewEvent>,
    ) -> impl Future<Output = Result<i64, StoreError>> + Send;

    /// Removes an instance with its executions, leaves a tombstone, and adds the event; whether it was there.
    ///
    /// # Errors
    /// [`StoreError`].
    fn delete_instance(
        &self,
        tenant: &str,
        id: &str,
        at_ms: i64,
        event: Option<&NewEvent>,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Whether there was an instance of this id whose tombstone is still kept.
    ///
    /// # Errors
    /// [`StoreError`].
    fn was_deleted(&self, tenant: &str, id: &str) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Removes the tombstones of instances deleted before `before_ms`; how many.
    ///
    /// # Errors
    /// [`StoreError`].
    fn prune_tombstones(&self, before_ms: i64) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Adds an execution, and the event with it.
    ///
    /// # Errors
    /// [`StoreError::NoInstance`] where its instance is not there, [`StoreError::Exists`].
    fn insert_execution(
        &self,
        execution: &Execution,
        event: Option<&NewEvent>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// One execution.
    ///
    /// # Errors
    /// [`StoreError`].
    fn execution(
        &self,
        tenant: &str,
        id: &str,
    ) -> impl Future<Output = Result<Option<Execution>, StoreError>> + Send;

    /// A page of an instance's executions, the newest first, as [`Store::instances`].
    ///
    /// # Errors
    /// [`StoreError`].
    fn executions(
        &self,
        tenant: &str,
        instance_id: &str,
        after: Option<&Position>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Execution>, StoreError>> + Send;

    /// Every execution of an instance of any tenant: the ids of both.
    ///
    /// # Errors
    /// [`StoreError`].
    fn execution_ids(&self) -> impl Future<Output = Result<Vec<(String, String)>, StoreError>> + Send;

    /// Writes state, result and end of an execution, and the event with it; whether it was there.
    ///
    /// # Errors
    /// [`StoreError`].
    fn update_execution(
        &self,
        execution: &Execution,
        event: Option<&NewEvent>,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Removes an execution; whether it was there.
    ///
    /// # Errors
    /// [`StoreError`].
    fn delete_execution(
        &self,
        tenant: &str,
        id: &str,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Adds an event; its number. Numbers grow by one in the order in which events become visible.
    ///
    /// # Errors
    /// [`StoreError`].
    fn append_event(&self, event: &NewEvent) -> impl Future<Output = Result<i64, StoreError>> + Send;

    /// A tenant's events after the number `after`, the oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn events(
        &self,
        tenant: &str,
        after: i64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Event>, StoreError>> + Send;

    /// The same of those that the filter lets through.
    ///
    /// # Errors
    /// [`StoreError`].
    fn filtered_events(
        &self,
        tenant: &str,
        filter: &EventFilter,
        after: i64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Event>, StoreError>> + Send;

    /// Every tenant's events after the number `after`, the oldest first, at most `limit`: numbers without a hole.
    ///
    /// # Errors
    /// [`StoreError`].
    fn all_events(
        &self,
        after: i64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Event>, StoreError>> + Send;

    /// Changes when an event may have become visible. An event whose call was dropped may become so without it.
    fn appended(&self) -> watch::Receiver<u64>;

    /// Which events are kept: who asks after a number below `oldest - 1` has missed some.
    ///
    /// # Errors
    /// [`StoreError`].
    fn event_bounds(&self) -> impl Future<Output = Result<EventBounds, StoreError>> + Send;

    /// Removes the oldest events: all up to the last one before `before_ms`, and all but the newest `keep`; how many.
    ///
    /// # Errors
    /// [`StoreError`].
    fn prune_events(&self, before_ms: i64, keep: u32)
    -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Takes an idempotency key for a request, or tells what became of the request that has it. Of callers who come at
    /// once one alone gets [`Begun::New`].
    ///
    /// # Errors
    /// [`StoreError`].
    fn begin_key(&self, claim: &KeyClaim) -> impl Future<Output = Result<Begun, StoreError>> + Send;

    /// Keeps the answer to the request that took the key; whether the key was still its own.
    ///
    /// # Errors
    /// [`StoreError`].
    fn finish_key(
        &self,
        tenant: &str,
        key: &str,
        answer: &KeptAnswer,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Gives a key back whose request came to nothing, so that it can be sent again; whether it was still taken.
    ///
    /// # Errors
    /// [`StoreError`].
    fn forget_key(&self, tenant: &str, key: &str) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Marks a key whose request began something of which nobody knows how it ends; whether it was still taken.
    ///
    /// # Errors
    /// [`StoreError`].
    fn interrupt_key(&self, tenant: &str, key: &str)
    -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Removes keys that were taken before `before_ms` and whose request does not run; how many.
    ///
    /// # Errors
    /// [`StoreError`].
    fn prune_keys(&self, before_ms: i64) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Asks the database for nothing.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] with the reason.
    fn ping(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Closes the connections. What runs is waited for.
    fn close(&self) -> impl Future<Output = ()> + Send;
}
