//! Where the database is.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use sqlx::postgres::PgConnectOptions;

/// Where the database is.
#[derive(Clone, Debug)]
pub enum StoreLocation {
    /// A file of SQLite, made where it is missing.
    File(PathBuf),
    /// A database of a PostgreSQL server.
    Url(DatabaseUrl),
}

/// The URL of a PostgreSQL database, as `libpq` takes it. It may hold a password: it is never shown whole, not by
/// `Debug` either.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl FromStr for DatabaseUrl {
    type Err = Infallible;

    /// Takes any text, so that no error of a parser shows it: [`DatabaseUrl::check`] says what is wrong.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl DatabaseUrl {
    /// Whether it is one.
    ///
    /// # Errors
    /// What is wrong with it, in one line without a password.
    pub fn check(&self) -> Result<(), String> {
        self.options().map(drop)
    }

    /// Without the password.
    #[must_use]
    pub fn shown(&self) -> String {
        let Ok(options) = self.options() else { return "a database URL that is not valid".to_owned() };
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        let database = options.get_database().unwrap_or_default();
        format!("postgres://{}@{host}:{}/{database}", options.get_username(), options.get_port())
    }

    pub(super) fn options(&self) -> Result<PgConnectOptions, String> {
        let (scheme, _) =
            self.0.split_once("://").ok_or("it is no URL: postgres://USER:PASSWORD@HOST/DATABASE")?;
        if !["postgres", "postgresql"].contains(&scheme) {
            return Err(format!(
                "{:?} is no kind of database that this program knows; it is postgres://..., or the option is left out \
                 for SQLite in the data directory",
                scheme.chars().take(20).collect::<String>()
            ));
        }
        // The parser's errors name what it could not read, and that may be a part of a password.
        PgConnectOptions::from_str(&self.0).map_err(|_error| {
            "it cannot be parsed: postgres://USER:PASSWORD@HOST:PORT/DATABASE, with what is special in \
                               a password percent-encoded"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::DatabaseUrl;

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "postgres://ann:geheim@db.example:5433/faas",
            "postgresql://ann:geheim@db.example:5433/faas?sslmode=require",
            "postgres://ann:geheim@db.example:port/faas",
            "mysql://ann:geheim@db.example/faas",
            "geheim",
        ] {
            let url: DatabaseUrl = url.parse().unwrap();
            let shown = format!("{url:?} {} {:?}", url.shown(), url.check());
            assert!(!shown.contains("geheim"), "{shown}");
        }
        let url: DatabaseUrl = "postgres://ann:geheim@db.example:5433/faas".parse().unwrap();
        assert_eq!(url.shown(), "postgres://ann@db.example:5433/faas");
    }

    #[test]
    fn what_is_no_url_of_postgresql_is_refused() {
        let check = |url: &str| url.parse::<DatabaseUrl>().unwrap().check();
        assert!(check("postgres:///faas?host=/run/postgresql").is_ok());
        assert!(check("sqlite:store.db").unwrap_err().contains("postgres://"));
        assert!(check("mysql://h/d").unwrap_err().contains("mysql"));
        assert!(check("postgres://h:port/d").is_err());
        assert!(check("").is_err());
    }
}
