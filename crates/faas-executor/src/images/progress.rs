//! How far a pull or an import has come.

use serde::Serialize;

use super::digest::Digest;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The registry is asked what the image consists of.
    Resolving,
    /// An archive is received, or decompressed as a whole.
    Receiving,
    /// A layer is fetched and unpacked at the same time.
    Unpacking,
    /// The layer was there already.
    Present,
    /// The layer is unpacked.
    Unpacked,
    /// The layers are laid over each other.
    Merging,
    /// What was written is brought to the disk.
    Committing,
}

impl Phase {
    /// Its name, as it is serialized.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolving => "resolving",
            Self::Receiving => "receiving",
            Self::Unpacking => "unpacking",
            Self::Present => "present",
            Self::Unpacked => "unpacked",
            Self::Merging => "merging",
            Self::Committing => "committing",
        }
    }
}

/// One step of a pull or an import. Steps of one layer come in order, those of several layers mixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// The layer, as it is called in the registry or archive.
    pub layer: Option<Digest>,
    /// Bytes of it that have come, as they come: compressed.
    pub done_bytes: u64,
    /// How many there are, where that is known.
    pub total_bytes: Option<u64>,
}

impl Progress {
    /// A step that is not one layer's.
    pub(crate) const fn of(phase: Phase) -> Self {
        Self { phase, layer: None, done_bytes: 0, total_bytes: None }
    }
}

/// Takes the steps. It is called from the task that does the work and must not block.
pub(crate) type Sink<'a> = &'a (dyn Fn(Progress) + Send + Sync);
