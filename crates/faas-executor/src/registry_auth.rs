//! Credentials for registries: read from Docker's own `config.json`, given only to the registry that they belong to.
//! Programs that keep credentials (`credsStore`, `credHelpers`) are not run.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// The largest `config.json`.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The registry of names without one.
pub(crate) const DOCKER_HUB: &str = "docker.io";

/// Docker Hub under its name in `config.json`.
pub(crate) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What a registry may be shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A user's name and password.
    Basic { user: String, password: String },
    /// A refresh token (the distribution project's "OAuth2 Token Authentication").
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never in a log.
        f.write_str("Credentials")
    }
}

/// What there is for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Credentials(Credentials),
    /// A program would have to be asked, which is not done.
    InHelper(String),
}

/// Why a `config.json` cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("{path}: {reason}")]
    File { path: String, reason: String },
    #[error("the entry for {registry} in docker's config.json is no base64 of USER:PASSWORD")]
    Entry { registry: String },
}

#[derive(Default, Deserialize)]
struct Raw {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, Entry>,
    #[serde(rename = "credsStore", default)]
    store: Option<String>,
    #[serde(rename = "credHelpers", default)]
    helpers: std::collections::BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(rename = "identitytoken", default)]
    identity_token: String,
}

/// Reads what a `config.json` has for a registry. A file that is not there has nothing. Blocks.
pub(crate) fn find(path: &Path, registry: &str) -> Result<Found, AuthError> {
    let failed = |reason: String| AuthError::File { path: path.display().to_string(), reason };
    let bytes = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(failed(error.to_string())),
        Ok(file) => {
            let mut bytes = Vec::new();
            let mut file = std::io::Read::take(file, MAX_CONFIG_BYTES + 1);
            std::io::Read::read_to_end(&mut file, &mut bytes).map_err(|error| failed(error.to_string()))?;
            bytes
        }
    };
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        return Err(failed("it is larger than docker's configuration can be".to_owned()));
    }
    // Where a parser fails it may quote what it read, and that may be a password.
    let raw: Raw = serde_json::from_slice(&bytes)
        .map_err(|error| failed(format!("it is no JSON of docker's at line {}", error.line())))?;
    look_up(&raw, registry)
}

fn look_up(raw: &Raw, registry: &str) -> Result<Found, AuthError> {
    if let Some((_, helper)) = raw.helpers.iter().find(|(key, _)| names_registry(key, registry)) {
        return Ok(Found::InHelper(helper.clone()));
    }
    let entry = raw.auths.iter().find(|(key, _)| names_registry(key, registry));
    let Some((_, entry)) = entry else {
        // With a store for everything nobody can say whether it has something for this registry.
        return Ok(Found::Nothing);
    };
    if !entry.identity_token.is_empty() {
        return Ok(Found::Credentials(Credentials::IdentityToken(entry.identity_token.clone())));
    }
    if !entry.auth.is_empty() {
        let wrong = || AuthError::Entry { registry: registry.to_owned() };
        let text = STANDARD.decode(entry.auth.trim()).map_err(|_| wrong())?;
        let text = String::from_utf8(text).map_err(|_| wrong())?;
        let (user, password) = text.split_once(':').ok_or_else(wrong)?;
        let password = password.trim_end_matches('\0').to_owned();
        return Ok(Found::Credentials(Credentials::Basic { user: user.to_owned(), password }));
    }
    if !entry.username.is_empty() {
        let (user, password) = (entry.username.clone(), entry.password.clone());
        return Ok(Found::Credentials(Credentials::Basic { user, password }));
    }
    // An entry without content is what `docker login` leaves when the password went to a store.
    Ok(raw.store.clone().map_or(Found::Nothing, Found::InHelper))
}

/// Whether a key of `config.json` means this registry: host and port alone count, exactly.
fn names_registry(key: &str, registry: &str) -> bool {
    if registry == DOCKER_HUB {
        return matches!(
            key,
            DOCKER_HUB_KEY | "index.docker.io" | "docker.io" | "https://index.docker.io/v1"
        );
    }
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = key.split('/').next().unwrap_or(key);
    host.eq_ignore_ascii_case(registry)
}

#[cfg(test)]
mod tests {
    use super::{Credentials, Found, Raw, look_up};

    fn found(json: &str, registry: &str) -> Found {
        look_up(&serde_json::from_str::<Raw>(json).unwrap(), registry).unwrap()
    }

    fn basic(user: &str, password: &str) -> Found {
        Found::Credentials(Credentials::Basic { user: user.to_owned(), password: password.to_owned() })
    }

    #[test]
    fn credentials_belong_to_one_registry() {
        let json = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"aHViOnB3OjE="},
            "https://r.example:5000":{"username":"u","password":"p"},
            "t.example":{"identitytoken":"token"},"r.example.evil.example":{"auth":"ZTpl"}}}"#;
        assert_eq!(found(json, "docker.io"), basic("hub", "pw:1"));
        assert_eq!(found(json, "r.example:5000"), basic("u", "p"));
        assert_eq!(
            found(json, "t.example"),
            Found::Credentials(Credentials::IdentityToken("token".to_owned()))
        );
        for other in ["r.example", "r.example:5001", "x.t.example", "index.docker.io.example", "example"] {
            assert_eq!(found(json, other), Found::Nothing, "{other}");
        }
    }

    #[test]
    fn credentials_in_a_helper_are_named_and_not_fetched() {
        let helpers = r#"{"credHelpers":{"r.example":"ecr-login"}}"#;
        assert_eq!(found(helpers, "r.example"), Found::InHelper("ecr-login".to_owned()));
        let store = r#"{"auths":{"r.example":{}},"credsStore":"desktop"}"#;
        assert_eq!(found(store, "r.example"), Found::InHelper("desktop".to_owned()));
        assert_eq!(found(store, "other.example"), Found::Nothing);
        let broken: Raw = serde_json::from_str(r#"{"auths":{"r.example":{"auth":"???"}}}"#).unwrap();
        let said = look_up(&broken, "r.example").unwrap_err().to_string();
        assert!(!said.contains("???"), "{said}");
    }
}
