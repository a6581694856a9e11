//! The images of the suite by name, and where a case has its files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// An image by the name of its recipe; `host` has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Image {
    Host,
    Alpine,
    Users,
    Python,
    Scratch,
}

impl Image {
    pub(crate) fn of(recipe: &str) -> Self {
        match recipe {
            "host" => Self::Host,
            "alpine" => Self::Alpine,
            "users" => Self::Users,
            "python" => Self::Python,
            "scratch" => Self::Scratch,
            other => panic!("there is no image {other}"),
        }
    }

    pub(crate) fn recipe(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Alpine => "alpine",
            Self::Users => "users",
            Self::Python => "python",
            Self::Scratch => "scratch",
        }
    }

    /// What requests call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Python => "python:3.11-slim",
            other => other.recipe(),
        }
    }
}

/// A directory that everybody may enter.
pub(crate) fn open_dir() -> tempfile::TempDir {
    let mode = fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("faas-conformance-").permissions(mode).tempdir().unwrap()
}
