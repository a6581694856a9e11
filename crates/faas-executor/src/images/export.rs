//! Gives an image away as `docker save` writes one (moby, image/spec/v1.2, "Combined Image JSON"): one layer with all
//! that the merged tree has, since the store keeps files and not the streams that they came in.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use bytes::Bytes;
use faas_tar::{END, Entry, Kind, header, padding};
use futures_util::stream::{self, StreamExt as _};
use serde_json::json;

use super::archive::Part;
use super::config::ImageConfig;
use super::digest::Digest;
use super::error::{At as _, ImageError};
use super::helper::HelperError;
use super::import::nameless;
use super::ingest::ByteStream;
use super::lease::ImageLease;
use super::store::Inner;
use super::unpack::job::{Job, JobError};

/// Archives a leased image under the name `tag`. The bytes are in a file without a name until the stream is dropped.
pub(super) async fn export(
    inner: &Arc<Inner>,
    lease: &ImageLease,
    tag: &str,
) -> Result<ByteStream, ImageError> {
    let max_bytes = inner.config.max_archive_bytes;
    let file = nameless(inner).await?;
    let fds = [lease.rootfs_fd(), file.as_fd()];
    let running = inner.helper.start(Job::Pack { max_bytes }, &fds, &[]).await;
    let running = running.map_err(HelperError::into_internal)?;
    let (report, _) = running.finish(|_| true).await.map_err(|error| match error {
        HelperError::Job(JobError::TooLarge(reason)) => {
            ImageError::TooLarge { what: format!("the archive of image {}", lease.id()), reason }
        }
        other => other.into_internal(),
    })?;
    let diff_id =
        report.digest.ok_or_else(|| ImageError::Helper { reason: "it gave no digest".to_owned() })?;
    let layer = inner.blocking(move |inner| part(inner, file)).await?;
    let config = config(lease.config(), diff_id).to_string().into_bytes();
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let layer_name = format!("{}.tar", diff_id.hex());
    let manifest = json!([{ "Config": config_name, "RepoTags": [tag], "Layers": [layer_name] }]);

    let mut before = whole(&config_name, &config);
    before.extend_from_slice(&header(&file_entry(&layer_name, layer.len)));
    let mut after = vec![0; padding(layer.len)];
    after.extend_from_slice(&whole("manifest.json", manifest.to_string().as_bytes()));
    after.extend_from_slice(&END);
    let piece = |bytes: Vec<u8>| stream::iter([Ok(Bytes::from(bytes))]);
    Ok(piece(before).chain(layer.stream()).chain(piece(after)).boxed())
}

fn part(inner: &Inner, file: File) -> Result<Part, ImageError> {
    Part::of_file(file).at(inner.files.path())
}

fn file_entry(name: &str, size: u64) -> Entry {
    Entry {
        kind: Kind::File,
        path: name.as_bytes().to_vec(),
        link: Vec::new(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        size,
        segments: None,
        xattrs: Vec::new(),
    }
}

/// A whole file of the archive.
fn whole(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(&file_entry(name, content.len() as u64));
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len() + padding(content.len() as u64), 0);
    bytes
}

/// The configuration of an image with this one layer.
fn config(config: &ImageConfig, diff_id: Digest) -> serde_json::Value {
    let env: Vec<String> = config.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let labels: &BTreeMap<String, String> = &config.labels;
    let mut json = json!({
        "architecture": config.architecture,
        "os": "linux",
        "config": {
            "Env": env,
            "WorkingDir": config.working_dir,
            "User": config.user,
            "Entrypoint": config.entrypoint,
            "Cmd": config.cmd,
            "Labels": labels,
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
        "history": [{ "created_by": "all layers of an image store in one" }],
    });
    if let Some(created) = &config.created {
        json["created"] = json!(created);
    }
    json
}
