//! Lifecycle events.

use sqlx::Transaction;

use super::{Backend, Db, Row, column, json};
use crate::store::rows::text;
use crate::store::{Event, EventBounds, NewEvent, StoreError};

const TABLE: &str = "events";

/// Adds an event within a transaction, as its last step: the number comes from a row that stays locked until the
/// transaction ends, so that nobody sees a number before all lower ones (a sequence of the database would hand numbers
/// out in one order and show them in another).
pub(super) async fn append(
    transaction: &mut Transaction<'static, Db>,
    event: &NewEvent,
) -> Result<i64, StoreError> {
    let seq: i64 = sqlx::query_scalar("UPDATE event_counter SET newest = newest + 1 RETURNING newest")
        .fetch_one(&mut **transaction)
        .await?;
    sqlx::query(
        "INSERT INTO events (seq, tenant, at_ms, kind, subject, data) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(seq)
    .bind(text(&event.tenant)?)
    .bind(event.at_ms)
    .bind(text(&event.kind)?)
    .bind(text(&event.subject)?)
    .bind(event.data.to_string())
    .execute(&mut **transaction)
    .await?;
    Ok(seq)
}

pub(super) async fn list(
    store: &Backend,
    tenant: &str,
    after: i64,
    limit: u32,
) -> Result<Vec<Event>, StoreError> {
    let rows = sqlx::query("SELECT * FROM events WHERE tenant = $1 AND seq > $2 ORDER BY seq LIMIT $3")
        .bind(text(tenant)?)
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&store.read)
        .await?;
    rows.iter().map(read).collect()
}

pub(super) async fn bounds(store: &Backend) -> Result<EventBounds, StoreError> {
    let row = sqlx::query(
        "SELECT newest, COALESCE((SELECT MIN(seq) FROM events), newest + 1) AS oldest FROM event_counter",
    )
    .fetch_one(&store.read)
    .await?;
    Ok(EventBounds { oldest: column(&row, TABLE, "oldest")?, newest: column(&row, TABLE, "newest")? })
}

pub(super) async fn prune(store: &Backend, before_ms: i64, keep: u32) -> Result<u64, StoreError> {
    // Always the first ones, whatever their clock said: what is kept has no holes.
    let pruned = sqlx::query(
        "DELETE FROM events WHERE seq <= (SELECT newest FROM event_counter) - $1 \
         OR seq <= (SELECT MAX(seq) FROM events WHERE at_ms < $2)",
    )
    .bind(i64::from(keep))
    .bind(before_ms)
    .execute(&store.write)
    .await?;
    Ok(pruned.rows_affected())
}

fn read(row: &Row) -> Result<Event, StoreError> {
    Ok(Event {
        seq: column(row, TABLE, "seq")?,
        event: NewEvent {
            tenant: column(row, TABLE, "tenant")?,
            at_ms: column(row, TABLE, "at_ms")?,
            kind: column(row, TABLE, "kind")?,
            subject: column(row, TABLE, "subject")?,
            data: json(row, TABLE, "data")?,
        },
    })
}
