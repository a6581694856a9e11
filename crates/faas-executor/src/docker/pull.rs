//! Has the engine fetch an image.

use std::time::{Duration, Instant};

use bollard::errors::Error;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt as _;

use super::auth;
use super::client::{CallError, Client, no_space, unavailable};
use super::config::DockerConfig;
use super::image::{Reference, is_id};
use super::probe::Live;
use super::steps::{Step, Steps};
use crate::sandbox::SandboxError;

/// How long the engine may say nothing of an image that is on its way.
pub(super) const SILENCE: Duration = Duration::from_secs(120);

/// How long a pull may take in all.
const WITHIN: Duration = Duration::from_secs(10 * 60);

const STEP: &str = "fetch the image";

/// The image cannot be had.
pub(super) fn image_unavailable(image: &str, reason: impl Into<String>) -> SandboxError {
    SandboxError::ImageUnavailable { image: image.to_owned(), reason: reason.into() }
}

/// Has the engine fetch `image`, and waits until it has.
pub(super) async fn pull(live: &Live, config: &DockerConfig, image: &str) -> Result<(), SandboxError> {
    if is_id(image) {
        return Err(image_unavailable(
            image,
            "the engine has no image with this id, and an id cannot be fetched",
        ));
    }
    let reference = Reference::parse(image);
    let credentials = match &config.auth_file {
        None => None,
        Some(path) => {
            auth::read(path, reference.registry(), &live.facts.default_registry).unwrap_or_else(|reason| {
                tracing::warn!(reason, image, "no credentials can be read; fetching without");
                None
            })
        }
    };
    let client = &live.client;
    let docker = client.docker.clone().with_request_modifier(|mut request| {
        // Engines read this header in the alphabet for URLs (RFC 4648, section 5); bollard writes the other one.
        if let Some(header) = request.headers_mut().get_mut("x-registry-auth") {
            let url_safe = header.to_str().unwrap_or_default().replace('+', "-").replace('/', "_");
            if let Ok(url_safe) = url_safe.parse() {
                *header = url_safe;
            }
        }
        request
    });
    let options =
        CreateImageOptionsBuilder::default().from_image(reference.repository).tag(reference.tag).build();
    tracing::info!(image, "fetching an image");
    let begun = Instant::now();
    let mut steps = Steps::default();
    let mut progress = docker.create_image(Some(options), None, credentials);
    loop {
        let next = match tokio::time::timeout(SILENCE, progress.next()).await {
            Ok(next) => next,
            Err(_elapsed) => {
                let reason = format!("the engine has said nothing of its pull for {} s", SILENCE.as_secs());
                return Err(image_unavailable(image, reason));
            }
        };
        match next {
            None => break,
            Some(Ok(said)) => {
                if let Some(Step { layer, status, done_bytes, total_bytes }) = steps.next(said) {
                    tracing::debug!(image, layer, status, done_bytes, total_bytes, "fetching");
                }
            }
            Some(Err(error)) => return Err(refused(image, client, error)),
        }
        if begun.elapsed() > WITHIN {
            let reason = format!("its pull took longer than {} minutes", WITHIN.as_secs() / 60);
            return Err(image_unavailable(image, reason));
        }
    }
    tracing::info!(image, took_ms = begun.elapsed().as_millis(), "fetched an image");
    Ok(())
}

fn refused(image: &str, client: &Client, error: Error) -> SandboxError {
    match client.error(STEP, error) {
        error @ (CallError::Unreachable(_) | CallError::Timeout { .. }) => unavailable(error.to_string()),
        error @ CallError::Refused { .. } if error.says("no space left on device") => no_space(STEP, &error),
        CallError::Refused { status, message, .. } => {
            image_unavailable(image, format!("{message} ({})", what_to_do(status, &message)))
        }
        error @ CallError::Answer { .. } => image_unavailable(image, error.to_string()),
    }
}

/// What can be done about an engine's refusal to fetch an image. There are no codes for these, only words.
fn what_to_do(status: u16, message: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["no matching manifest", "does not match the specified platform"]) {
        return "the registry has it for other platforms alone";
    }
    // Docker's words for a layer that is not what its digest promises, that ends too early, or that is no archive.
    if says(&[
        "verification failed",
        "unexpected EOF",
        "archive/tar",
        "gzip: invalid",
        "failed to register layer",
    ]) {
        return "the image is damaged there: push it again, or name another tag";
    }
    if says(&["toomanyrequests", "rate limit"]) {
        return "try again later, or log in with `docker login`";
    }
    if says(&["denied", "unauthorized", "authentication required", "no basic auth"]) {
        return "check the name, or log in with `docker login` as the server's user";
    }
    if status == 404 || says(&["not found", "manifest unknown"]) {
        return "check the name and the tag";
    }
    if status == 400 || says(&["invalid reference", "invalid repository name"]) {
        return "this is no name of an image";
    }
    if says(&["dial tcp", "no such host", "timeout", "connection refused", "network is unreachable", "x509"])
    {
        return "the engine cannot reach the registry; load the image with `docker load` or `docker import`";
    }
    "see the engine's log"
}

#[cfg(test)]
mod tests {
    use super::what_to_do;

    #[test]
    fn a_refusal_comes_with_what_to_do() {
        for (status, message, expected) in [
            (404, "manifest for alpine:9 not found: manifest unknown", "check the name and the tag"),
            (404, "pull access denied for x, repository does not exist", "log in"),
            (500, "Get \"https://r/v2/\": dial tcp: lookup r: no such host", "docker load"),
            (500, "toomanyrequests: slow down", "try again later"),
            (400, "invalid reference format", "no name of an image"),
            (500, "filesystem layer verification failed for digest sha256:ab", "damaged"),
            (500, "archive/tar: invalid tar header", "damaged"),
            (500, "no matching manifest for linux/amd64 in the manifest list entries", "platforms"),
            (500, "what is this", "engine's log"),
        ] {
            assert!(what_to_do(status, message).contains(expected), "{message}");
        }
    }
}
