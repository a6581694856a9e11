//! `/api/v1/images`: the image store.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use axum::{Extension, Json};
use faas_executor::images::{self, Digest, ImageError, ImageErrorKind, ImageLease, ImportSource, Progress};
use faas_types::{ErrorCode, ImageEvent, ImageInfo, ImagesAdded, PullRequest, RequestId};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::{Notify, mpsc};
use tokio_util::io::StreamReader;
use utoipa::IntoParams;

use crate::body_stream::{self, Fault};
use crate::error::ApiError;
use crate::events::{self, EventFormat};
use crate::executions::BoxFuture;
use crate::extract::{self, JsonBody};
use crate::image_info::{info, progress};
use crate::openapi::Problems;
use crate::query;
use crate::state::Shared;

/// How many steps of progress wait for a client; more are left out.
const WAITING_STEPS: usize = 64;

/// The media types under which an archive is taken. None of them is one that a web page may send to another origin
/// without asking (Fetch standard, "CORS-safelisted request-header").
const ARCHIVES: [&str; 6] = [
    "application/octet-stream",
    "application/x-tar",
    "application/tar",
    "application/gzip",
    "application/x-gzip",
    "application/zstd",
];

/// What can be asked of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParameters {
    /// Only the image of this name or id.
    name: Option<String>,
    /// The most entries of the answer: 1 to 1000. Default: 100
    limit: Option<usize>,
    /// The header `x-next-cursor` of the page before.
    cursor: Option<String>,
}

/// List images
///
/// The images of the store, the latest first. The image `host` is not among them: it is the machine itself.
#[utoipa::path(
    get,
    path = "/api/v1/images",
    tag = "images",
    params(ListParameters),
    responses(
        (status = 200, description = "A page of the list", body = [ImageInfo], headers(
            ("x-next-cursor" = String, description = "The cursor of the next page, where there is one"),
        )),
        Problems,
    ),
)]
pub(crate) async fn list(State(state): State<Shared>, uri: Uri) -> Result<Response, ApiError> {
    let asked: ListParameters = query::parse(&uri)?;
    let limit = query::limit(asked.limit)?;
    let after = asked.cursor.as_deref().map(|cursor| {
        position(cursor).ok_or_else(|| query::invalid("cursor", "is none that this server has given"))
    });
    let after = after.transpose()?;
    let wanted = match &asked.name {
        None => None,
        Some(name) => Some(state.images.get(name).map_err(named_by_query)?.map(|lease| lease.id())),
    };
    let mut found = state.images.list().await.map_err(named_by_query)?;
    found.retain(|image| wanted.is_none_or(|wanted| wanted == Some(image.id)));
    let key = |image: &images::ImageInfo| (std::cmp::Reverse(image.added_unix_ms), image.id);
    found.sort_by_key(key);
    let cursor = |(added, id): &Position| format!("{:x}-{}", added.0, id.hex());
    let (page, next) = query::page(found, key, after.as_ref(), limit, cursor);
    let page: Vec<_> = page.into_iter().map(info).collect();
    Ok((AppendHeaders(next), Json(page)).into_response())
}

/// A place in the list: the latest first.
type Position = (std::cmp::Reverse<u64>, Digest);

fn position(cursor: &str) -> Option<Position> {
    let (added, id) = cursor.split_once('-')?;
    let added = u64::from_str_radix(added, 16).ok()?;
    Some((std::cmp::Reverse(added), format!("sha256:{id}").parse().ok()?))
}

/// What can be said of an archive.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddParameters {
    /// With an archive: the name that its image gets, in place of those that the archive has.
    name: Option<String>,
}

/// Pull an image, or import an archive
///
/// With a JSON body, the image of that name is fetched from its registry, whether or not the store has one of that name.
/// With any other, the body is an archive: an OCI layout as a tar or what `docker save` writes, as it is or compressed
/// with gzip or zstd. With `accept: text/event-stream` or `application/x-ndjson` the answer comes as events that tell how
/// far it has come, the last of which is `done` or `error`. `idempotency-key` is for a pull that answers with a document.
#[utoipa::path(
    post,
    path = "/api/v1/images",
    tag = "images",
    params(
        AddParameters,
        ("idempotency-key" = Option<String>, Header, description = "1 to 255 visible ASCII characters"),
    ),
    request_body(content(
        (PullRequest = "application/json"),
        (Vec<u8> = "application/x-tar"),
        (Vec<u8> = "application/octet-stream"),
    )),
    responses(
        (status = 201, description = "The images are in the store", content(
            (ImagesAdded = "application/json"),
            (ImageEvent = "text/event-stream"),
            (ImageEvent = "application/x-ndjson"),
        ), headers(
            ("idempotency-replayed" = String, description = "`true` where the answer was given before"),
        )),
        Problems,
    ),
)]
pub(crate) async fn add(
    State(state): State<Shared>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, ApiError> {
    let parameters: AddParameters = query::parse(request.uri()).map_err(ApiError::closing)?;
    let format = EventFormat::wanted(request.headers());
    let (sender, steps) = mpsc::channel(WAITING_STEPS);
    let begun = Arc::new(Notify::new());
    let is_archive = extract::media_type(request.headers()).is_some_and(|kind| ARCHIVES.contains(&&*kind));
    let work = if is_archive {
        if request.headers().contains_key("idempotency-key") {
            let detail = "an archive has no idempotency-key: importing the same one again changes nothing";
            return Err(ApiError::new(ErrorCode::Unsupported, detail).closing());
        }
        let (parts, body) = request.into_parts();
        import(&state, &parts, body, parameters.name, sender, Arc::clone(&begun))
            .map_err(ApiError::closing)?
    } else {
        let JsonBody { value, .. } = JsonBody::<PullRequest>::from_request(request, &state).await?;
        if parameters.name.is_some() {
            return Err(query::invalid(
                "name",
                "is for an archive; the name of an image to pull goes into the body",
            ));
        }
        pull(&state, value.name, sender, Arc::clone(&begun))
    };
    match format {
        None => Ok((StatusCode::CREATED, Json(work.await?)).into_response()),
        Some(format) => answer_with_events(format, work, steps, &begun, request_id).await,
    }
}

/// Something that adds images.
type Work = BoxFuture<'static, Result<ImagesAdded, ApiError>>;

/// Passes steps on. One that nobody has had the time to take is left out.
fn tell(sender: mpsc::Sender<Progress>) -> impl Fn(Progress) + Send + Sync + 'static {
    move |step| match sender.try_send(step) {
        Ok(()) | Err(_) => {}
    }
}

fn pull(state: &Shared, name: String, steps: mpsc::Sender<Progress>, begun: Arc<Notify>) -> Work {
    let (state, tell) = (Arc::clone(state), tell(steps));
    let progress = move |step| {
        tell(step);
        begun.notify_one();
    };
    Box::pin(async move {
        let pulled = state.images.pull(&name, progress).await;
        added(&state, &[pulled.map_err(|error| ApiError::from_image(&error, "/name"))?]).await
    })
}

/// `begun` is told when the body has come: a client may read nothing before it has sent everything.
fn import(
    state: &Shared,
    parts: &Parts,
    body: Body,
    name: Option<String>,
    steps: mpsc::Sender<Progress>,
    begun: Arc<Notify>,
) -> Result<Work, ApiError> {
    extract::refuse_content_encoding(&parts.headers)?;
    let max_bytes = state.images.max_archive_bytes();
    if extract::content_length(&parts.headers).is_some_and(|bytes| bytes > max_bytes) {
        let detail = format!(
            "the archive is longer than {max_bytes} bytes, as many as all images may take here (the option \
             max_images_mb)"
        );
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, detail));
    }
    let fault = Fault::default();
    let pieces =
        body_stream::pieces(body, state.body_timeout, Arc::clone(&fault), move || begun.notify_one());
    let (state, tell) = (Arc::clone(state), tell(steps));
    Ok(Box::pin(async move {
        let source = ImportSource::Stream(Box::new(StreamReader::new(pieces)));
        match state.images.import(source, name.as_deref(), tell).await {
            Ok(leases) => added(&state, &leases).await,
            Err(error) => Err(match fault.get() {
                Some(fault) => fault.clone(),
                None => named_by_query(error),
            }
            .closing()),
        }
    }))
}

/// What is said of images that have just come, which are leased until then.
async fn added(state: &Shared, leases: &[ImageLease]) -> Result<ImagesAdded, ApiError> {
    let list = state.images.list().await.map_err(named_by_query)?;
    let images = list.into_iter().filter(|image| leases.iter().any(|lease| lease.id() == image.id));
    // Leased by this very request.
    let images = images.map(info).map(|image| ImageInfo { in_use: false, ..image });
    Ok(ImagesAdded { images: images.collect() })
}

/// An answer of events, once there is something to tell; what fails before that is an ordinary answer.
async fn answer_with_events(
    format: EventFormat,
    mut work: Work,
    steps: mpsc::Receiver<Progress>,
    begun: &Notify,
    request_id: RequestId,
) -> Result<Response, ApiError> {
    let early = tokio::select! {
        biased;
        done = &mut work => Some(done?),
        () = begun.notified() => None,
    };
    let work: Work = match early {
        Some(done) => Box::pin(async { Ok(done) }),
        None => work,
    };
    let events = stream::unfold(Some((work, steps)), move |state| {
        let request_id = request_id.clone();
        async move {
            let (mut work, mut steps) = state?;
            tokio::select! {
                biased;
                Some(step) = steps.recv() => {
                    Some((("progress", ImageEvent::Progress(progress(step))), Some((work, steps))))
                }
                done = &mut work => Some(match done {
                    Ok(added) => (("done", ImageEvent::Done(added)), None),
                    Err(error) => (("error", ImageEvent::Error(error.problem(&request_id))), None),
                }),
            }
        }
    });
    let mut response = events::response(format, events);
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// What is to be removed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoveParameters {
    /// A name: it is removed, and the image with it when it was its last one. Or an id: the image with all its names.
    name: String,
}

/// Remove an image
#[utoipa::path(
    delete,
    path = "/api/v1/images",
    tag = "images",
    params(RemoveParameters),
    responses((status = 204, description = "It is removed"), Problems),
)]
pub(crate) async fn remove(State(state): State<Shared>, uri: Uri) -> Result<StatusCode, ApiError> {
    let RemoveParameters { name } = query::parse(&uri)?;
    match state.images.remove(&name).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error) if error.kind() == ImageErrorKind::NotFound => {
            Err(ApiError::new(ErrorCode::NotFound, format!("there is no image {name} in the store")))
        }
        Err(error) => Err(named_by_query(error)),
    }
}

fn named_by_query(error: ImageError) -> ApiError {
    match error {
        ImageError::InvalidName { .. } => query::invalid("name", format_args!("is not valid: {error}")),
        error => ApiError::from_image(&error, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::position;

    #[test]
    fn a_cursor_is_one_that_was_given() {
        let id = "a".repeat(64);
        assert_eq!(position(&format!("1f-{id}")).map(|(added, _)| added.0), Some(31));
        for wrong in ["", "1f", "1f-", &format!("x-{id}"), &format!("1f-{id}0")] {
            assert!(position(wrong).is_none(), "{wrong}");
        }
    }
}
