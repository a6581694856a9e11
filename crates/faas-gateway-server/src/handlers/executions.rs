//! `/api/v1/executions`: executions that outlive the request which started them.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use axum::{Extension, Json};
use faas_executor::{EngineError, ExecutionOutput, LastingSpec, OutputEvent};
use faas_guest_protocol::OutputStream;
use faas_types::{ErrorCode, ExecuteEvent, Execution, ExecutionId, InstanceId, SignalRequest};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::error::ApiError;
use crate::events::EventFormat;
use crate::extract::{self, JsonBody};
use crate::handlers::execute;
use crate::handlers::instances::position;
use crate::handlers::subject::{Bare, Subject};
use crate::idempotency::Tie;
use crate::openapi::Problems;
use crate::state::Shared;
use crate::{execution_info, query, replay, validate};

/// Get an execution
///
/// A lasting one, or one that somebody waits for now.
#[utoipa::path(
    get,
    path = "/api/v1/executions/{id}",
    tag = "executions",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "It", body = Execution), Problems),
)]
pub(crate) async fn get(
    State(state): State<Shared>,
    Bare(subject): Bare<ExecutionId>,
) -> Result<Json<Execution>, ApiError> {
    let view = state.instances.execution(&subject.tenant, &subject.id).await;
    Ok(Json(execution_info::execution(view.map_err(|error| subject.refusal(error))?)))
}

/// Cancel an execution
///
/// Everything that it started is killed; answers when it has ended. One that has ended stays as it is.
#[utoipa::path(
    delete,
    path = "/api/v1/executions/{id}",
    tag = "executions",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 204, description = "It has ended"), Problems),
)]
pub(crate) async fn cancel(
    State(state): State<Shared>,
    Bare(subject): Bare<ExecutionId>,
) -> Result<StatusCode, ApiError> {
    let cancelled = state.instances.cancel(&subject.tenant, &subject.id).await;
    cancelled.map(|()| StatusCode::NO_CONTENT).map_err(|error| subject.refusal(error))
}

/// What can be said of a stream.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamParameters {
    /// From which byte of the output on; the header `Last-Event-ID` wins over it. Default: the first that is held
    offset: Option<u64>,
}

/// Stream the output of an execution
///
/// From an offset on: what there is, what comes, and then `exit` or `error`, as a streamed exec has them; server-sent
/// events where nothing else is asked for. Closing it ends nothing, and any number may read, each at its own pace. Output
/// that went while it was being read is told by `gap`.
#[utoipa::path(
    get,
    path = "/api/v1/executions/{id}/stream",
    tag = "executions",
    params(
        ("id" = String, Path, description = "Its id"),
        StreamParameters,
        ("last-event-id" = Option<String>, Header, description = "The id of the last event that was received"),
    ),
    responses(
        (status = 200, description = "Its output", content(
            (ExecuteEvent = "text/event-stream"),
            (ExecuteEvent = "application/x-ndjson"),
        )),
        Problems,
    ),
)]
pub(crate) async fn stream(
    State(state): State<Shared>,
    subject: Subject<ExecutionId>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let asked: StreamParameters = query::parse(&uri)?;
    // Who comes back by itself asks for what it asked first, and says where it was.
    let offset = last_event_id(&headers)?.or(asked.offset);
    let output = state.instances.output(&subject.tenant, &subject.id, offset).await;
    let output = output.map_err(|error| subject.refusal(error))?;
    let format = EventFormat::wanted(&headers).unwrap_or(EventFormat::ServerSent);
    Ok(replay::answer(&state, format, output, subject.request_id))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(given) = headers.get("last-event-id") else { return Ok(None) };
    match given.to_str().ok().and_then(|text| text.parse().ok()) {
        Some(offset) => Ok(Some(offset)),
        None => Err(ApiError::new(ErrorCode::InvalidRequest, "the header Last-Event-ID must be a number")),
    }
}

/// What can be said of input.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputParameters {
    /// Whether its standard input ends after the bytes. A terminal gets its end-of-file character.
    #[serde(default)]
    eof: bool,
}

/// Write to an execution's standard input
///
/// The body as it is. Answers when the program's pipe or terminal has taken all of it.
#[utoipa::path(
    post,
    path = "/api/v1/executions/{id}/input",
    tag = "executions",
    params(("id" = String, Path, description = "Its id"), InputParameters),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204, description = "It has them"), Problems),
)]
pub(crate) async fn input(
    State(state): State<Shared>,
    subject: Subject<ExecutionId>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let asked: InputParameters = query::parse(&uri).map_err(ApiError::closing)?;
    extract::refuse_content_encoding(&headers).map_err(ApiError::closing)?;
    let (bytes, _room) = extract::read(&headers, body, &state).await.map_err(ApiError::closing)?;
    let taken = state.instances.input(&subject.tenant, &subject.id, &bytes, asked.eof).await;
    taken.map(|()| StatusCode::NO_CONTENT).map_err(|error| subject.refusal(error))
}

/// Send a signal to an execution
///
/// To the process group that its command began with.
#[utoipa::path(
    post,
    path = "/api/v1/executions/{id}/signal",
    tag = "executions",
    params(("id" = String, Path, description = "Its id")),
    request_body = SignalRequest,
    responses((status = 204, description = "It was sent"), Problems),
)]
pub(crate) async fn signal(
    State(state): State<Shared>,
    Bare(subject): Bare<ExecutionId>,
    body: Result<JsonBody<SignalRequest>, ApiError>,
) -> Result<StatusCode, ApiError> {
    let JsonBody { value, .. } = body?;
    let number = validate::signal(&value.signal)?;
    let sent = state.instances.signal(&subject.tenant, &subject.id, number).await;
    sent.map(|()| StatusCode::NO_CONTENT).map_err(|error| subject.refusal(error))
}

/// What can be asked of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParameters {
    /// The most entries of the answer: 1 to 1000. Default: 100
    limit: Option<usize>,
    /// The header `x-next-cursor` of the page before.
    cursor: Option<String>,
}

/// List the lasting executions of an instance
///
/// The newest first: those that run, and the last 64 that have ended.
#[utoipa::path(
    get,
    path = "/api/v1/instances/{id}/executions",
    tag = "executions",
    params(("id" = String, Path, description = "The instance's id"), ListParameters),
    responses(
        (status = 200, description = "A page of the list", body = [Execution], headers(
            ("x-next-cursor" = String, description = "The cursor of the next page, where there is one"),
        )),
        Problems,
    ),
)]
pub(crate) async fn list(
    State(state): State<Shared>,
    instance: Subject<InstanceId>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let asked: ListParameters = query::parse(&uri)?;
    let limit = query::limit(asked.limit)?;
    let after = asked.cursor.as_deref().map(|cursor| {
        position(cursor).ok_or_else(|| query::invalid("cursor", "is none that this server has given"))
    });
    let after = after.transpose()?;
    let page = state.instances.executions(&instance.tenant, &instance.id, after.as_ref(), limit).await;
    let page = page.map_err(|error| instance.refusal(error))?;
    let next = page.next.map(|next| (query::NEXT_CURSOR, format!("{:x}-{}", next.created_at_ms, next.id)));
    let executions: Vec<_> = page.executions.into_iter().map(execution_info::execution).collect();
    Ok((AppendHeaders(next), Json(executions)).into_response())
}

/// Starts a lasting execution and answers as was asked for: at once, with events, or when it has ended. With a key in the
/// request it is started and waited for whether the client stays or not.
pub(crate) async fn start(
    state: &Shared,
    target: &Subject<InstanceId>,
    headers: &HeaderMap,
    tie: Option<Extension<Tie>>,
    mut spec: LastingSpec,
) -> Result<Response, ApiError> {
    if let Some(Extension(tie)) = tie {
        spec.may_have_begun = tie.outlive().ok_or_else(|| {
            // Read by nobody, and not kept.
            ApiError::new(ErrorCode::RequestTimeout, "the client has gone")
        })?;
    }
    let background = spec.background;
    let output = state.instances.start_execution(&target.tenant, &target.id, spec).await;
    let output = output.map_err(|error| target.refusal(error))?;
    if background {
        let view = state.instances.execution(&target.tenant, &output.info().id).await;
        let execution = execution_info::execution(view.map_err(|error| target.refusal(error))?);
        return Ok((StatusCode::ACCEPTED, Json(execution)).into_response());
    }
    if let Some(format) = EventFormat::wanted(headers) {
        return Ok(replay::answer(state, format, output, target.request_id.clone()));
    }
    let outcome = collect(output).await.map_err(|error| target.refusal(error))?;
    execute::answer(state, outcome, target.request_id.clone()).await
}

/// All output of an execution and its end. What was lost counts as truncated.
async fn collect(mut output: ExecutionOutput) -> Result<faas_executor::ExecutionOutcome, EngineError> {
    let (mut stdout, mut stderr, mut is_whole) = (Vec::new(), Vec::new(), true);
    loop {
        match output.next().await? {
            OutputEvent::Output { stream: OutputStream::Stdout, bytes, .. } => stdout.extend(bytes),
            OutputEvent::Output { stream: OutputStream::Stderr, bytes, .. } => stderr.extend(bytes),
            OutputEvent::Gap { .. } => is_whole = false,
            OutputEvent::End(_) => break,
        }
    }
    let mut outcome = output.info().outcome(stdout, stderr)?;
    outcome.exit.stdout_truncated |= !is_whole;
    outcome.exit.stderr_truncated |= !is_whole;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::last_event_id;

    #[test]
    fn an_id_of_an_event_is_a_number() {
        let given =
            |id| HeaderMap::from_iter([("last-event-id".parse().unwrap(), HeaderValue::from_static(id))]);
        assert_eq!(last_event_id(&HeaderMap::new()).unwrap(), None);
        assert_eq!(last_event_id(&given("17")).unwrap(), Some(17));
        for wrong in ["", "x", "-1", "1.0"] {
            assert!(last_event_id(&given(wrong)).is_err(), "{wrong}");
        }
    }
}
