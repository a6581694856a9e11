//! The store in a database of a PostgreSQL server.

use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Pool, Postgres};
use tokio::sync::watch;

use super::error::StoreError;
use super::location::DatabaseUrl;
use super::{Store as _, schema};

/// The statements, for this driver.
#[path = "sql/mod.rs"]
#[expect(clippy::duplicate_mod, reason = "the same statements, compiled against another driver")]
mod sql;

type Db = Postgres;
type Row = PgRow;
type Backend = PostgresStore;

const BEGIN: &str = "BEGIN";

/// How many connections there are at most.
const CONNECTIONS: u32 = 10;

/// How long a connection is waited for: one that is free, or that the server takes after a restart.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the first connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a statement may take in the server, which would otherwise work on for a caller that has gone.
const STATEMENT_TIMEOUT: &str = "20s";

const STEPS: [schema::Step; 1] = [(1, "first", include_str!("migrations/postgres/0001_first.sql"))];

/// The store in a database of a PostgreSQL server. Cheap to clone: all clones are one store.
///
/// A connection that is taken from the pool is asked first whether it still is one, and made anew where it is not: a
/// server that was restarted is used again without a restart of this program.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    write: Pool<Db>,
    read: Pool<Db>,
    boot: String,
    appended: watch::Sender<u64>,
}

impl PostgresStore {
    /// Connects to the server, which must have the database.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] with the reason, and others.
    pub async fn open(url: &DatabaseUrl, gateway: &str) -> Result<Self, StoreError> {
        let options = url
            .options()
            .map_err(StoreError::Url)?
            .application_name("faas-gateway-server")
            // An acknowledged transaction is on the server's disk, whatever the server's own default is.
            .options([("synchronous_commit", "on"), ("statement_timeout", STATEMENT_TIMEOUT)])
            .disable_statement_logging();
        // The pool tries again and again and then says only that it has run out of time.
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options)).await;
        let mut connection = connected.map_err(|_elapsed| StoreError::Unreachable {
            reason: format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        })??;
        schema::migrate(&STEPS, &mut connection).await?;
        // Closed by its drop in any case; this says good-bye.
        if let Err(error) = connection.close().await {
            tracing::debug!(%error, "the first connection to the database was not closed well");
        }
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(options);
        let boot = uuid::Uuid::now_v7().simple().to_string();
        let store = Self { write: pool.clone(), read: pool, boot, appended: watch::Sender::default() };
        if let Err(error) = sql::claim(&store, gateway).await {
            store.close().await;
            return Err(error);
        }
        Ok(store)
    }
}
