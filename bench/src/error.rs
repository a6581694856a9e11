//! Why a bench could not be carried through.

use std::path::{Path, PathBuf};

/// Why a bench stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// An operation on a path failed.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// The server did not start.
    #[error("the server did not start: {0}")]
    Server(String),
    /// An answer of the server was not what the bench relies on.
    #[error("unexpected answer: {0}")]
    Answer(String),
    /// A measured command did not do its work.
    #[error("{variant}: {reason}")]
    Variant { variant: String, reason: String },
    /// The process that spawns the peers failed.
    #[error("helper process: {0}")]
    Helper(String),
    /// The Docker engine is not what the bench needs.
    #[error("Docker engine: {0}")]
    Engine(String),
    /// An image could not be made.
    #[error("image: {0}")]
    Image(String),
    /// The file system that a bench runs in could not be made.
    #[error("disk: {0}")]
    Disk(String),
    /// A result could not be written or read as JSON.
    #[error("{}: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
}

impl BenchError {
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { path, source }
    }
}
