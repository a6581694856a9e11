//! Lifecycle events.

use sqlx::QueryBuilder;

use super::{Backend, Change, Db, Row, column, json};
use crate::store::rows::text;
use crate::store::{Event, EventBounds, EventFilter, NewEvent, StoreError};

const TABLE: &str = "events";

/// Adds an event within a transaction, as its last step: the number comes from a row that stays locked until the
/// transaction ends, so that nobody sees a number before all lower ones (a sequence of the database would hand numbers
/// out in one order and show them in another).
pub(super) async fn append(transaction: &mut Change, event: &NewEvent) -> Result<i64, StoreError> {
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
    transaction.has_event();
    Ok(seq)
}

pub(super) async fn list(
    store: &Backend,
    tenant: &str,
    filter: &EventFilter,
    after: i64,
    limit: u32,
) -> Result<Vec<Event>, StoreError> {
    let mut query = QueryBuilder::<Db>::new("SELECT * FROM events WHERE tenant = ");
    query.push_bind(text(tenant)?).push(" AND seq > ").push_bind(after);
    if let Some(subject) = &filter.subject {
        query.push(" AND subject = ").push_bind(text(subject)?);
    }
    if !filter.kinds.is_empty() {
        query.push(" AND (");
        let mut kinds = query.separated(" OR ");
        for kind in &filter.kinds {
            // LIKE has characters of its own, and knows no case in SQLite.
            let kind = text(kind)?;
            kinds.push("substr(kind, 1, length(").push_bind_unseparated(kind);
            kinds.push_unseparated(")) = ").push_bind_unseparated(kind);
        }
        query.push(")");
    }
    query.push(" ORDER BY seq LIMIT ").push_bind(i64::from(limit));
    query.build().fetch_all(&store.read).await?.iter().map(read).collect()
}

pub(super) async fn all(store: &Backend, after: i64, limit: u32) -> Result<Vec<Event>, StoreError> {
    let rows = sqlx::query("SELECT * FROM events WHERE seq > $1 ORDER BY seq LIMIT $2")
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
