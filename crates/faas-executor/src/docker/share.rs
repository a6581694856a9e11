//! Images that go from the engine to the image store of this server, and from there to the engine, without a registry.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::BuildInfo;
use bollard::query_parameters::ImportImageOptions;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio_util::io::StreamReader;

use super::client::{CallError, no_space};
use super::probe::Live;
use super::pull::{SILENCE, image_unavailable};
use super::shared::Shared;
use crate::images::{Elsewhere, ImageError};
use crate::sandbox::SandboxError;

/// How long the engine may take to load an archive: it unpacks it meanwhile and says nothing.
const LOAD_WITHIN: Duration = Duration::from_secs(10 * 60);

const LOAD: &str = "load the image";

/// An image of the engine as an archive, in the way of `docker save`.
pub(super) fn give(live: &Live, shared: &Arc<Shared>, image: &str) -> Elsewhere {
    tracing::info!(image, "taking an image over from the engine");
    let (client, shared) = (live.client.clone(), Arc::clone(shared));
    let pieces = client.docker.export_image(image).boxed();
    let pieces = futures_util::stream::unfold(Some((pieces, client, shared)), |state| async move {
        let (mut pieces, client, shared) = state?;
        match tokio::time::timeout(SILENCE, pieces.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(piece))) => Some((Ok(piece), Some((pieces, client, shared)))),
            Ok(Some(Err(error))) => {
                let error = client.error("give the image", error);
                shared.probe.note(&error);
                Some((Err(io::Error::other(error.to_string())), None))
            }
            Err(_elapsed) => {
                let reason = format!("it has sent nothing for {} s", SILENCE.as_secs());
                Some((Err(io::Error::new(io::ErrorKind::TimedOut, reason)), None))
            }
        }
    });
    Elsewhere { from: "the Docker engine", archive: Box::new(StreamReader::new(pieces.boxed())) }
}

/// Has the engine load an archive with the image that it is to know as `image`.
pub(super) async fn load(
    live: &Live,
    image: &str,
    archive: BoxStream<'static, Result<Bytes, ImageError>>,
) -> Result<(), SandboxError> {
    tracing::info!(image, "giving an image of the store to the engine");
    let body = bollard::body_try_stream(archive.map(|piece| piece.map_err(io::Error::other)));
    let mut steps = live.client.docker.import_image(ImportImageOptions::default(), body, None);
    let loading = async {
        while let Some(step) = steps.next().await {
            let BuildInfo { stream, status, .. } = step?;
            if let Some(said) = stream.or(status) {
                tracing::debug!(image, said = said.trim(), "loading");
            }
        }
        Ok(())
    };
    match live.client.call(LOAD, LOAD_WITHIN, loading).await {
        Err(error) if error.says("no space left on device") => Err(no_space(LOAD, &error)),
        Err(error @ (CallError::Refused { .. } | CallError::Answer { .. })) => {
            Err(image_unavailable(image, error.to_string()))
        }
        Err(error) => Err(error.into_sandbox_error()),
        Ok(()) => Ok(()),
    }
}
