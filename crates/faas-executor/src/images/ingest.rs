//! From an image's parts to an image in the store, wherever the parts come from: each layer unpacked, all merged, the
//! whole committed at once.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin as Pinned;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd as _, OwnedFd};

use super::collect::StagingGuard;
use super::config::ParsedConfig;
use super::digest::Digest;
use super::error::{At as _, ImageError};
use super::feed::{Fed, Feeder};
use super::helper::{HelperError, input_pipe};
use super::index::{ImageEntry, LayerEntry};
use super::lease::{ImageLease, now_unix_ms};
use super::progress::{Phase, Progress, Sink};
use super::store::Inner;
use super::store_files::{LAYER_SEAL, Pin, Shelf, StoreFiles};
use super::unpack::job::{Job, JobError, LeftOut, Report};

/// How many layers are fetched and unpacked at once.
const LAYERS_AT_ONCE: usize = 3;

/// The bytes of a layer, as they come.
pub(super) type ByteStream = BoxStream<'static, Result<Bytes, ImageError>>;

/// A layer that is being opened.
pub(super) type Opening<'a> = Pinned<Box<dyn Future<Output = Result<ByteStream, ImageError>> + Send + 'a>>;

/// Where the layers of an image come from.
pub(super) trait Blobs: Send + Sync {
    /// Opens layer number `layer`.
    fn open(&self, layer: usize) -> Opening<'_>;
}

/// One layer that is to be had.
#[derive(Clone, Debug)]
pub(super) struct LayerPlan {
    /// The digest of its tar stream.
    pub(super) diff_id: Digest,
    /// The digest of its bytes as they come, where that is known.
    pub(super) blob: Option<Digest>,
    /// How many they are.
    pub(super) size: u64,
}

impl LayerPlan {
    /// What it is called where it comes from.
    fn name(&self) -> Digest {
        self.blob.unwrap_or(self.diff_id)
    }
}

/// An image that is to be had.
#[derive(Debug)]
pub(super) struct Plan {
    /// The digest of its configuration.
    pub(super) id: Digest,
    pub(super) config: ParsedConfig,
    /// The lowest first.
    pub(super) layers: Vec<LayerPlan>,
    /// Names that it gets.
    pub(super) names: Vec<String>,
    pub(super) repo_digests: BTreeSet<String>,
}

/// The first line of a layer's `meta`.
#[derive(Debug, Serialize, Deserialize)]
struct LayerMeta {
    bytes: u64,
    entries: u64,
    left_out: LeftOut,
}

/// A layer in its place, which stays there for as long as this lives.
struct ReadyLayer {
    pin: Pin,
    bytes: u64,
}

/// Disk that an image may take while it is made.
struct Budget {
    used: AtomicU64,
    max: u64,
}

/// Has an image in the store, and leases it.
pub(super) async fn ingest(
    inner: &Arc<Inner>,
    plan: &Plan,
    blobs: &dyn Blobs,
    sink: Sink<'_>,
) -> Result<ImageLease, ImageError> {
    let unfinished = Unfinished(Some(Arc::clone(inner)));
    let result = make(inner, plan, blobs, sink).await;
    unfinished.end(result.is_ok()).await;
    result
}

/// Sees to it that layers are removed that were unpacked for an image which did not come to be, and that nobody else
/// wants: now, or in the background when the caller has gone away.
struct Unfinished(Option<Arc<Inner>>);

impl Unfinished {
    async fn end(mut self, is_made: bool) {
        let inner = self.0.take().filter(|_| !is_made);
        if let Some(inner) = inner {
            // Layers that were being unpacked when another one failed.
            inner.settled().await;
            clear_up(&inner).await;
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(inner) = self.0.take() {
            let clearing = Arc::clone(&inner);
            inner.in_background(async move { clear_up(&clearing).await });
        }
    }
}

async fn clear_up(inner: &Arc<Inner>) {
    if let Err(error) = inner.clear_up().await {
        tracing::warn!(%error, "cannot clear up after an image that could not be had");
    }
}

async fn make(
    inner: &Arc<Inner>,
    plan: &Plan,
    blobs: &dyn Blobs,
    sink: Sink<'_>,
) -> Result<ImageLease, ImageError> {
    if let Some(lease) = add_names(inner, plan).await? {
        return Ok(lease);
    }
    let budget = Budget { used: AtomicU64::new(0), max: inner.config.max_bytes };
    let layers: Vec<_> = plan
        .layers
        .iter()
        .enumerate()
        .map(|(number, layer)| ready_layer(inner, number, layer, blobs, &budget, sink))
        .collect();
    let layers: Vec<ReadyLayer> = stream::iter(layers).buffered(LAYERS_AT_ONCE).try_collect().await?;
    sink(Progress::of(Phase::Merging));
    let mut staging = inner.staging().await?;
    let made = merge_and_commit(inner, plan, &layers, &mut staging, sink).await;
    staging.remove().await;
    made
}

/// An image that is there already only gets the names.
async fn add_names(inner: &Arc<Inner>, plan: &Plan) -> Result<Option<ImageLease>, ImageError> {
    let (id, names, repo_digests) = (plan.id, plan.names.clone(), plan.repo_digests.clone());
    inner
        .blocking(move |inner| {
            let lock = inner.files.lock()?;
            let Some(image) = inner.index()?.images.get(&id).cloned() else { return Ok(None) };
            let Some(lease) = inner.lease(id, &image)? else { return Ok(None) };
            let index = inner.index()?;
            let is_new = names.iter().any(|name| index.names.get(name) != Some(&id))
                || !repo_digests.is_subset(&image.repo_digests);
            if is_new {
                inner.add(&lock, id, ImageEntry { repo_digests, ..image }, &names)?;
            }
            Ok(Some(lease))
        })
        .await
}

/// Finds a layer in its place or puts it there.
async fn ready_layer(
    inner: &Arc<Inner>,
    number: usize,
    layer: &LayerPlan,
    blobs: &dyn Blobs,
    budget: &Budget,
    sink: Sink<'_>,
) -> Result<ReadyLayer, ImageError> {
    // Two images that want the same layer at the same time get it once.
    let turn = inner.turn_for(layer.diff_id);
    let _turn = turn.lock().await;
    let step = |phase, done_bytes| {
        sink(Progress { phase, layer: Some(layer.name()), done_bytes, total_bytes: Some(layer.size) });
    };
    if let Some(ready) = find_layer(inner, layer.diff_id).await? {
        step(Phase::Present, layer.size);
        return Ok(ready);
    }
    step(Phase::Unpacking, 0);
    let source = blobs.open(number).await?;
    let mut staging = inner.staging().await?;
    let ready =
        unpack_layer(inner, layer, source, &mut staging, budget, &|done| step(Phase::Unpacking, done)).await;
    staging.remove().await;
    let ready = ready?;
    step(Phase::Unpacked, layer.size);
    Ok(ready)
}

async fn find_layer(inner: &Arc<Inner>, diff_id: Digest) -> Result<Option<ReadyLayer>, ImageError> {
    inner.blocking(move |inner| pin_layer(inner, diff_id)).await
}

fn pin_layer(inner: &Inner, diff_id: Digest) -> Result<Option<ReadyLayer>, ImageError> {
    let path = inner.files.path_of(Shelf::Layers, &diff_id);
    let Some(pin) = inner.files.pin(Shelf::Layers, &diff_id).at(&path)? else { return Ok(None) };
    let meta = LAYER_SEAL.read(&pin, "meta").at(&path.join("meta"))?;
    let end = meta.iter().position(|byte| *byte == b'\n').unwrap_or(meta.len());
    let meta: LayerMeta =
        serde_json::from_slice(&meta[..end]).map_err(std::io::Error::from).at(&path.join("meta"))?;
    Ok(Some(ReadyLayer { pin, bytes: meta.bytes }))
}

async fn unpack_layer(
    inner: &Arc<Inner>,
    layer: &LayerPlan,
    source: ByteStream,
    staging: &mut StagingGuard,
    budget: &Budget,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<ReadyLayer, ImageError> {
    let root = staging.with(|inner, staging| inner.files.make_tree(staging, "layer")).await?;
    let (sender, input) =
        input_pipe().map_err(|error| HelperError::Died(error.to_string()).into_internal())?;
    let job = Job::Unpack {
        max_bytes: budget.max.saturating_sub(budget.used.load(Ordering::Relaxed)),
        max_entries: inner.config.max_entries,
    };
    let running = inner.helper.start(job, &[root.as_fd(), input.as_fd()], &[]).await;
    let running = running.map_err(HelperError::into_internal)?;
    drop(input);
    let mut charged = 0;
    let charge = |used: u64| {
        let before = budget.used.fetch_add(used.saturating_sub(charged), Ordering::Relaxed);
        let now = before.saturating_add(used.saturating_sub(charged));
        charged = charged.max(used);
        now <= budget.max
    };
    let mut feeder = Feeder::new(source, layer.size);
    let (fed, unpacked) = tokio::join!(feeder.feed(sender, progress), running.finish(charge));
    let blame = |reason: String| ImageError::CorruptLayer { layer: layer.name(), reason };
    let too_large = |reason: String| ImageError::TooLarge { what: format!("layer {}", layer.name()), reason };
    // Bytes that are not the promised ones explain whatever else went wrong.
    let digest = match (fed?, &unpacked) {
        (Fed::All(digest), _) => Some(digest),
        (Fed::Unwanted, Err(HelperError::Job(JobError::Corrupt(_)))) => Some(feeder.rest().await?),
        (Fed::Unwanted, _) => None,
    };
    if let (Some(actual), Some(expected)) = (digest, layer.blob)
        && actual != expected
    {
        return Err(ImageError::DigestMismatch { what: format!("layer {expected}"), expected, actual });
    }
    let (report, marks) = unpacked.map_err(|error| match error {
        HelperError::Job(JobError::Corrupt(reason)) => blame(reason),
        HelperError::Job(JobError::TooLarge(reason)) => too_large(reason),
        HelperError::Stopped => {
            too_large(format!("with the image's other layers it takes more than {} bytes", budget.max))
        }
        other => other.into_internal(),
    })?;
    if report.digest != Some(layer.diff_id) {
        let actual =
            report.digest.ok_or_else(|| ImageError::Helper { reason: "it gave no digest".to_owned() })?;
        let what = format!("the content of layer {}", layer.name());
        return Err(ImageError::DigestMismatch { what, expected: layer.diff_id, actual });
    }
    put_layer(layer.diff_id, report, marks, staging).await
}

/// Moves an unpacked layer to its place.
async fn put_layer(
    diff_id: Digest,
    report: Report,
    marks: Vec<u8>,
    staging: &mut StagingGuard,
) -> Result<ReadyLayer, ImageError> {
    staging
        .with(move |inner, staging| {
            let path = inner.files.path_of(Shelf::Layers, &diff_id);
            let meta = LayerMeta { bytes: report.bytes, entries: report.entries, left_out: report.left_out };
            let mut bytes = serde_json::to_vec(&meta).map_err(std::io::Error::from).at(&path)?;
            bytes.push(b'\n');
            bytes.extend_from_slice(&marks);
            let dir = StoreFiles::open_in(staging, "layer").at(&path)?;
            LAYER_SEAL.write(&dir, "meta", &bytes, None).at(&path)?;
            loop {
                let lock = inner.files.lock()?;
                inner.files.put(&lock, staging, "layer", Shelf::Layers, &diff_id).at(&path)?;
                // Ours, or the same one that another process has put there meanwhile.
                if let Some(ready) = pin_layer(inner, diff_id)? {
                    return Ok(ready);
                }
            }
        })
        .await
}

async fn merge_and_commit(
    inner: &Arc<Inner>,
    plan: &Plan,
    layers: &[ReadyLayer],
    staging: &mut StagingGuard,
    sink: Sink<'_>,
) -> Result<ImageLease, ImageError> {
    let target = staging.with(|inner, staging| inner.files.make_tree(staging, "image")).await?;
    let path = inner.files.path().to_owned();
    let opened = layers
        .iter()
        .map(|layer| {
            let meta = std::fs::File::from(open_file(&layer.pin, "meta")?).into();
            Ok([StoreFiles::open_root(&layer.pin)?, meta])
        })
        .collect::<std::io::Result<Vec<[OwnedFd; 2]>>>()
        .at(&path)?;
    let fds: Vec<_> = opened.iter().map(|[root, meta]| vec![root.as_fd(), meta.as_fd()]).collect();
    let job = Job::Merge { layers: fds.len() };
    let running =
        inner.helper.start(job, &[target.as_fd()], &fds).await.map_err(HelperError::into_internal)?;
    let (report, _) = running.finish(|_| true).await.map_err(HelperError::into_internal)?;
    sink(Progress::of(Phase::Committing));
    inner.blocking(|inner| inner.files.sync()).await?;

    let entries = plan.layers.iter().zip(layers);
    let image = ImageEntry {
        config: Arc::new(plan.config.config.clone()),
        layers: entries
            .map(|(plan, ready)| LayerEntry { diff_id: plan.diff_id, bytes: ready.bytes })
            .collect(),
        own_bytes: report.bytes,
        added_unix_ms: now_unix_ms(),
        repo_digests: plan.repo_digests.clone(),
    };
    let (id, names) = (plan.id, plan.names.clone());
    staging
        .with(move |inner, staging| {
            let lock = inner.files.lock()?;
            let path = inner.files.path_of(Shelf::Images, &id);
            // One that is there and in no index was evicted or removed while it was in use: it is the same.
            inner.files.put(&lock, staging, "image", Shelf::Images, &id).at(&path)?;
            inner.add(&lock, id, image.clone(), &names)?;
            let lease = inner.lease(id, &image)?;
            inner.sweep(&lock, staging)?;
            lease.ok_or_else(|| ImageError::Store { reason: format!("image {id} is gone at once") })
        })
        .await
}

fn open_file(dir: &Pin, name: &str) -> std::io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, rustix::fs::Mode::empty())?)
}

/// For each layer that is being unpacked, who does it.
pub(super) type Turns = HashMap<Digest, std::sync::Weak<tokio::sync::Mutex<()>>>;
