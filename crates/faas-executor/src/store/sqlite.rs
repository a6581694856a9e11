//! The store in a file of SQLite.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Pool, Sqlite};
use tokio::sync::watch;

use super::error::StoreError;
use super::{Store as _, schema};

/// The statements, for this driver.
#[path = "sql/mod.rs"]
mod sql;

type Db = Sqlite;
type Row = SqliteRow;
type Backend = SqliteStore;

/// Takes the one write lock at once: a transaction that has read and then waits for it can only fail.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// How long a lock is waited for that another process has, a backup for example.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How many read at once, beside the one that writes.
const READERS: u32 = 4;

const STEPS: [schema::Step; 1] = [(1, "first", include_str!("migrations/sqlite/0001_first.sql"))];

/// The store in a file of SQLite. Cheap to clone: all clones are one store.
///
/// One connection writes, others read beside it (write-ahead log). `synchronous` is `FULL`: with a write-ahead log
/// anything less loses acknowledged transactions in a power cut, and the truth about what should exist would then be
/// behind what exists (sqlite.org/pragma.html#pragma_synchronous).
#[derive(Clone, Debug)]
pub struct SqliteStore {
    write: Pool<Db>,
    read: Pool<Db>,
    boot: String,
    appended: watch::Sender<u64>,
}

impl SqliteStore {
    /// Opens the file, for this user alone; makes it where it is missing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(path: &Path, gateway: &str) -> Result<Self, StoreError> {
        let at = |source| StoreError::File { path: path.to_owned(), source };
        // Before SQLite makes it: its log gets the same permissions.
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(at)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(at)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let pool = || SqlitePoolOptions::new().idle_timeout(None).max_lifetime(None);
        let write = pool()
            .max_connections(1)
            // SQLite ends a transaction by itself where the disk is full, for example (sqlite.org/lang_transaction.html),
            // and the driver does not learn of it: such a connection would begin no other one ever again.
            .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
            .connect_with(options.clone().journal_mode(SqliteJournalMode::Wal))
            .await?;
        let read = pool().max_connections(READERS).connect_lazy_with(options.read_only(true));
        let store = Self {
            write,
            read,
            boot: uuid::Uuid::now_v7().simple().to_string(),
            appended: watch::Sender::default(),
        };
        let taken = async {
            schema::migrate(&STEPS, &store.write).await?;
            sql::claim(&store, gateway).await
        };
        if let Err(error) = taken.await {
            store.close().await;
            return Err(error);
        }
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::SqliteStore;
    use crate::store::{NewEvent, Store as _, StoreError};

    #[tokio::test]
    async fn a_full_disk_is_said_and_takes_nothing_that_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("store.db"), "g").await.unwrap();
        let event = |bytes: usize| NewEvent {
            tenant: "default".to_owned(),
            at_ms: 1,
            kind: "k".to_owned(),
            subject: "s".to_owned(),
            data: serde_json::Value::String("x".repeat(bytes)),
        };
        assert_eq!(store.append_event(&event(1)).await.unwrap(), 1);
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&store.write).await.unwrap();
        let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {}", pages + 2));
        sqlx::query(limit).execute(&store.write).await.unwrap();
        assert!(matches!(store.append_event(&event(1 << 20)).await, Err(StoreError::Full { .. })));
        assert_eq!(store.append_event(&event(1)).await.unwrap(), 2, "what was refused counts for nothing");
        assert_eq!(store.events("default", 0, 10).await.unwrap().len(), 2);
        store.close().await;
    }

    #[tokio::test]
    async fn the_file_is_its_users_alone_and_its_log_goes_with_the_last_connection() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let store = SqliteStore::open(&path, "g").await.unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        }
        store.close().await;
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 1, "only the file itself");
    }
}
