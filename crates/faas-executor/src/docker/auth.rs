//! Credentials for one registry, from Docker's own `config.json`. Programs that keep credentials (`credsStore`,
//! `credHelpers`) are not run.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;

/// Far more than a person's registries take.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    auths: HashMap<String, Entry>,
}

#[derive(Debug, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: Option<String>,
}

/// Reads the credentials for `registry`, a host with or without a port; `None` stands for the engine's default
/// registry, whose key is `default_key`. Nothing where the file has none, or there is no file.
///
/// # Errors
/// What is wrong with the file, in one sentence.
pub(super) fn read(
    path: &Path,
    registry: Option<&str>,
    default_key: &str,
) -> Result<Option<DockerCredentials>, String> {
    let bad = |reason: String| format!("{}: {reason}", path.display());
    let text = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(bad(error.to_string())),
        Ok(metadata) if metadata.len() > MAX_BYTES => return Err(bad("it is too large".to_owned())),
        Ok(_) => std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?,
    };
    find(&text, registry, default_key).map_err(bad)
}

fn find(text: &str, registry: Option<&str>, default_key: &str) -> Result<Option<DockerCredentials>, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let wanted = registry.unwrap_or_else(|| host_of(default_key));
    let Some((key, entry)) = file.auths.into_iter().find(|(key, _)| host_of(key) == wanted) else {
        return Ok(None);
    };
    let mut credentials =
        DockerCredentials { serveraddress: Some(key.clone()), ..DockerCredentials::default() };
    if let Some(token) = entry.identitytoken.filter(|token| !token.is_empty()) {
        credentials.identitytoken = Some(token);
        return Ok(Some(credentials));
    }
    if entry.auth.is_empty() {
        // A key alone says that a helper has the credentials.
        return Ok(None);
    }
    let pair = STANDARD.decode(&entry.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = pair.ok_or_else(|| format!("the entry for {key} is not base64"))?;
    let (name, password) =
        pair.split_once(':').ok_or_else(|| format!("the entry for {key} has no password"))?;
    credentials.username = Some(name.to_owned());
    credentials.password = Some(password.trim_end_matches('\0').to_owned());
    Ok(Some(credentials))
}

/// The host of a key, which may be a URL (an old form that is still written for the default registry).
fn host_of(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::{STANDARD, find};

    const DEFAULT: &str = "https://index.example/v1/";

    fn file() -> String {
        let auth = |pair: &str| STANDARD.encode(pair);
        serde_json::json!({
            "auths": {
                DEFAULT: {"auth": auth("ann:hub")},
                "registry.example:5000": {"auth": auth("bob:se:cret")},
                "token.example": {"auth": auth("x:"), "identitytoken": "t"},
                "helper.example": {},
                "broken.example": {"auth": "%"},
            },
            "credsStore": "desktop",
        })
        .to_string()
    }

    fn credentials(registry: Option<&str>) -> Option<(Option<String>, Option<String>, Option<String>)> {
        let found = find(&file(), registry, DEFAULT).unwrap()?;
        Some((found.username, found.password, found.identitytoken))
    }

    #[test]
    fn each_registry_gets_its_own_credentials_and_no_other() {
        assert_eq!(credentials(None), Some((Some("ann".into()), Some("hub".into()), None)));
        let bob = (Some("bob".into()), Some("se:cret".into()), None);
        assert_eq!(credentials(Some("registry.example:5000")), Some(bob));
        assert_eq!(credentials(Some("token.example")), Some((None, None, Some("t".into()))));
        assert_eq!(credentials(Some("helper.example")), None);
        assert_eq!(credentials(Some("registry.example")), None);
    }

    #[test]
    fn a_broken_file_is_told() {
        assert!(find("{", None, DEFAULT).is_err());
        assert!(find(&file(), Some("broken.example"), DEFAULT).unwrap_err().contains("base64"));
    }
}
