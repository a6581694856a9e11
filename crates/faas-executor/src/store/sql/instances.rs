//! Instances, their labels and their tombstones.

use sqlx::QueryBuilder;

use super::{Backend, Db, Row, begin, column, events, json, optional_json};
use crate::store::rows::{optional, text};
use crate::store::{Instance, InstanceFilter, NewEvent, Position, StoreError};

const TABLE: &str = "instances";

pub(super) async fn insert(
    store: &Backend,
    instance: &Instance,
    event: Option<&NewEvent>,
) -> Result<(), StoreError> {
    for (key, value) in &instance.labels {
        text(key)?;
        text(value)?;
    }
    let mut transaction = begin(store).await?;
    sqlx::query(
        "INSERT INTO instances (id, tenant, name, status, status_reason, runtime, image, spec, record, labels, \
         created_at_ms, updated_at_ms, expires_at_ms, last_active_at_ms, parent_id, snapshot_id, revision) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, 1)",
    )
    .bind(text(&instance.id)?)
    .bind(text(&instance.tenant)?)
    .bind(optional(instance.name.as_ref())?)
    .bind(text(&instance.status)?)
    .bind(optional(instance.status_reason.as_ref())?)
    .bind(text(&instance.runtime)?)
    .bind(text(&instance.image)?)
    .bind(instance.spec.to_string())
    .bind(instance.record.as_ref().map(ToString::to_string))
    .bind(serde_json::json!(instance.labels).to_string())
    .bind(instance.created_at_ms)
    .bind(instance.updated_at_ms)
    .bind(instance.expires_at_ms)
    .bind(instance.last_active_at_ms)
    .bind(optional(instance.parent_id.as_ref())?)
    .bind(optional(instance.snapshot_id.as_ref())?)
    .execute(&mut *transaction)
    .await
    .map_err(|error| taken(error, instance))?;
    for (key, value) in &instance.labels {
        sqlx::query("INSERT INTO instance_labels (instance_id, label, value) VALUES ($1, $2, $3)")
            .bind(&instance.id)
            .bind(key)
            .bind(value)
            .execute(&mut *transaction)
            .await?;
    }
    if let Some(event) = event {
        events::append(&mut transaction, event).await?;
    }
    Ok(transaction.commit().await?)
}

/// Which of the two things that must be unique is not.
fn taken(error: sqlx::Error, instance: &Instance) -> StoreError {
    let Some(said) = error.as_database_error().filter(|said| said.is_unique_violation()) else {
        return error.into();
    };
    // PostgreSQL names the index, SQLite the columns.
    let is_name = said.constraint() == Some("instances_name") || said.message().contains("instances.name");
    match &instance.name {
        Some(name) if is_name => StoreError::NameTaken { name: name.clone() },
        _ => StoreError::Exists { id: instance.id.clone() },
    }
}

pub(super) async fn get(store: &Backend, tenant: &str, id: &str) -> Result<Option<Instance>, StoreError> {
    let row = sqlx::query("SELECT * FROM instances WHERE tenant = $1 AND id = $2")
        .bind(text(tenant)?)
        .bind(text(id)?)
        .fetch_optional(&store.read)
        .await?;
    row.as_ref().map(read).transpose()
}

pub(super) async fn list(
    store: &Backend,
    tenant: &str,
    filter: &InstanceFilter,
    after: Option<&Position>,
    limit: u32,
) -> Result<Vec<Instance>, StoreError> {
    let mut query = QueryBuilder::<Db>::new("SELECT * FROM instances WHERE tenant = ");
    query.push_bind(text(tenant)?);
    if !filter.status.is_empty() {
        query.push(" AND status IN (");
        let mut states = query.separated(", ");
        for status in &filter.status {
            states.push_bind(text(status)?);
        }
        query.push(")");
    }
    for (label, value) in &filter.labels {
        query.push(" AND id IN (SELECT instance_id FROM instance_labels WHERE label = ");
        query.push_bind(text(label)?).push(" AND value = ").push_bind(text(value)?).push(")");
    }
    if let Some(after) = after {
        query.push(" AND (created_at_ms, id) < (").push_bind(after.created_at_ms);
        query.push(", ").push_bind(text(&after.id)?).push(")");
    }
    query.push(" ORDER BY created_at_ms DESC, id DESC LIMIT ").push_bind(i64::from(limit));
    query.build().fetch_all(&store.read).await?.iter().map(read).collect()
}

pub(super) async fn all(store: &Backend) -> Result<Vec<Instance>, StoreError> {
    let rows =
        sqlx::query("SELECT * FROM instances ORDER BY created_at_ms, id").fetch_all(&store.read).await?;
    rows.iter().map(read).collect()
}

pub(super) async fn update(
    store: &Backend,
    instance: &Instance,
    event: Option<&NewEvent>,
) -> Result<i64, StoreError> {
    let mut transaction = begin(store).await?;
    let written = sqlx::query(
        "UPDATE instances SET name = $1, status = $2, status_reason = $3, runtime = $4, image = $5, spec = $6, \
         record = $7, updated_at_ms = $8, expires_at_ms = $9, last_active_at_ms = $10, revision = revision + 1 \
         WHERE tenant = $11 AND id = $12 AND revision = $13",
    )
    .bind(optional(instance.name.as_ref())?)
    .bind(text(&instance.status)?)
    .bind(optional(instance.status_reason.as_ref())?)
    .bind(text(&instance.runtime)?)
    .bind(text(&instance.image)?)
    .bind(instance.spec.to_string())
    .bind(instance.record.as_ref().map(ToString::to_string))
    .bind(instance.updated_at_ms)
    .bind(instance.expires_at_ms)
    .bind(instance.last_active_at_ms)
    .bind(text(&instance.tenant)?)
    .bind(text(&instance.id)?)
    .bind(instance.revision)
    .execute(&mut *transaction)
    .await
    .map_err(|error| taken(error, instance))?;
    if written.rows_affected() == 0 {
        return Err(StoreError::Stale);
    }
    if let Some(event) = event {
        events::append(&mut transaction, event).await?;
    }
    transaction.commit().await?;
    Ok(instance.revision + 1)
}

pub(super) async fn delete(
    store: &Backend,
    tenant: &str,
    id: &str,
    at_ms: i64,
    event: Option<&NewEvent>,
) -> Result<bool, StoreError> {
    let (tenant, id) = (text(tenant)?, text(id)?);
    let mut transaction = begin(store).await?;
    let deleted = sqlx::query("DELETE FROM instances WHERE tenant = $1 AND id = $2")
        .bind(tenant)
        .bind(id)
        .execute(&mut *transaction)
        .await?;
    if deleted.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO tombstones (tenant, id, deleted_at_ms) VALUES ($1, $2, $3) \
         ON CONFLICT (tenant, id) DO UPDATE SET deleted_at_ms = excluded.deleted_at_ms",
    )
    .bind(tenant)
    .bind(id)
    .bind(at_ms)
    .execute(&mut *transaction)
    .await?;
    if let Some(event) = event {
        events::append(&mut transaction, event).await?;
    }
    transaction.commit().await?;
    Ok(true)
}

pub(super) async fn was_deleted(store: &Backend, tenant: &str, id: &str) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM tombstones WHERE tenant = $1 AND id = $2")
        .bind(text(tenant)?)
        .bind(text(id)?)
        .fetch_optional(&store.read)
        .await?;
    Ok(row.is_some())
}

pub(super) async fn prune_tombstones(store: &Backend, before_ms: i64) -> Result<u64, StoreError> {
    let pruned = sqlx::query("DELETE FROM tombstones WHERE deleted_at_ms < $1")
        .bind(before_ms)
        .execute(&store.write)
        .await?;
    Ok(pruned.rows_affected())
}

fn read(row: &Row) -> Result<Instance, StoreError> {
    Ok(Instance {
        id: column(row, TABLE, "id")?,
        tenant: column(row, TABLE, "tenant")?,
        name: column(row, TABLE, "name")?,
        status: column(row, TABLE, "status")?,
        status_reason: column(row, TABLE, "status_reason")?,
        runtime: column(row, TABLE, "runtime")?,
        image: column(row, TABLE, "image")?,
        spec: json(row, TABLE, "spec")?,
        record: optional_json(row, TABLE, "record")?,
        labels: json(row, TABLE, "labels")?,
        created_at_ms: column(row, TABLE, "created_at_ms")?,
        updated_at_ms: column(row, TABLE, "updated_at_ms")?,
        expires_at_ms: column(row, TABLE, "expires_at_ms")?,
        last_active_at_ms: column(row, TABLE, "last_active_at_ms")?,
        parent_id: column(row, TABLE, "parent_id")?,
        snapshot_id: column(row, TABLE, "snapshot_id")?,
        revision: column(row, TABLE, "revision")?,
    })
}
