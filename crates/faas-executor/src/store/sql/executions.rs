//! Executions.

use sqlx::QueryBuilder;

use super::{Backend, Db, Row, begin, column, events, json, optional_json};
use crate::store::rows::{optional, text};
use crate::store::{Execution, NewEvent, Position, StoreError};

const TABLE: &str = "executions";

pub(super) async fn insert(
    store: &Backend,
    execution: &Execution,
    event: Option<&NewEvent>,
) -> Result<(), StoreError> {
    let mut transaction = begin(store).await?;
    let inserted = sqlx::query(
        "INSERT INTO executions (id, tenant, instance_id, state, spec, result, created_at_ms, ended_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(text(&execution.id)?)
    .bind(text(&execution.tenant)?)
    .bind(optional(execution.instance_id.as_ref())?)
    .bind(text(&execution.state)?)
    .bind(execution.spec.to_string())
    .bind(execution.result.as_ref().map(ToString::to_string))
    .bind(execution.created_at_ms)
    .bind(execution.ended_at_ms)
    .execute(&mut *transaction)
    .await;
    match inserted {
        Err(sqlx::Error::Database(said)) if said.is_unique_violation() => {
            return Err(StoreError::Exists { id: execution.id.clone() });
        }
        other => other?,
    };
    if let Some(event) = event {
        events::append(&mut transaction, event).await?;
    }
    Ok(transaction.commit().await?)
}

pub(super) async fn ids(store: &Backend) -> Result<Vec<(String, String)>, StoreError> {
    let rows = sqlx::query("SELECT instance_id, id FROM executions WHERE instance_id IS NOT NULL")
        .fetch_all(&store.read)
        .await?;
    rows.iter().map(|row| Ok((column(row, TABLE, "instance_id")?, column(row, TABLE, "id")?))).collect()
}

pub(super) async fn get(store: &Backend, tenant: &str, id: &str) -> Result<Option<Execution>, StoreError> {
    let row = sqlx::query("SELECT * FROM executions WHERE tenant = $1 AND id = $2")
        .bind(text(tenant)?)
        .bind(text(id)?)
        .fetch_optional(&store.read)
        .await?;
    row.as_ref().map(read).transpose()
}

pub(super) async fn list(
    store: &Backend,
    tenant: &str,
    instance_id: &str,
    after: Option<&Position>,
    limit: u32,
) -> Result<Vec<Execution>, StoreError> {
    let mut query = QueryBuilder::<Db>::new("SELECT * FROM executions WHERE tenant = ");
    query.push_bind(text(tenant)?).push(" AND instance_id = ").push_bind(text(instance_id)?);
    if let Some(after) = after {
        query.push(" AND (created_at_ms, id) < (").push_bind(after.created_at_ms);
        query.push(", ").push_bind(text(&after.id)?).push(")");
    }
    query.push(" ORDER BY created_at_ms DESC, id DESC LIMIT ").push_bind(i64::from(limit));
    query.build().fetch_all(&store.read).await?.iter().map(read).collect()
}

pub(super) async fn update(
    store: &Backend,
    execution: &Execution,
    event: Option<&NewEvent>,
) -> Result<bool, StoreError> {
    let mut transaction = begin(store).await?;
    let written = sqlx::query(
        "UPDATE executions SET state = $1, result = $2, ended_at_ms = $3 WHERE tenant = $4 AND id = $5",
    )
    .bind(text(&execution.state)?)
    .bind(execution.result.as_ref().map(ToString::to_string))
    .bind(execution.ended_at_ms)
    .bind(text(&execution.tenant)?)
    .bind(text(&execution.id)?)
    .execute(&mut *transaction)
    .await?;
    if written.rows_affected() == 0 {
        return Ok(false);
    }
    if let Some(event) = event {
        events::append(&mut transaction, event).await?;
    }
    transaction.commit().await?;
    Ok(true)
}

pub(super) async fn delete(store: &Backend, tenant: &str, id: &str) -> Result<bool, StoreError> {
    let deleted = sqlx::query("DELETE FROM executions WHERE tenant = $1 AND id = $2")
        .bind(text(tenant)?)
        .bind(text(id)?)
        .execute(&store.write)
        .await?;
    Ok(deleted.rows_affected() == 1)
}

fn read(row: &Row) -> Result<Execution, StoreError> {
    Ok(Execution {
        id: column(row, TABLE, "id")?,
        tenant: column(row, TABLE, "tenant")?,
        instance_id: column(row, TABLE, "instance_id")?,
        state: column(row, TABLE, "state")?,
        spec: json(row, TABLE, "spec")?,
        result: optional_json(row, TABLE, "result")?,
        created_at_ms: column(row, TABLE, "created_at_ms")?,
        ended_at_ms: column(row, TABLE, "ended_at_ms")?,
    })
}
