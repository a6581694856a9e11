//! Idempotency keys.
//!
//! ```text
//!            begin                finish
//!   (none) --------> running ----------------> done
//!      ^               |  |                     |
//!      |    forget     |  | interrupt, or       | prune
//!      +---------------+  v a new process       v
//!      +-------------- interrupted           (none)
//!        prune            |  begin, where it may run again
//!                         +-----------------> running
//! ```

use super::{Backend, Row, column, json};
use crate::store::rows::text;
use crate::store::{Begun, KeptAnswer, KeyClaim, StoreError};

const TABLE: &str = "idempotency_keys";

/// Marks what an earlier process left running. There is no other process beside this one.
pub(super) async fn interrupt_left(store: &Backend) -> Result<(), StoreError> {
    sqlx::query("UPDATE idempotency_keys SET state = 'interrupted' WHERE state = 'running' AND owner <> $1")
        .bind(&store.boot)
        .execute(&store.write)
        .await?;
    Ok(())
}

pub(super) async fn begin(store: &Backend, claim: &KeyClaim) -> Result<Begun, StoreError> {
    let (tenant, key) = (text(&claim.tenant)?, text(&claim.key)?);
    // Each turn beyond the first means that somebody else has come to an end in between.
    loop {
        let taken = sqlx::query(
            "INSERT INTO idempotency_keys (tenant, key, route, fingerprint, state, owner, created_at_ms) \
             VALUES ($1, $2, $3, $4, 'running', $5, $6) ON CONFLICT (tenant, key) DO NOTHING",
        )
        .bind(tenant)
        .bind(key)
        .bind(text(&claim.route)?)
        .bind(&claim.fingerprint)
        .bind(&store.boot)
        .bind(claim.at_ms)
        .execute(&store.write)
        .await?;
        if taken.rows_affected() == 1 {
            return Ok(Begun::New);
        }
        let row = sqlx::query("SELECT * FROM idempotency_keys WHERE tenant = $1 AND key = $2")
            .bind(tenant)
            .bind(key)
            .fetch_optional(&store.read)
            .await?;
        let Some(row) = row else { continue };
        let route: &str = column(&row, TABLE, "route")?;
        let fingerprint: &[u8] = column(&row, TABLE, "fingerprint")?;
        if route != claim.route || fingerprint != claim.fingerprint {
            return Ok(Begun::Mismatch);
        }
        match column(&row, TABLE, "state")? {
            "running" => return Ok(Begun::Running),
            "done" => return Ok(Begun::Done(answer(&row)?)),
            "interrupted" if !claim.rerun_interrupted => return Ok(Begun::Interrupted),
            "interrupted" => {
                let taken = sqlx::query(
                    "UPDATE idempotency_keys SET state = 'running', owner = $1, created_at_ms = $2 \
                     WHERE tenant = $3 AND key = $4 AND state = 'interrupted'",
                )
                .bind(&store.boot)
                .bind(claim.at_ms)
                .bind(tenant)
                .bind(key)
                .execute(&store.write)
                .await?;
                if taken.rows_affected() == 1 {
                    return Ok(Begun::New);
                }
            }
            other => return Err(StoreError::Row { table: TABLE, reason: format!("its state is {other:?}") }),
        }
    }
}

pub(super) async fn finish(
    store: &Backend,
    tenant: &str,
    key: &str,
    answer: &KeptAnswer,
) -> Result<bool, StoreError> {
    let kept = sqlx::query(
        "UPDATE idempotency_keys SET state = 'done', status = $1, headers = $2, body = $3 \
         WHERE tenant = $4 AND key = $5 AND state = 'running' AND owner = $6",
    )
    .bind(i64::from(answer.status))
    .bind(serde_json::json!(answer.headers).to_string())
    .bind(answer.body.as_deref())
    .bind(text(tenant)?)
    .bind(text(key)?)
    .bind(&store.boot)
    .execute(&store.write)
    .await?;
    Ok(kept.rows_affected() == 1)
}

pub(super) async fn forget(store: &Backend, tenant: &str, key: &str) -> Result<bool, StoreError> {
    const FORGET: &str =
        "DELETE FROM idempotency_keys WHERE tenant = $1 AND key = $2 AND state = 'running' AND owner = $3";
    leave(store, FORGET, tenant, key).await
}

pub(super) async fn interrupt(store: &Backend, tenant: &str, key: &str) -> Result<bool, StoreError> {
    const INTERRUPT: &str = "UPDATE idempotency_keys SET state = 'interrupted' \
         WHERE tenant = $1 AND key = $2 AND state = 'running' AND owner = $3";
    leave(store, INTERRUPT, tenant, key).await
}

/// Takes a key of this process out of `running`, without an answer; whether it was there.
async fn leave(
    store: &Backend,
    statement: &'static str,
    tenant: &str,
    key: &str,
) -> Result<bool, StoreError> {
    let left = sqlx::query(statement)
        .bind(text(tenant)?)
        .bind(text(key)?)
        .bind(&store.boot)
        .execute(&store.write)
        .await?;
    Ok(left.rows_affected() == 1)
}

pub(super) async fn prune(store: &Backend, before_ms: i64) -> Result<u64, StoreError> {
    let pruned = sqlx::query("DELETE FROM idempotency_keys WHERE created_at_ms < $1 AND state <> 'running'")
        .bind(before_ms)
        .execute(&store.write)
        .await?;
    Ok(pruned.rows_affected())
}

fn answer(row: &Row) -> Result<KeptAnswer, StoreError> {
    let status: i64 = column(row, TABLE, "status")?;
    Ok(KeptAnswer {
        status: u16::try_from(status)
            .map_err(|_error| StoreError::Row { table: TABLE, reason: format!("its status is {status}") })?,
        headers: json(row, TABLE, "headers")?,
        body: column(row, TABLE, "body")?,
    })
}
