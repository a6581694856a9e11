//! Brings the schema of a database up to date, and takes the database for its gateway.

use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Acquire, SqlSafeStr as _};

use super::error::StoreError;

/// One step of the schema: its number, what it is for, its statements.
pub(super) type Step = (i64, &'static str, &'static str);

/// Runs the steps that have not been run yet, each in a transaction.
pub(super) async fn migrate<'a, A>(steps: &[Step], connection: A) -> Result<(), StoreError>
where
    A: Acquire<'a>,
    <A::Connection as std::ops::Deref>::Target: Migrate,
{
    let migrations = steps.iter().map(|(version, what, sql)| {
        Migration::new(*version, (*what).into(), MigrationType::Simple, (*sql).into_sql_str(), false)
    });
    let known = steps.iter().map(|(version, ..)| *version).max().unwrap_or(0);
    match Migrator::with_migrations(migrations.collect()).run(connection).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(found)) if found > known => Err(StoreError::TooNew { found, known }),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => match error.into() {
            StoreError::Database(error) => Err(StoreError::Schema(MigrateError::Execute(error))),
            known => Err(known),
        },
        Err(error) => Err(StoreError::Schema(error)),
    }
}
