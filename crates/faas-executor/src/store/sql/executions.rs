//! Executions.

use sqlx::QueryBuilder;

use super::{Backend, Db, Row, column, json, optional_json};
use crate::store::rows::{optional, text};
use crate::store::{Execution, Position, StoreError};

const TABLE: &str = "executions";

pub(super) async fn insert(store: &Backend, execution: &Execution) -> Result<(), StoreError> {
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
    .execute(&store.write)
    .await;
    match inserted {
        Err(sqlx::Error::Database(said)) if said.is_unique_violation() => {
            Err(StoreError::Exists { id: execution.id.clone() })
        }
        other => other.map(drop).map_err(StoreError::from),
    }
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

pub(super) async fn update(store: &Backend, execution: &Execution) -> Result<bool, StoreError> {
    let written = sqlx::query(
        "UPDATE executions SET state = $1, result = $2, ended_at_ms = $3 WHERE tenant = $4 AND id = $5",
    )
    .bind(text(&execution.state)?)
    .bind(execution.result.as_ref().map(ToString::to_string))
    .bind(execution.ended_at_ms)
    .bind(text(&execution.tenant)?)
    .bind(text(&execution.id)?)
    .execute(&store.write)
    .await?;
    Ok(written.rows_affected() == 1)
}

pub(super) async fn prune(store: &Backend, before_ms: i64) -> Result<u64, StoreError> {
    let pruned = sqlx::query("DELETE FROM executions WHERE ended_at_ms < $1")
        .bind(before_ms)
        .execute(&store.write)
        .await?;
    Ok(pruned.rows_affected())
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
