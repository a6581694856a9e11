//! Why the store did not do what it was asked.

/// Why a call of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached now, or is too busy; the same call may succeed later.
    #[error("the database cannot be reached: {reason}")]
    Unreachable {
        /// What it or the system said.
        reason: String,
    },
    /// The database has no room left.
    #[error("the database has no room left: {reason}")]
    Full {
        /// What it said.
        reason: String,
    },
    /// Another instance of the tenant has this name.
    #[error("the name {name} is taken")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// There is a row with this id.
    #[error("there is already a row with the id {id}")]
    Exists {
        /// The id.
        id: String,
    },
    /// The row was written or deleted since it was read.
    #[error("it was changed by somebody else since it was read")]
    Stale,
    /// The instance that a row belongs to is not there.
    #[error("there is no such instance")]
    NoInstance,
    /// Text with a NUL in it.
    #[error("text with a NUL in it cannot be kept")]
    Text,
    /// The database was written by a newer version of this program.
    #[error(
        "the database has schema version {found}, and this program knows {known} and older ones; use a newer program"
    )]
    TooNew {
        /// The version of its schema.
        found: i64,
        /// The newest one that this program knows.
        known: i64,
    },
    /// The database belongs to a gateway with another data directory.
    #[error(
        "the database belongs to the gateway {owner}, and this data directory is that of {own}; give each gateway a \
         database of its own"
    )]
    Foreign {
        /// That gateway's id.
        owner: String,
        /// This gateway's.
        own: String,
    },
    /// The schema could not be brought up to date.
    #[error("the schema of the database cannot be brought up to date: {0}")]
    Schema(#[source] sqlx::migrate::MigrateError),
    /// A row that this program cannot have written.
    #[error("a row of {table} cannot be read: {reason}")]
    Row {
        /// Where it is.
        table: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The URL of the database is none.
    #[error("{0}")]
    Url(String),
    /// The file of the database cannot be made or opened.
    #[error("{}: {source}", path.display())]
    File {
        /// Its path.
        path: std::path::PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The database refused for another reason.
    #[error("the database refused: {0}")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let reason = error.to_string();
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unreachable { reason },
            sqlx::Error::Database(said) => match said.code().as_deref().map(kind) {
                Some(Kind::Full) => Self::Full { reason: said.message().to_owned() },
                Some(Kind::Unreachable) => Self::Unreachable { reason: said.message().to_owned() },
                Some(Kind::Other) | None if said.is_foreign_key_violation() => Self::NoInstance,
                Some(Kind::Other) | None => Self::Database(error),
            },
            _ => Self::Database(error),
        }
    }
}

enum Kind {
    Full,
    Unreachable,
    Other,
}

/// What a code means: one of SQLite's extended result codes (sqlite.org/rescode.html), which are numbers of up to four
/// digits, or one of PostgreSQL's SQLSTATEs (its documentation, appendix A), which have five characters.
fn kind(code: &str) -> Kind {
    /// `SQLITE_FULL`, `SQLITE_IOERR_SHMSIZE`: the kernel had no room for the index of the log.
    const SQLITE_FULL: [u32; 2] = [13, 4874];
    /// `SQLITE_BUSY`, the lower byte of its extended codes.
    const SQLITE_BUSY: u32 = 5;
    if code.len() < 5 {
        return match code.parse::<u32>() {
            Ok(number) if SQLITE_FULL.contains(&number) => Kind::Full,
            Ok(number) if number & 0xff == SQLITE_BUSY => Kind::Unreachable,
            Ok(_) | Err(_) => Kind::Other,
        };
    }
    match code {
        "53100" => Kind::Full,
        // Connection exceptions; too many connections; the server is stopped, starts or recovers.
        _ if code.starts_with("08") || code.starts_with("57P") => Kind::Unreachable,
        "53300" | "53400" | "57014" => Kind::Unreachable,
        _ => Kind::Other,
    }
}
