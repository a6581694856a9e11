//! What an image says of itself: its configuration (OCI image specification, "Image Configuration").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::platform::Platform;

/// The largest configuration.
pub(crate) const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// The most variables of an image's environment, and the longest of its strings.
const MAX_ENV: usize = 4096;
const MAX_STRING_BYTES: usize = 128 << 10;

/// How programs of an image are run, as far as the image says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Environment variables, in the image's order; no name is empty or has `=` or NUL in it.
    pub env: Vec<(String, String)>,
    /// Where programs start; absolute.
    pub working_dir: String,
    /// As whom they run: `user`, `uid`, `user:group` or empty.
    pub user: String,
    /// The main program with its first arguments.
    pub entrypoint: Vec<String>,
    /// The main program's arguments, or the main program where there is no entrypoint.
    pub cmd: Vec<String>,
    /// The processor that it is for, in Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// What whoever built it says of it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When it was built, as the image has it (RFC 3339).
    pub created: Option<String>,
}

/// A configuration with what only the store needs.
#[derive(Clone, Debug)]
pub(crate) struct ParsedConfig {
    pub(crate) config: ImageConfig,
    pub(crate) platform: Platform,
    /// The digests of the layers' tar streams, the lowest first.
    pub(crate) diff_ids: Vec<Digest>,
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("the image's configuration is no valid JSON: {0}")]
    Json(String),
    #[error(
        "the image's configuration has {0} with a NUL character or of more than {MAX_STRING_BYTES} bytes"
    )]
    Text(&'static str),
    #[error("the image's configuration has more than {MAX_ENV} variables")]
    Env,
    #[error("the image's root file system is of the unknown type `{0}`")]
    RootFs(String),
}

#[derive(Deserialize)]
struct Raw {
    #[serde(flatten)]
    platform: Platform,
    created: Option<String>,
    config: Option<RawRun>,
    rootfs: RawRootFs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawRun {
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RawRootFs {
    #[serde(rename = "type", default)]
    kind: String,
    diff_ids: Option<Vec<Digest>>,
}

impl ParsedConfig {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| ConfigError::Json(error.to_string()))?;
        if !matches!(raw.rootfs.kind.as_str(), "" | "layers") {
            let kind: String = raw.rootfs.kind.chars().take(40).collect();
            return Err(ConfigError::RootFs(kind.escape_debug().to_string()));
        }
        let run = raw.config.unwrap_or_default();
        let env = run.env.unwrap_or_default();
        if env.len() > MAX_ENV {
            return Err(ConfigError::Env);
        }
        let env = texts(env, "a variable")?;
        let env = env.into_iter().filter_map(|variable| {
            // A variable without a value says nothing, and one without a name cannot be set.
            let (name, value) = variable.split_once('=')?;
            (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
        });
        let working_dir = text(run.working_dir.unwrap_or_default(), "a working directory")?;
        let config = ImageConfig {
            env: env.collect(),
            working_dir: if working_dir.starts_with('/') { working_dir } else { format!("/{working_dir}") },
            user: text(run.user.unwrap_or_default(), "a user")?,
            entrypoint: texts(run.entrypoint.unwrap_or_default(), "an entrypoint")?,
            cmd: texts(run.cmd.unwrap_or_default(), "a command")?,
            architecture: text(raw.platform.architecture.clone(), "an architecture")?,
            labels: run.labels.unwrap_or_default(),
            created: raw.created.filter(|created| created.len() <= 64),
        };
        Ok(Self { config, platform: raw.platform, diff_ids: raw.rootfs.diff_ids.unwrap_or_default() })
    }
}

fn text(text: String, what: &'static str) -> Result<String, ConfigError> {
    if text.len() > MAX_STRING_BYTES || text.contains('\0') { Err(ConfigError::Text(what)) } else { Ok(text) }
}

fn texts(list: Vec<String>, what: &'static str) -> Result<Vec<String>, ConfigError> {
    list.into_iter().map(|one| text(one, what)).collect()
}

#[cfg(test)]
mod tests {
    use super::{ConfigError, ParsedConfig};

    #[test]
    fn what_programs_need_is_read() {
        let parsed = ParsedConfig::parse(
            br#"{"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z","history":[{}],
                "config":{"Env":["PATH=/bin","EMPTY=","broken","=x","A=b=c"],"WorkingDir":"srv","User":"1:2",
                "Entrypoint":["/e"],"Cmd":null,"Labels":{"a":"b"}},"rootfs":{"type":"layers","diff_ids":[]}}"#,
        )
        .unwrap();
        let config = parsed.config;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(config.env, [pair("PATH", "/bin"), pair("EMPTY", ""), pair("A", "b=c")]);
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/srv", "1:2"));
        assert_eq!((config.entrypoint, config.cmd), (vec!["/e".to_owned()], vec![]));
        assert_eq!(config.labels, [("a".to_owned(), "b".to_owned())].into());
        assert!(parsed.platform.os == "linux" && parsed.diff_ids.is_empty());
        let least = ParsedConfig::parse(br#"{"rootfs":{"diff_ids":null}}"#).unwrap();
        assert_eq!(least.config.working_dir, "/");
    }

    #[test]
    fn what_cannot_be_passed_to_a_program_is_refused() {
        for wrong in [
            r#"{"config":{"Env":["A=\u0000"]},"rootfs":{}}"#,
            r#"{"config":{"User":"\u0000"},"rootfs":{}}"#,
            r#"{"rootfs":{"type":"vm"}}"#,
            r#"{"rootfs":{"diff_ids":["sha256:.."]}}"#,
            r#"{}"#,
            "[]",
        ] {
            assert!(ParsedConfig::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let long = format!(r#"{{"config":{{"User":"{}"}},"rootfs":{{}}}}"#, "x".repeat(200_000));
        assert!(matches!(ParsedConfig::parse(long.as_bytes()), Err(ConfigError::Text(_))));
    }
}
