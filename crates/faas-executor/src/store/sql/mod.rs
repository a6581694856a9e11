//! The statements of the store, for the driver of the module that this one stands in (`Db`, `Row`, `BEGIN`).

mod change;
mod events;
mod executions;
mod instances;
mod keys;

use sqlx::{ColumnIndex, Decode, Row as _, Type};
use tokio::sync::watch;

use super::{BEGIN, Backend, Db, Row};
use crate::store::rows::text;
use crate::store::{
    Begun, Event, EventBounds, EventFilter, Execution, Instance, InstanceFilter, KeptAnswer, KeyClaim,
    NewEvent, Position, Store, StoreError,
};
use change::Change;

/// Takes the database for the gateway, which must be the only one that ever has, and marks the keys whose requests an
/// earlier process left running.
pub(super) async fn claim(store: &Backend, gateway: &str) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO gateway (only_row, id) VALUES (1, $1) ON CONFLICT (only_row) DO NOTHING")
        .bind(text(gateway)?)
        .execute(&store.write)
        .await?;
    let owner: String = sqlx::query_scalar("SELECT id FROM gateway").fetch_one(&store.write).await?;
    if owner != gateway {
        return Err(StoreError::Foreign { owner, own: gateway.to_owned() });
    }
    keys::interrupt_left(store).await
}

/// A transaction that writes.
async fn begin(store: &Backend) -> Result<Change, StoreError> {
    Ok(Change::new(store.write.begin_with(BEGIN).await?, store.appended.clone()))
}

/// A column of a row.
fn column<'r, T>(row: &'r Row, table: &'static str, name: &'static str) -> Result<T, StoreError>
where
    T: Decode<'r, Db> + Type<Db>,
    &'static str: ColumnIndex<Row>,
{
    row.try_get(name).map_err(|error| StoreError::Row { table, reason: error.to_string() })
}

/// A column with JSON in it.
fn json<T: serde::de::DeserializeOwned>(
    row: &Row,
    table: &'static str,
    name: &'static str,
) -> Result<T, StoreError> {
    let text: &str = column(row, table, name)?;
    parse(text, table, name)
}

/// The same of one that may be null.
fn optional_json<T: serde::de::DeserializeOwned>(
    row: &Row,
    table: &'static str,
    name: &'static str,
) -> Result<Option<T>, StoreError> {
    let text: Option<&str> = column(row, table, name)?;
    text.map(|text| parse(text, table, name)).transpose()
}

fn parse<T: serde::de::DeserializeOwned>(
    text: &str,
    table: &'static str,
    name: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Row { table, reason: format!("{name}: {error}") })
}

impl Store for Backend {
    async fn insert_instance(&self, instance: &Instance, event: Option<&NewEvent>) -> Result<(), StoreError> {
        instances::insert(self, instance, event).await
    }

    async fn instance(&self, tenant: &str, id: &str) -> Result<Option<Instance>, StoreError> {
        instances::get(self, tenant, id).await
    }

    async fn instances(
        &self,
        tenant: &str,
        filter: &InstanceFilter,
        after: Option<&Position>,
        limit: u32,
    ) -> Result<Vec<Instance>, StoreError> {
        instances::list(self, tenant, filter, after, limit).await
    }

    async fn all_instances(&self) -> Result<Vec<Instance>, StoreError> {
        instances::all(self).await
    }

    async fn update_instance(
        &self,
        instance: &Instance,
        event: Option<&NewEvent>,
    ) -> Result<i64, StoreError> {
        instances::update(self, instance, event).await
    }

    async fn delete_instance(
        &self,
        tenant: &str,
        id: &str,
        at_ms: i64,
        event: Option<&NewEvent>,
    ) -> Result<bool, StoreError> {
        instances::delete(self, tenant, id, at_ms, event).await
    }

    async fn was_deleted(&self, tenant: &str, id: &str) -> Result<bool, StoreError> {
        instances::was_deleted(self, tenant, id).await
    }

    async fn prune_tombstones(&self, before_ms: i64) -> Result<u64, StoreError> {
        instances::prune_tombstones(self, before_ms).await
    }

    async fn insert_execution(
        &self,
        execution: &Execution,
        event: Option<&NewEvent>,
    ) -> Result<(), StoreError> {
        executions::insert(self, execution, event).await
    }

    async fn execution(&self, tenant: &str, id: &str) -> Result<Option<Execution>, StoreError> {
        executions::get(self, tenant, id).await
    }

    async fn executions(
        &self,
        tenant: &str,
        instance_id: &str,
        after: Option<&Position>,
        limit: u32,
    ) -> Result<Vec<Execution>, StoreError> {
        executions::list(self, tenant, instance_id, after, limit).await
    }

    async fn execution_ids(&self) -> Result<Vec<(String, String)>, StoreError> {
        executions::ids(self).await
    }

    async fn update_execution(
        &self,
        execution: &Execution,
        event: Option<&NewEvent>,
    ) -> Result<bool, StoreError> {
        executions::update(self, execution, event).await
    }

    async fn delete_execution(&self, tenant: &str, id: &str) -> Result<bool, StoreError> {
        executions::delete(self, tenant, id).await
    }

    async fn append_event(&self, event: &NewEvent) -> Result<i64, StoreError> {
        let mut transaction = begin(self).await?;
        let seq = events::append(&mut transaction, event).await?;
        transaction.commit().await?;
        Ok(seq)
    }

    async fn events(&self, tenant: &str, after: i64, limit: u32) -> Result<Vec<Event>, StoreError> {
        events::list(self, tenant, &EventFilter::default(), after, limit).await
    }

    async fn filtered_events(
        &self,
        tenant: &str,
        filter: &EventFilter,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        events::list(self, tenant, filter, after, limit).await
    }

    async fn all_events(&self, after: i64, limit: u32) -> Result<Vec<Event>, StoreError> {
        events::all(self, after, limit).await
    }

    fn appended(&self) -> watch::Receiver<u64> {
        self.appended.subscribe()
    }

    async fn event_bounds(&self) -> Result<EventBounds, StoreError> {
        events::bounds(self).await
    }

    async fn prune_events(&self, before_ms: i64, keep: u32) -> Result<u64, StoreError> {
        events::prune(self, before_ms, keep).await
    }

    async fn begin_key(&self, claim: &KeyClaim) -> Result<Begun, StoreError> {
        keys::begin(self, claim).await
    }

    async fn finish_key(&self, tenant: &str, key: &str, answer: &KeptAnswer) -> Result<bool, StoreError> {
        keys::finish(self, tenant, key, answer).await
    }

    async fn forget_key(&self, tenant: &str, key: &str) -> Result<bool, StoreError> {
        keys::forget(self, tenant, key).await
    }

    async fn interrupt_key(&self, tenant: &str, key: &str) -> Result<bool, StoreError> {
        keys::interrupt(self, tenant, key).await
    }

    async fn prune_keys(&self, before_ms: i64) -> Result<u64, StoreError> {
        keys::prune(self, before_ms).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.read).await?;
        Ok(())
    }

    async fn close(&self) {
        // The one that writes is the last: it puts what is in SQLite's log into the file.
        self.read.close().await;
        self.write.close().await;
    }
}
