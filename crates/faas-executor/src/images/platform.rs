//! Platforms, in the words of the OCI image specification.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an image was built for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    /// The operating system.
    #[serde(default)]
    pub(crate) os: String,
    /// The processor, in Go's words.
    #[serde(default)]
    pub(crate) architecture: String,
    /// A variant of the processor.
    #[serde(default)]
    pub(crate) variant: Option<String>,
}

/// This machine's processor.
const ARCHITECTURE: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"aarch64" => "arm64",
    _ => std::env::consts::ARCH,
};

impl Platform {
    /// What this machine runs.
    pub(crate) fn here() -> Self {
        Self { os: "linux".to_owned(), architecture: ARCHITECTURE.to_owned(), variant: None }
    }

    /// Whether this machine runs it. Early images name no platform.
    pub(crate) fn runs_here(&self) -> bool {
        let is = |value: &str, here| value.is_empty() || value == here;
        is(&self.os, "linux") && is(&self.architecture, ARCHITECTURE)
    }

    /// Whether it stands for something else than an image: attestations have `unknown/unknown`.
    pub(crate) fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |text: &str| match text {
            "" => "unknown".to_owned(),
            text => text.chars().take(32).collect::<String>().escape_debug().to_string(),
        };
        write!(f, "{}/{}", part(&self.os), part(&self.architecture))?;
        self.variant.as_deref().map_or(Ok(()), |variant| write!(f, "/{}", part(variant)))
    }
}

#[cfg(test)]
mod tests {
    use super::Platform;

    #[test]
    fn only_this_machines_platform_runs_here() {
        assert!(Platform::here().runs_here());
        assert!(Platform { variant: Some("v8".into()), ..Platform::here() }.runs_here());
        assert!(!Platform { os: "windows".into(), ..Platform::here() }.runs_here());
        assert!(!Platform { architecture: "s390x".into(), ..Platform::here() }.runs_here());
    }
}
