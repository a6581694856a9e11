//! Pulls an image from its registry.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::config::{MAX_CONFIG_BYTES, ParsedConfig};
use super::digest::Digest;
use super::error::ImageError;
use super::ingest::{Blobs, LayerPlan, Opening, Plan, ingest};
use super::lease::ImageLease;
use super::manifest::{Document, Manifest, pick};
use super::names::{ImageName, Version, Wanted};
use super::progress::{Phase, Progress, Sink};
use super::registry::Session;
use super::store::Inner;

/// How many indexes may lead to one another.
pub(super) const MAX_INDEXES: usize = 3;

struct OfRegistry<'a> {
    session: &'a Session,
    layers: Vec<Digest>,
}

impl Blobs for OfRegistry<'_> {
    fn open(&self, layer: usize) -> Opening<'_> {
        Box::pin(async move { self.session.blob_stream(&self.layers[layer]).await })
    }
}

/// Pulls `name`, and leases it.
pub(super) async fn pull(
    inner: &Arc<Inner>,
    name: &ImageName,
    sink: Sink<'_>,
) -> Result<ImageLease, ImageError> {
    sink(Progress::of(Phase::Resolving));
    // What a digest stands for cannot have changed.
    if matches!(name.version(), Version::Digest(_)) {
        let index = inner.index()?;
        let found = index.find(&Wanted::Name(name.clone())).and_then(|id| Some((id, index.images.get(&id)?)));
        if let Some((id, image)) = found
            && let Some(lease) = inner.lease(id, image)?
        {
            return Ok(lease);
        }
    }
    let session = inner.registries.session(name).await?;
    let mut repo_digests = BTreeSet::new();
    let manifest = manifest(&session, name, &mut repo_digests).await?;
    let config = session.blob(&manifest.config.digest, MAX_CONFIG_BYTES).await?;
    let mut plan = plan(&name.to_string(), &config, &manifest)?;
    plan.names = vec![name.to_string()];
    plan.repo_digests = repo_digests;
    let layers = manifest.layers.iter().map(|layer| layer.digest).collect();
    ingest(inner, &plan, &OfRegistry { session: &session, layers }, sink).await
}

async fn manifest(
    session: &Session,
    name: &ImageName,
    repo_digests: &mut BTreeSet<String>,
) -> Result<Manifest, ImageError> {
    let mut version = name.version().clone();
    for _ in 0..MAX_INDEXES {
        let (bytes, digest) = session.manifest(&version).await?;
        repo_digests.insert(name.with_digest(digest).to_string());
        match document(&name.to_string(), &bytes)? {
            Document::Manifest(manifest) => return Ok(manifest),
            Document::Index(entries) => {
                version = Version::Digest(pick(&name.to_string(), &entries)?.digest);
            }
        }
    }
    Err(ImageError::Unsupported {
        image: name.to_string(),
        reason: format!("more than {MAX_INDEXES} indexes lead to one another"),
    })
}

/// Reads a manifest or index.
pub(super) fn document(image: &str, bytes: &[u8]) -> Result<Document, ImageError> {
    Document::parse(bytes)
        .map_err(|error| ImageError::Unsupported { image: image.to_owned(), reason: error.to_string() })
}

/// Checks that the parts of an image fit each other and this machine.
pub(super) fn plan(image: &str, config: &[u8], manifest: &Manifest) -> Result<Plan, ImageError> {
    let (id, config) = (Digest::of(config), parse_config(image, config)?);
    if config.diff_ids.len() != manifest.layers.len() {
        return Err(ImageError::Unsupported {
            image: image.to_owned(),
            reason: format!(
                "its manifest has {} layers and its configuration {}",
                manifest.layers.len(),
                config.diff_ids.len()
            ),
        });
    }
    let layers = config.diff_ids.iter().zip(&manifest.layers);
    let layers = layers
        .map(|(diff_id, layer)| LayerPlan { diff_id: *diff_id, blob: Some(layer.digest), size: layer.size })
        .collect();
    Ok(Plan { id, config, layers, names: Vec::new(), repo_digests: BTreeSet::new() })
}

/// Reads a configuration and checks that it is one for this machine.
pub(super) fn parse_config(image: &str, config: &[u8]) -> Result<ParsedConfig, ImageError> {
    let config = ParsedConfig::parse(config)
        .map_err(|error| ImageError::Unsupported { image: image.to_owned(), reason: error.to_string() })?;
    if !config.platform.runs_here() {
        return Err(ImageError::WrongArchitecture {
            image: image.to_owned(),
            wanted: super::platform::Platform::here().to_string(),
            found: config.platform.to_string(),
        });
    }
    Ok(config)
}
