//! A database of a test's own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use faas_executor::store::{AnyStore, Instance, NewEvent, Store as _, StoreError, StoreLocation};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

pub(crate) const TENANT: &str = "default";
pub(crate) const GATEWAY: &str = "gateway1";

/// The database, and what has to be removed after the test.
pub(crate) struct Subject {
    pub(crate) location: Location,
    opened: Vec<AnyStore>,
    dir: Option<tempfile::TempDir>,
    server: Option<(String, String)>,
}

/// Where the database is, as text too: another process opens it.
#[derive(Clone)]
pub(crate) struct Location(pub(crate) String);

impl Location {
    pub(crate) fn parsed(&self) -> StoreLocation {
        match self.0.strip_prefix("file:") {
            Some(path) => StoreLocation::File(PathBuf::from(path)),
            None => StoreLocation::Url(self.0.parse().unwrap()),
        }
    }
}

impl Subject {
    pub(crate) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let location = Location(format!("file:{}", dir.path().join("store.db").display()));
        Self { location, opened: Vec::new(), dir: Some(dir), server: None }
    }

    pub(crate) async fn postgres() -> Self {
        #[expect(clippy::disallowed_methods, reason = "a test's switch, not a setting of the server")]
        let server = std::env::var("FAAS_TEST_POSTGRES_URL").unwrap();
        Self::on(server).await
    }

    /// A database of its own on a PostgreSQL server.
    pub(crate) async fn on(server: String) -> Self {
        let name = format!("faas_test_{}", uuid::Uuid::now_v7().simple());
        let (address, parameters) = server.split_once('?').unwrap_or((&server, ""));
        let (address, _) = address.rsplit_once('/').unwrap();
        let location = Location(format!("{address}/{name}?{parameters}"));
        let mut connection = PgConnection::connect(&server).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        Self { location, opened: Vec::new(), dir: None, server: Some((server, name)) }
    }

    /// Opens it as a gateway that has just started does.
    pub(crate) async fn open(&mut self) -> AnyStore {
        let store = AnyStore::open(&self.location.parsed(), GATEWAY).await.unwrap();
        self.opened.push(store.clone());
        store
    }

    pub(crate) async fn open_as(&self, gateway: &str) -> Result<AnyStore, StoreError> {
        AnyStore::open(&self.location.parsed(), gateway).await
    }

    /// One statement beside the store.
    pub(crate) async fn execute(&self, statement: &'static str) {
        match self.location.0.strip_prefix("file:") {
            Some(path) => {
                let mut connection = SqliteConnection::connect(path).await.unwrap();
                sqlx::query(statement).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            None => {
                let mut connection = PgConnection::connect(&self.location.0).await.unwrap();
                sqlx::query(statement).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// What SQLite finds wrong with its file; `ok` where it is nothing. PostgreSQL looks after itself; of it only those are
    /// waited for who still work for a process that was killed.
    pub(crate) async fn integrity(&self) -> String {
        let Some(path) = self.location.0.strip_prefix("file:") else {
            let mut connection = PgConnection::connect(&self.location.0).await.unwrap();
            let others = "SELECT COUNT(*) FROM pg_stat_activity \
                          WHERE datname = current_database() AND pid <> pg_backend_pid()";
            while sqlx::query_scalar::<_, i64>(others).fetch_one(&mut connection).await.unwrap() > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            connection.close().await.unwrap();
            return "ok".to_owned();
        };
        let mut connection = SqliteConnection::connect(path).await.unwrap();
        let found = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        found
    }

    pub(crate) async fn remove(self) {
        for store in &self.opened {
            store.close().await;
        }
        if let Some(dir) = self.dir {
            let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap()).collect();
            assert_eq!(left.len(), 1, "beside the file: {left:?}");
            dir.close().unwrap();
        }
        if let Some((server, name)) = self.server {
            let mut connection = PgConnection::connect(&server).await.unwrap();
            let drop = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
            sqlx::query(drop).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
    }
}

/// An instance with little in it.
pub(crate) fn instance(id: &str, created_at_ms: i64) -> Instance {
    Instance {
        id: id.to_owned(),
        tenant: TENANT.to_owned(),
        name: None,
        status: "running".to_owned(),
        status_reason: None,
        runtime: "native".to_owned(),
        image: "host".to_owned(),
        spec: json!({}),
        record: None,
        labels: BTreeMap::new(),
        created_at_ms,
        updated_at_ms: created_at_ms,
        expires_at_ms: None,
        last_active_at_ms: created_at_ms,
        parent_id: None,
        snapshot_id: None,
        revision: 1,
    }
}

pub(crate) fn event(subject: &str, at_ms: i64) -> NewEvent {
    NewEvent {
        tenant: TENANT.to_owned(),
        at_ms,
        kind: "instance.created".to_owned(),
        subject: subject.to_owned(),
        data: json!({ "of": subject }),
    }
}
