//! Takes images in from archives: OCI layouts (OCI image specification, "Image Layout") and what `docker save` writes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use rustix::fs::{AtFlags, Mode, OFlags};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::archive::{Archive, Part};
use super::config::MAX_CONFIG_BYTES;
use super::digest::Digest;
use super::error::{At as _, ImageError};
use super::feed::Feeder;
use super::helper::{HelperError, input_pipe};
use super::ingest::{Blobs, ByteStream, LayerPlan, Opening, Plan, ingest};
use super::lease::ImageLease;
use super::manifest::{Descriptor, Document, MAX_MANIFEST_BYTES, Manifest, pick};
use super::names::ImageName;
use super::progress::{Phase, Progress, Sink};
use super::pull::{MAX_INDEXES, document, parse_config, plan};
use super::store::{ImportSource, Inner};
use super::unpack::Format;
use super::unpack::job::{Job, JobError};

/// The most images of one archive.
const MAX_IMAGES: usize = 64;

/// How much of an archive is received at once, and how often that is told.
const RECEIVE_BYTES: usize = 256 << 10;
const PROGRESS_BYTES: u64 = 4 << 20;

fn invalid(reason: impl Into<String>) -> ImageError {
    ImageError::InvalidArchive { reason: reason.into() }
}

/// An image of an archive.
struct Found {
    plan: Plan,
    parts: Vec<Part>,
}

struct OfArchive<'a>(&'a [Part]);

impl Blobs for OfArchive<'_> {
    fn open(&self, layer: usize) -> Opening<'_> {
        let part = self.0[layer].clone();
        Box::pin(async move { Ok(part.stream()) })
    }
}

/// Takes in all images of an archive.
pub(super) async fn import(
    inner: &Arc<Inner>,
    source: ImportSource,
    name: Option<ImageName>,
    sink: Sink<'_>,
) -> Result<Vec<ImageLease>, ImageError> {
    sink(Progress::of(Phase::Receiving));
    let archive = open(inner, source, sink).await?;
    sink(Progress::of(Phase::Resolving));
    let mut found = inner.blocking(move |_| images(&archive)).await?;
    if let Some(name) = name {
        let [image] = found.as_mut_slice() else {
            return Err(invalid(format!("it has {} images, and a name was given for one", found.len())));
        };
        image.plan.names = vec![name.to_string()];
    }
    let mut leases = Vec::with_capacity(found.len());
    for Found { plan, parts } in &found {
        leases.push(ingest(inner, plan, &OfArchive(parts), sink).await?);
    }
    Ok(leases)
}

/// Opens an archive; one that comes as a stream or compressed is put into a file without a name first.
async fn open(inner: &Arc<Inner>, source: ImportSource, sink: Sink<'_>) -> Result<Archive, ImageError> {
    let (start, rest) = match source {
        ImportSource::Path(path) => {
            let opened = inner
                .blocking(move |_| {
                    if std::fs::metadata(&path).at(&path)?.is_dir() {
                        return Archive::directory(&path).map(Ok);
                    }
                    let mut file = File::open(&path).at(&path)?;
                    let mut start = Vec::new();
                    std::io::Read::by_ref(&mut file)
                        .take(Format::MAGIC_BYTES as u64)
                        .read_to_end(&mut start)
                        .at(&path)?;
                    match Format::of(&start) {
                        Format::Plain => Archive::tar(file).map(Ok),
                        _ => Ok(Err((start, Part::of_file(file).at(&path)?))),
                    }
                })
                .await?;
            match opened {
                Ok(archive) => return Ok(archive),
                Err((start, part)) => (start, part.stream()),
            }
        }
        ImportSource::Stream(mut reader) => {
            let mut start = Vec::new();
            let read = (&mut reader).take(Format::MAGIC_BYTES as u64).read_to_end(&mut start).await;
            read.map_err(|error| invalid(format!("it cannot be received: {error}")))?;
            let first = futures_util::stream::iter([Ok(Bytes::from(start.clone()))]);
            (start, first.chain(pieces(reader)).boxed())
        }
    };
    let file = match Format::of(&start) {
        Format::Plain => spool(inner, rest, sink).await?,
        Format::Gzip | Format::Zstd => decompress(inner, rest, sink).await?,
        Format::Unsupported(name) => {
            return Err(invalid(format!("it is compressed with {name}; use gzip, zstd or nothing")));
        }
    };
    inner.blocking(move |_| Archive::tar(file)).await
}

/// The rest of a reader, piece by piece.
fn pieces(reader: Box<dyn AsyncRead + Send + Unpin>) -> ByteStream {
    futures_util::stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        let mut piece = Vec::with_capacity(RECEIVE_BYTES);
        match (&mut reader).take(RECEIVE_BYTES as u64).read_to_end(&mut piece).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(Bytes::from(piece)), Some(reader))),
            Err(error) => Some((Err(invalid(format!("it cannot be received: {error}"))), None)),
        }
    })
    .boxed()
}

/// A file in the store without a name: it goes with its last descriptor.
pub(super) async fn nameless(inner: &Arc<Inner>) -> Result<File, ImageError> {
    let mut staging = inner.staging().await?;
    let made = staging
        .with(|inner, staging| {
            let make = || {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = rustix::fs::openat(staging, "archive", flags, Mode::from_raw_mode(0o600))?;
                rustix::fs::unlinkat(staging, "archive", AtFlags::empty())?;
                Ok::<_, rustix::io::Errno>(File::from(file))
            };
            make().at(inner.files.path())
        })
        .await;
    staging.remove().await;
    made
}

fn too_large(max_bytes: u64) -> ImageError {
    ImageError::TooLarge {
        what: "the archive".to_owned(),
        reason: format!("it has more than {max_bytes} bytes"),
    }
}

async fn spool(inner: &Arc<Inner>, mut source: ByteStream, sink: Sink<'_>) -> Result<File, ImageError> {
    let max_bytes = inner.config.max_archive_bytes;
    let mut file = nameless(inner).await?;
    let (mut done, mut told) = (0u64, 0u64);
    while let Some(piece) = source.next().await.transpose()? {
        done += piece.len() as u64;
        if done > max_bytes {
            return Err(too_large(max_bytes));
        }
        file = inner
            .blocking(move |inner| {
                file.write_all(&piece).at(inner.files.path())?;
                Ok(file)
            })
            .await?;
        if done - told >= PROGRESS_BYTES {
            told = done;
            sink(Progress { done_bytes: done, ..Progress::of(Phase::Receiving) });
        }
    }
    rewind(file)
}

fn rewind(file: File) -> Result<File, ImageError> {
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).at(std::path::Path::new("archive"))?;
    Ok(file)
}

/// Decompresses an archive in the unpack process.
async fn decompress(inner: &Arc<Inner>, source: ByteStream, sink: Sink<'_>) -> Result<File, ImageError> {
    let max_bytes = inner.config.max_archive_bytes;
    let file = nameless(inner).await?;
    let mut staging = inner.staging().await?;
    let result = async {
        let dir: OwnedFd = staging.with(|inner, staging| inner.files.make_tree(staging, "empty")).await?;
        let (sender, input) =
            input_pipe().map_err(|error| HelperError::Died(error.to_string()).into_internal())?;
        let fds = [dir.as_fd(), input.as_fd(), file.as_fd()];
        let running = inner.helper.start(Job::Decode { max_bytes }, &fds, &[]).await;
        let running = running.map_err(HelperError::into_internal)?;
        drop(input);
        let mut feeder = Feeder::new(source, u64::MAX);
        let progress = |done_bytes| sink(Progress { done_bytes, ..Progress::of(Phase::Receiving) });
        let (fed, decoded) = tokio::join!(feeder.feed(sender, &progress), running.finish(|_| true));
        fed?;
        decoded.map(|_| ()).map_err(|error| match error {
            HelperError::Job(JobError::Corrupt(reason)) => invalid(reason),
            HelperError::Job(JobError::TooLarge(_)) => too_large(max_bytes),
            other => other.into_internal(),
        })
    }
    .await;
    staging.remove().await;
    result?;
    rewind(file)
}

/// Finds all images of an archive.
fn images(archive: &Archive) -> Result<Vec<Found>, ImageError> {
    let found = if let Some(index) = archive.find("index.json")? {
        of_layout(archive, &index)?
    } else if let Some(manifest) = archive.find("manifest.json")? {
        of_docker(archive, &manifest)?
    } else {
        return Err(invalid(
            "it has neither an index.json (an OCI layout) nor a manifest.json (docker save); write it with one of \
             these",
        ));
    };
    match found.len() {
        0 => Err(invalid("it has no image in it")),
        1..=MAX_IMAGES => Ok(found),
        _ => Err(invalid(format!("it has more than {MAX_IMAGES} images"))),
    }
}

/// The images of an OCI layout. Entries of one name are one image for several platforms.
fn of_layout(archive: &Archive, index: &Part) -> Result<Vec<Found>, ImageError> {
    let bytes = index.read("index.json", MAX_MANIFEST_BYTES)?;
    let Document::Index(entries) = document("of the archive", &bytes)? else {
        return Err(invalid("its index.json is no index"));
    };
    let mut groups: Vec<(Option<String>, Vec<Descriptor>)> = Vec::new();
    for entry in entries {
        if entry.platform.as_ref().is_some_and(super::platform::Platform::is_unknown) {
            continue;
        }
        let name = entry.name().map(str::to_owned);
        let is_one_of_several = name.is_some() || entry.platform.is_some();
        match groups.iter_mut().find(|(other, _)| is_one_of_several && *other == name) {
            Some((_, entries)) => entries.push(entry),
            None => groups.push((name, vec![entry])),
        }
    }
    let mut found = Vec::new();
    for (name, entries) in groups {
        let shown = name.clone().unwrap_or_else(|| "of the archive".to_owned());
        let entry = pick(&shown, &entries)?;
        let manifest = manifest(archive, &shown, entry.digest)?;
        let config = blob(archive, &manifest.config.digest, "an image's configuration", MAX_CONFIG_BYTES)?;
        let mut plan = plan(&shown, &config, &manifest)?;
        // A bare word is a tag: which image it is one of, only the caller knows.
        plan.names = names(name.iter().filter(|name| name.contains([':', '/'])));
        let part = |layer: &Descriptor| {
            let missing = || invalid(format!("layer {} is not in it", layer.digest));
            archive.find(&blob_path(&layer.digest))?.ok_or_else(missing)
        };
        let parts = manifest.layers.iter().map(part).collect::<Result<Vec<_>, _>>()?;
        found.push(Found { plan, parts });
    }
    Ok(found)
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn blob(archive: &Archive, digest: &Digest, what: &str, max_bytes: u64) -> Result<Vec<u8>, ImageError> {
    let part = archive.find(&blob_path(digest))?.ok_or_else(|| invalid(format!("{what} is not in it")))?;
    let bytes = part.read(what, max_bytes)?;
    let actual = Digest::of(&bytes);
    if actual == *digest {
        return Ok(bytes);
    }
    Err(ImageError::DigestMismatch { what: what.to_owned(), expected: *digest, actual })
}

fn manifest(archive: &Archive, image: &str, digest: Digest) -> Result<Manifest, ImageError> {
    let mut digest = digest;
    for _ in 0..MAX_INDEXES {
        let bytes = blob(archive, &digest, "an image's manifest", MAX_MANIFEST_BYTES)?;
        match document(image, &bytes)? {
            Document::Manifest(manifest) => return Ok(manifest),
            Document::Index(entries) => digest = pick(image, &entries)?.digest,
        }
    }
    Err(invalid(format!("more than {MAX_INDEXES} indexes lead to one another")))
}

/// Names of an archive as the store has them. What is no name, or one that an archive cannot have, is left out: the
/// image can still be had by its id.
fn names<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let parsed: BTreeSet<String> =
        names.filter_map(|name| name.parse::<ImageName>().ok()).map(|name| name.to_string()).collect();
    parsed.into_iter().collect()
}

/// The images of `docker save` as it was before it wrote OCI layouts (moby, image/spec/v1.2, "Combined Image JSON").
fn of_docker(archive: &Archive, manifest: &Part) -> Result<Vec<Found>, ImageError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Image {
        config: String,
        repo_tags: Option<Vec<String>>,
        layers: Vec<String>,
    }
    let bytes = manifest.read("manifest.json", MAX_MANIFEST_BYTES)?;
    let images: Vec<Image> = serde_json::from_slice(&bytes)
        .map_err(|error| invalid(format!("its manifest.json is not docker's: {error}")))?;
    let missing = |what: &str| invalid(format!("the part {} is not in it", what.escape_debug()));
    let mut found = Vec::new();
    for image in images.into_iter().take(MAX_IMAGES + 1) {
        let tags = image.repo_tags.unwrap_or_default();
        let shown = tags.first().cloned().unwrap_or_else(|| "of the archive".to_owned());
        let config = archive.find(&image.config)?.ok_or_else(|| missing(&image.config))?;
        let config = config.read("an image's configuration", MAX_CONFIG_BYTES)?;
        let (id, config) = (Digest::of(&config), parse_config(&shown, &config)?);
        if config.diff_ids.len() != image.layers.len() || image.layers.len() > super::manifest::MAX_LAYERS {
            return Err(invalid(format!(
                "image {shown} has {} layers and its configuration {}",
                image.layers.len(),
                config.diff_ids.len()
            )));
        }
        let part = |name: &String| archive.find(name)?.ok_or_else(|| missing(name));
        let parts = image.layers.iter().map(part).collect::<Result<Vec<_>, _>>()?;
        let layers = config.diff_ids.iter().zip(&parts);
        let layers = layers
            .map(|(diff_id, part)| LayerPlan { diff_id: *diff_id, blob: None, size: part.len })
            .collect();
        let plan = Plan { id, config, layers, names: names(tags.iter()), repo_digests: BTreeSet::new() };
        found.push(Found { plan, parts });
    }
    Ok(found)
}
