//! `/api/v1/images`: what can be asked of the image store and what is answered.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{EnvVars, Problem};

/// The body of `POST /api/v1/images` that has an image pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    /// The image: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`. Without a host it is one of Docker Hub's, without a tag `latest`.
    pub name: String,
}

/// One image of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageInfo {
    /// The digest of its configuration: `sha256:` and 64 digits. Can be used wherever a name can.
    pub id: String,
    /// Its names, whole: `docker.io/library/alpine:latest`.
    pub names: Vec<String>,
    /// `REGISTRY/REPOSITORY@DIGEST` of what it was pulled from.
    pub repo_digests: Vec<String>,
    /// The processor that it is for, in Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// When it was built, as the image says it (RFC 3339), or null.
    pub created_at: Option<String>,
    /// Disk that it takes, in bytes, layers that other images have too included.
    pub size_bytes: u64,
    /// How many layers it has.
    pub layers: usize,
    /// When it came to the store (RFC 3339).
    pub added_at: String,
    /// When it was last used, to a minute (RFC 3339).
    pub last_used_at: String,
    /// Whether a sandbox uses it now; it cannot be removed then.
    pub in_use: bool,
    /// Environment variables of its programs.
    pub env_vars: EnvVars,
    /// Where its programs start.
    pub working_dir: String,
    /// As whom its programs run: `user`, `uid`, `user:group`, or empty for root.
    pub user: String,
    /// Its main program with the first arguments.
    pub entrypoint: Vec<String>,
    /// The main program's arguments, or the main program where there is no entrypoint.
    pub cmd: Vec<String>,
}

/// The answer to `POST /api/v1/images`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImagesAdded {
    /// The image that was pulled, or those of the archive.
    pub images: Vec<ImageInfo>,
}

/// One event of `POST /api/v1/images` as a stream.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ImageEvent {
    /// How far it has come. Steps of one layer come in order, those of several layers mixed; some may be left out.
    Progress(ImageProgress),
    /// The last event of what went well.
    Done(ImagesAdded),
    /// The last event of what did not.
    Error(Problem),
}

/// How far a pull or an import has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageProgress {
    /// What is being done: `resolving`, `receiving`, `unpacking`, `present` (the layer was there already), `unpacked`,
    /// `merging` or `committing`.
    pub phase: String,
    /// The digest of the layer that it is about, or null.
    pub layer: Option<String>,
    /// Bytes that have come, as they come: compressed.
    pub done_bytes: u64,
    /// How many there are, where that is known.
    pub total_bytes: Option<u64>,
}
