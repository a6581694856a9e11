//! `/api/v1/instances/{id}/files`: what is in an instance's files, and what becomes of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use faas_executor::sandbox::SandboxError;
use faas_executor::{EngineError, FileCall, FileWork};
use faas_guest_protocol::AgentErrorKind;
use faas_guest_protocol::files::{
    FileChange, FileContent, FileListing, FilePut, FileRange, FileRequest, FileStat, Unpacked,
};
use faas_types::{ErrorCode, FileEvent, FileInfo, FileLook, FilePlaced, InstanceId, RequestId};
use futures_util::stream::{self, StreamExt as _};
use tokio_util::io::StreamReader;
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use super::subject::Subject;
use crate::body_stream::{self, Fault};
use crate::error::ApiError;
use crate::events::{self, EventFormat};
use crate::file_query::{FileQuery, range, to_cursor};
use crate::openapi::Problems;
use crate::state::Shared;
use crate::{extract, file_info, query};

/// The files that a request is about.
pub(crate) struct Files {
    instance: Subject<InstanceId>,
    query: FileQuery,
    user: Option<String>,
}

impl FromRequestParts<Shared> for Files {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, ApiError> {
        let mut query = FileQuery::parse(&parts.uri)?;
        let user = query.user("user")?;
        let instance = Subject::from_request_parts(parts, state).await?;
        Ok(Self { instance, query, user })
    }
}

/// A file operation of one instance, all of whose parameters are known.
struct Order {
    instance: Subject<InstanceId>,
    user: Option<String>,
}

impl Files {
    /// What is asked, when nothing else is.
    fn order(self) -> Result<Order, ApiError> {
        self.query.finish()?;
        Ok(Order { instance: self.instance, user: self.user })
    }
}

impl Order {
    async fn begin(&self, state: &Shared, request: FileRequest) -> Result<FileWork, ApiError> {
        let call = FileCall { request, user: self.user.clone() };
        let begun = state.instances.begin_file(&self.instance.tenant, &self.instance.id, call).await;
        begun.map_err(|error| self.refusal(error))
    }

    fn refusal(&self, error: EngineError) -> ApiError {
        refusal(error, &self.instance.request_id)
    }
}

/// What the agent says of a program's start is about parameters here.
fn refusal(error: EngineError, request_id: &RequestId) -> ApiError {
    match error {
        EngineError::Agent(error) if error.kind == AgentErrorKind::User => {
            query::invalid("user", format_args!("is not valid: {error}"))
        }
        EngineError::Agent(error) if error.kind == AgentErrorKind::WorkingDir => query::invalid(
            "path",
            format_args!("is relative, and the working directory is not there: {error}"),
        ),
        error => ApiError::from_engine(error, request_id),
    }
}

/// What can be asked of files.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "paths are bytes, which no deserializer of text can read; this is their documentation"
)]
pub(crate) struct ReadParameters {
    /// The file: absolute, or relative to the working directory of the instance; resolved in the instance. Any bytes but
    /// NUL, percent-encoded
    path: String,
    /// As whom: a name or a uid, with or without `:` and a group. Default: the user of the instance
    user: Option<String>,
    /// What is there, in place of its content: of a symbolic link itself
    stat: Option<bool>,
    /// The entries of the directory by name, in pages
    list: Option<bool>,
    /// With `list`: the most entries of the answer, 1 to 1000. Default: 100
    limit: Option<usize>,
    /// With `list`: the header `x-next-cursor` of the page before
    cursor: Option<String>,
    /// The directory with all that is in it, or the file, as a tar archive
    tar: Option<bool>,
    /// What happens in the directory, or to the file, from now on, as events
    watch: Option<bool>,
    /// With `watch`: in the directories below too
    recursive: Option<bool>,
}

/// Read a file, look at one, list a directory, pack one, or watch one
///
/// Without another parameter the answer is the file's content; `range` takes one range of bytes. Only regular files have
/// content here. With one of `stat`, `list`, `tar` and `watch` it is that.
///
/// An archive or a content that cannot be brought to its end, because of the file, the instance or the server, ends with
/// the connection: it is shorter than it was announced, or has no last chunk.
#[utoipa::path(
    get,
    path = "/api/v1/instances/{id}/files",
    tag = "files",
    params(
        ("id" = String, Path, description = "Its id"),
        ReadParameters,
        ("range" = Option<String>, Header, description = "One range of bytes: `bytes=0-99`, `bytes=100-`, `bytes=-100`"),
    ),
    responses(
        (status = 200, description = "The content, or what else was asked for", content(
            (Vec<u8> = "application/octet-stream"),
            (Vec<u8> = "application/x-tar"),
            (FileLook = "application/json"),
            (FileEvent = "text/event-stream"),
            (FileEvent = "application/x-ndjson"),
        ), headers(
            ("accept-ranges" = String, description = "`bytes`, with a content"),
            ("last-modified" = String, description = "When the content last changed"),
            ("x-next-cursor" = String, description = "With `list`: the cursor of the next page, where there is one"),
        )),
        (status = 206, description = "The part of the content that was asked for", content_type = "application/octet-stream", headers(
            ("content-range" = String, description = "Which one it is, of how much"),
        )),
        Problems,
    ),
)]
pub(crate) async fn get(
    State(state): State<Shared>,
    method: Method,
    headers: HeaderMap,
    mut files: Files,
) -> Result<Response, ApiError> {
    let path = files.query.path("path")?;
    let asked = ["stat", "list", "tar", "watch"];
    let mut wanted = Vec::new();
    for name in asked {
        if files.query.flag(name)? {
            wanted.push(name);
        }
    }
    if let [first, second, ..] = wanted[..] {
        return Err(query::invalid(second, format_args!("and {first} cannot both be asked for")));
    }
    match wanted.first().copied() {
        None => {
            let order = files.order()?;
            let head = method == Method::HEAD;
            let range = asked_range(&headers);
            read(&state, &order, &headers, FileRequest::Read { path, range, head }).await
        }
        Some("stat") => {
            let order = files.order()?;
            let mut work = order.begin(&state, FileRequest::Stat { path }).await?;
            let stat: FileStat = work.answer().await.map_err(|error| order.refusal(error))?;
            Ok(Json(FileLook::Entry(file_info::info(&stat))).into_response())
        }
        Some("list") => {
            let (after, limit) = (files.query.cursor()?, files.query.limit()?);
            let order = files.order()?;
            let work = order.begin(&state, FileRequest::List { path, after, limit }).await?;
            list(work, limit).await.map_err(|error| order.refusal(error))
        }
        Some("tar") => {
            let order = files.order()?;
            let mut work = order.begin(&state, FileRequest::Pack { path }).await?;
            work.answer::<()>().await.map_err(|error| order.refusal(error))?;
            Ok(([(header::CONTENT_TYPE, "application/x-tar")], content(work, None)).into_response())
        }
        Some(_) => {
            let recursive = files.query.flag("recursive")?;
            let order = files.order()?;
            let format = EventFormat::wanted(&headers).unwrap_or(EventFormat::ServerSent);
            let mut work = order.begin(&state, FileRequest::Watch { path, recursive }).await?;
            work.answer::<()>().await.map_err(|error| order.refusal(error))?;
            Ok(watched(format, work, order.instance.request_id, state.draining.clone()))
        }
    }
}

/// The range that a request asks for. With a condition it asks for that only of the very same content, of which nothing is
/// known but a time to the second: such a content is given whole.
fn asked_range(headers: &HeaderMap) -> Option<FileRange> {
    if headers.contains_key(header::IF_RANGE) {
        return None;
    }
    range(headers.get(header::RANGE)?.to_str().ok()?)
}

async fn read(
    state: &Shared,
    order: &Order,
    headers: &HeaderMap,
    request: FileRequest,
) -> Result<Response, ApiError> {
    let mut work = order.begin(state, request).await?;
    let told: FileContent = work.answer().await.map_err(|error| order.refusal(error))?;
    let is_part = asked_range(headers).is_some() && told.length.is_some();
    let end = told.length.and_then(|length| told.start.checked_add(length));
    if end.is_some() && end > told.size || is_part && told.length == Some(0) {
        return Err(ApiError::new(ErrorCode::SandboxLost, "the sandbox tells of a part that no file has"));
    }
    let mut response = content(work, told.length).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(length) = told.length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(date) = file_info::http_date(told.modified_s).and_then(|date| date.try_into().ok()) {
        headers.insert(header::LAST_MODIFIED, date);
    }
    if let (true, Some(size), Some(end)) = (is_part, told.size, end) {
        let range = format!("bytes {}-{}/{size}", told.start, end - 1);
        headers.extend(HeaderValue::try_from(range).ok().map(|range| (header::CONTENT_RANGE, range)));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// What comes after an answer, as a body: of just this length, where one was announced. Whatever is wrong with it ends the
/// connection.
fn content(work: FileWork, length: Option<u64>) -> Body {
    let pieces = stream::unfold(Some((work, length)), |state| async move {
        let (mut work, left) = state?;
        let failed = |error: &dyn std::fmt::Display| {
            tracing::debug!(%error, "a content ends before its end");
            Some((Err(io::Error::other("the content cannot be brought to its end")), None))
        };
        match work.piece().await {
            Ok(Some(bytes)) => {
                let after = match left {
                    None => None,
                    Some(left) => match left.checked_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX)) {
                        Some(after) => Some(after),
                        None => return failed(&"there is more of it than was announced"),
                    },
                };
                Some((Ok(bytes), Some((work, after))))
            }
            Ok(None) if left.is_none_or(|left| left == 0) => None,
            Ok(None) => failed(&"there is less of it than was announced"),
            Err(error) => failed(&error),
        }
    });
    Body::from_stream(pieces)
}

/// The most names in a page, in bytes: it may have fewer entries than were asked for.
const MAX_LIST_BYTES: usize = 2 << 20;

/// How long an entry of a list may be waited for.
const ENTRY_WITHIN: Duration = Duration::from_secs(60);

async fn list(mut work: FileWork, limit: usize) -> Result<Response, EngineError> {
    let told: FileListing = work.answer().await?;
    let mut entries: Vec<FileInfo> = Vec::new();
    let (mut last, mut bytes, mut more) = (None, 0, told.more);
    loop {
        let entry = work.entry::<FileStat>(entries.len() < limit.min(told.entries));
        let lost = |_elapsed| SandboxError::Lost { reason: "its list is not told to its end".to_owned() };
        let Some(stat) = tokio::time::timeout(ENTRY_WITHIN, entry).await.map_err(lost)?? else { break };
        let names = [&stat.owner, &stat.group].map(|name| name.as_ref().map_or(0, String::len));
        let target = stat.target.as_ref().map_or(0, |target| target.0.len());
        bytes += stat.path.0.len() + stat.name.0.len() + target + names[0] + names[1];
        if bytes > MAX_LIST_BYTES && last.is_some() {
            more = true;
            break;
        }
        entries.push(file_info::info(&stat));
        last = Some(stat.name.0);
    }
    let next = last.filter(|_| more).map(|name| (query::NEXT_CURSOR, to_cursor(&name)));
    Ok((AppendHeaders(next), Json(FileLook::Entries(entries))).into_response())
}

/// The events of a watch: until the client goes, or what is watched.
fn watched(
    format: EventFormat,
    work: FileWork,
    request_id: RequestId,
    draining: CancellationToken,
) -> Response {
    let gone = |request_id: &RequestId| {
        let error = ApiError::new(ErrorCode::NotFound, "what was watched is not there any more");
        ("error", FileEvent::Error(error.problem(request_id)))
    };
    let begun = stream::iter([("ready", FileEvent::Ready {})]);
    let changes = stream::unfold(Some(work), move |work| {
        let request_id = request_id.clone();
        async move {
            let mut work = work?;
            Some(match work.entry::<FileChange>(true).await {
                Ok(Some(change)) => (file_info::event(&change), Some(work)),
                Ok(None) => (gone(&request_id), None),
                Err(error) => {
                    let error = refusal(error, &request_id);
                    (("error", FileEvent::Error(error.problem(&request_id))), None)
                }
            })
        }
    });
    // It would last as long as the server does.
    let changes = changes.take_until(draining.cancelled_owned());
    events::response(format, begun.chain(changes))
}

/// What can be said of a file that is put.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "as of ReadParameters")]
pub(crate) struct PutParameters {
    /// The file, or with `tar` the directory; directories above it are made
    path: String,
    /// As whom. Default: the user of the instance
    user: Option<String>,
    /// Its permission bits, in octal. Default: those of the file that it replaces, or 0644
    mode: Option<String>,
    /// Its owner: a name or a uid, with or without `:` and a group. Default: that of the file that it replaces, or `user`
    owner: Option<String>,
    /// The body is a tar archive, which is unpacked into the directory
    tar: Option<bool>,
}

/// Write a file, or unpack an archive
///
/// The body is the content, whatever its content type. The file is there whole, or as it was before: it is written beside its
/// place and then renamed. Through a symbolic link the file is written that the link leads to.
///
/// With `tar` the body is a tar archive, not compressed. Nothing is written outside of the directory: an entry whose name is
/// absolute or has `..`, or that a link leads out, is refused, and ends the unpacking; what was unpacked before stays.
#[utoipa::path(
    put,
    path = "/api/v1/instances/{id}/files",
    tag = "files",
    params(("id" = String, Path, description = "Its id"), PutParameters),
    request_body(content((Vec<u8> = "application/octet-stream"), (Vec<u8> = "application/x-tar"))),
    responses(
        (status = 200, description = "The file is written in place of another, or the archive is unpacked", body = FilePlaced),
        (status = 201, description = "The file is written, and there was none", body = FileInfo),
        Problems,
    ),
)]
pub(crate) async fn put(
    State(state): State<Shared>,
    mut files: Files,
    request: Request,
) -> Result<Response, ApiError> {
    let answered = async {
        let path = files.query.path("path")?;
        let is_tar = files.query.flag("tar")?;
        let request_for = if is_tar {
            FileRequest::Unpack { path }
        } else {
            let (mode, owner) = (files.query.mode()?, files.query.user("owner")?);
            FileRequest::Write { path, mode, owner }
        };
        let order = files.order()?;
        extract::refuse_content_encoding(request.headers())?;
        let mut work = order.begin(&state, request_for).await?;
        let fault = Fault::default();
        let body = body_stream::pieces(request.into_body(), state.body_timeout, Arc::clone(&fault), || {});
        let mut body = StreamReader::new(body);
        if is_tar {
            let done = work.feed::<Unpacked>(&mut body).await.map_err(|error| order.refusal(error))?;
            let Unpacked { files, bytes } = done.ok_or_else(|| cut(&fault))?;
            return Ok(Json(FilePlaced::Archive(faas_types::Unpacked { files, bytes })).into_response());
        }
        let done = work.feed::<FilePut>(&mut body).await.map_err(|error| order.refusal(error))?;
        Ok(placed(&done.ok_or_else(|| cut(&fault))?))
    };
    // Much of the body may still be on its way.
    answered.await.map_err(ApiError::closing)
}

fn cut(fault: &Fault) -> ApiError {
    fault.get().cloned().unwrap_or_else(|| ApiError::malformed("the body cannot be read to its end"))
}

fn placed(put: &FilePut) -> Response {
    let status = if put.created { StatusCode::CREATED } else { StatusCode::OK };
    (status, Json(FilePlaced::File(file_info::info(&put.stat)))).into_response()
}

/// What can be done with names.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "as of ReadParameters")]
pub(crate) struct ChangeParameters {
    /// What is done: `mkdir` or `move`
    op: String,
    /// The directory to be made, or what is to be moved
    path: String,
    /// With `move`: to where. A file that is there is replaced
    to: Option<String>,
    /// As whom. Default: the user of the instance
    user: Option<String>,
    /// With `mkdir`: its permission bits where it is made, in octal. Default: 0755
    mode: Option<String>,
}

/// Make a directory, or move something
///
/// `op=mkdir` makes a directory with those above it. `op=move` gives something another name, as rename(2) does; to another
/// file system it is copied, and then removed. There is no body.
#[utoipa::path(
    post,
    path = "/api/v1/instances/{id}/files",
    tag = "files",
    params(("id" = String, Path, description = "Its id"), ChangeParameters),
    responses(
        (status = 200, description = "It has the name, or the directory was there already", body = FileInfo),
        (status = 201, description = "The directory is made", body = FileInfo),
        Problems,
    ),
)]
pub(crate) async fn change(State(state): State<Shared>, mut files: Files) -> Result<Response, ApiError> {
    let path = files.query.path("path")?;
    match files.query.text("op")?.as_deref() {
        Some("mkdir") => {
            let mode = files.query.mode()?;
            let order = files.order()?;
            let mut work = order.begin(&state, FileRequest::MakeDir { path, mode }).await?;
            let put: FilePut = work.answer().await.map_err(|error| order.refusal(error))?;
            Ok(placed(&put))
        }
        Some("move") => {
            let to = files.query.path("to")?;
            let order = files.order()?;
            let mut work = order.begin(&state, FileRequest::Move { path, to }).await?;
            let stat: FileStat = work.answer().await.map_err(|error| order.refusal(error))?;
            Ok(Json(file_info::info(&stat)).into_response())
        }
        _ => Err(query::invalid("op", "must be mkdir or move")),
    }
}

/// What is to be removed.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "as of ReadParameters")]
pub(crate) struct RemoveParameters {
    /// What; a symbolic link itself
    path: String,
    /// As whom. Default: the user of the instance
    user: Option<String>,
    /// A directory with all that is in it
    recursive: Option<bool>,
}

/// Remove a file or a directory
#[utoipa::path(
    delete,
    path = "/api/v1/instances/{id}/files",
    tag = "files",
    params(("id" = String, Path, description = "Its id"), RemoveParameters),
    responses((status = 204, description = "It is not there any more"), Problems),
)]
pub(crate) async fn remove(State(state): State<Shared>, mut files: Files) -> Result<StatusCode, ApiError> {
    let path = files.query.path("path")?;
    let recursive = files.query.flag("recursive")?;
    let order = files.order()?;
    let mut work = order.begin(&state, FileRequest::Remove { path, recursive }).await?;
    work.answer::<()>().await.map_err(|error| order.refusal(error))?;
    Ok(StatusCode::NO_CONTENT)
}
