//! Why an image could not be had: one sentence each, that says what can be done.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::digest::Digest;

/// Why something with an image failed. It can be cloned, since several callers may wait for one pull.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The text is no name of an image.
    #[error("`{name}` is no name of an image: {reason}")]
    InvalidName {
        /// The text, cut and escaped.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An archive that was to be imported is none, or holds no image that can be used.
    #[error("the archive cannot be imported: {reason}")]
    InvalidArchive {
        /// What is wrong with it, and what is expected.
        reason: String,
    },
    /// The store has no such image.
    #[error("image {image} is not in the store; pull or import it first")]
    NotFound {
        /// The image.
        image: String,
    },
    /// The registry does not answer.
    #[error(
        "image {image} cannot be fetched: registry {registry} cannot be reached ({reason}); check the name, the network, \
         and whether the registry speaks plain HTTP (the option insecure_registries), or import an archive of the image"
    )]
    Unreachable {
        /// The registry.
        registry: String,
        /// The image.
        image: String,
        /// What went wrong.
        reason: String,
    },
    /// The registry knows no such image.
    #[error(
        "the registry has no image {image}; check the name and the tag, and log in if it is a private one"
    )]
    Unknown {
        /// The image.
        image: String,
    },
    /// The registry wants credentials, or other ones.
    #[error("registry {registry} refused access to {image}: {reason}")]
    Unauthorized {
        /// The registry.
        registry: String,
        /// The image.
        image: String,
        /// What was tried, and what can be done.
        reason: String,
    },
    /// The registry answered something that is against the protocol.
    #[error(
        "registry {registry} gave an unusable answer for image {image}: {reason}; try again later or another registry"
    )]
    BadAnswer {
        /// The registry.
        registry: String,
        /// The image.
        image: String,
        /// What was wrong.
        reason: String,
    },
    /// Another place on this machine has the image and it cannot be taken over from there.
    #[error("image {image} cannot be taken over from {from}: {reason}")]
    Elsewhere {
        /// The image.
        image: String,
        /// The place.
        from: &'static str,
        /// What went wrong.
        reason: String,
    },
    /// The image is for other machines.
    #[error("image {image} is not for {wanted}; it has {found}: take another tag or build it for {wanted}")]
    WrongArchitecture {
        /// The image.
        image: String,
        /// This machine's platform.
        wanted: String,
        /// The platforms that there are.
        found: String,
    },
    /// Bytes are not those that were promised.
    #[error("{what} should have digest {expected} and has {actual}; it was changed on its way: get it again")]
    DigestMismatch {
        /// What was checked.
        what: String,
        /// What was promised.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A layer cannot be unpacked.
    #[error("layer {layer} cannot be unpacked: {reason}; build the image again")]
    CorruptLayer {
        /// The digest of the layer as it is in the registry or archive.
        layer: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// The image uses something that is not supported.
    #[error("image {image} cannot be used: {reason}")]
    Unsupported {
        /// The image.
        image: String,
        /// What is not supported.
        reason: String,
    },
    /// The image, or what was uploaded, is larger than allowed.
    #[error(
        "{what} is too large: {reason}; raise the limit of the image store, or remove images that are in use"
    )]
    TooLarge {
        /// What is too large.
        what: String,
        /// Which limit it reached.
        reason: String,
    },
    /// The disk is full.
    #[error("no space left in the image store ({reason}); free some, or remove images, and try again")]
    NoSpace {
        /// What the system said, and of what.
        reason: String,
    },
    /// It took too long.
    #[error("{what} took longer than {limit_ms} ms; try again, or raise the limit")]
    TimedOut {
        /// What took so long.
        what: String,
        /// How long it might have taken.
        limit_ms: u64,
    },
    /// The image cannot be removed now.
    #[error("image {image} is in use; try again when the sandboxes that use it are gone")]
    InUse {
        /// The image.
        image: String,
    },
    /// The store cannot be used as it is configured, or as it lies on the disk.
    #[error("the image store cannot be used: {reason}")]
    Store {
        /// Why, and what can be done.
        reason: String,
    },
    /// The process that unpacks failed.
    #[error("the unpack process failed: {reason}")]
    Helper {
        /// How.
        reason: String,
    },
    /// A file of the store or of the host could not be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

/// What kind of answer an error calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageErrorKind {
    /// The name or the archive is wrong; the caller has to change it.
    Invalid,
    /// The store has no such image.
    NotFound,
    /// The image cannot be had now or not at all; the error says what can be done.
    Unavailable,
    /// There is no room.
    NoSpace,
    /// It is in use.
    InUse,
    /// A fault of this machine or program.
    Internal,
}

impl ImageError {
    /// What kind of answer this calls for.
    #[must_use]
    pub const fn kind(&self) -> ImageErrorKind {
        match self {
            Self::InvalidName { .. } | Self::InvalidArchive { .. } => ImageErrorKind::Invalid,
            Self::NotFound { .. } => ImageErrorKind::NotFound,
            Self::Unreachable { .. }
            | Self::Unknown { .. }
            | Self::Unauthorized { .. }
            | Self::BadAnswer { .. }
            | Self::Elsewhere { .. }
            | Self::WrongArchitecture { .. }
            | Self::DigestMismatch { .. }
            | Self::CorruptLayer { .. }
            | Self::Unsupported { .. }
            | Self::TimedOut { .. } => ImageErrorKind::Unavailable,
            Self::TooLarge { .. } | Self::NoSpace { .. } => ImageErrorKind::NoSpace,
            Self::InUse { .. } => ImageErrorKind::InUse,
            Self::Store { .. } | Self::Helper { .. } | Self::Io { .. } => ImageErrorKind::Internal,
        }
    }

    /// Whether the same request may succeed later without anything being changed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::BadAnswer { .. }
                | Self::Elsewhere { .. }
                | Self::DigestMismatch { .. }
                | Self::TimedOut { .. }
                | Self::NoSpace { .. }
                | Self::InUse { .. }
        )
    }

    /// `source` befell `path`; a full disk is told apart.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace { reason: source.to_string() },
            _ => Self::Io { path: path.to_owned(), source: Arc::new(source) },
        }
    }
}

/// Names the path that an error belongs to.
pub(crate) trait At<T> {
    /// Turns an error into one of `path`.
    fn at(self, path: &Path) -> Result<T, ImageError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, path: &Path) -> Result<T, ImageError> {
        self.map_err(|error| ImageError::io(path, error.into()))
    }
}
