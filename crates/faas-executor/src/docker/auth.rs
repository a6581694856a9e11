//! Credentials in the form in which an engine takes them along with a pull.

use std::path::Path;

use bollard::auth::DockerCredentials;

use crate::registry_auth::{self, Credentials, DOCKER_HUB, DOCKER_HUB_KEY, Found};

/// Reads the credentials for `registry`, a host with or without a port; `None` stands for the engine's default
/// registry, which the engine calls `default_key`. Nothing where the file has none, or there is no file. Blocks.
///
/// # Errors
/// What is wrong, in one sentence.
pub(super) fn read(
    path: &Path,
    registry: Option<&str>,
    default_key: &str,
) -> Result<Option<DockerCredentials>, String> {
    let registry =
        registry.unwrap_or(if default_key == DOCKER_HUB_KEY { DOCKER_HUB } else { host_of(default_key) });
    let address = if registry == DOCKER_HUB { DOCKER_HUB_KEY } else { registry };
    let base = DockerCredentials { serveraddress: Some(address.to_owned()), ..DockerCredentials::default() };
    match registry_auth::find(path, registry).map_err(|error| error.to_string())? {
        Found::Nothing => Ok(None),
        Found::InHelper(helper) => Err(format!(
            "those for {registry} are kept by docker-credential-{helper}, which is not asked; log in with \
             `docker login` and without it"
        )),
        Found::Credentials(Credentials::IdentityToken(token)) => {
            Ok(Some(DockerCredentials { identitytoken: Some(token), ..base }))
        }
        Found::Credentials(Credentials::Basic { user, password }) => {
            Ok(Some(DockerCredentials { username: Some(user), password: Some(password), ..base }))
        }
    }
}

/// The host of a key, which may be a URL (an old form that is still written for the default registry).
fn host_of(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn the_engines_default_registry_has_its_own_entry() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let auths = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YW5uOmh1Yg=="},
            "mirror.example":{"username":"u","password":"p"}},"credHelpers":{"kept.example":"x"}}"#;
        std::fs::write(&path, auths).unwrap();
        let user =
            |registry, default| read(&path, registry, default).unwrap().and_then(|found| found.username);
        assert_eq!(user(None, "https://index.docker.io/v1/").as_deref(), Some("ann"));
        assert_eq!(user(Some("docker.io"), "").as_deref(), Some("ann"));
        assert_eq!(user(None, "https://mirror.example/v1/").as_deref(), Some("u"));
        assert_eq!(user(Some("other.example"), ""), None);
        assert!(read(&path, Some("kept.example"), "").unwrap_err().contains("docker-credential-x"));
        assert!(read(&dir.path().join("none"), None, "").unwrap().is_none());
    }
}
