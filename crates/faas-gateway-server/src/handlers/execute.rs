//! `POST /api/v1/execute`.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse as _, Response};
use faas_executor::ExecutionOutcome;
use faas_executor::guest::Held;
use faas_types::{ExecuteEvent, ExecuteRequest, ExecuteResponse, FieldError, RequestId};

use super::execute_stream;
use crate::error::ApiError;
use crate::events::EventFormat;
use crate::extract::JsonBody;
use crate::openapi::Problems;
use crate::state::{self, Shared};
use crate::{answer_budget, offload, query, response, validate};

/// Run one command in a fresh sandbox
///
/// The sandbox is made for this request and destroyed after it. A command that fails is a 200 with its `exit_code`; a
/// client that closes its connection cancels its execution. With `idempotency-key` the same request has its effect once.
///
/// With `accept: text/event-stream` or `application/x-ndjson` the answer comes as events while the command runs: `started`,
/// output as it is written, and `exit` or `error`. An error before the command runs is an ordinary answer. A client that
/// reads too slowly misses output (`gap`); it cannot come back for it.
#[utoipa::path(
    post,
    path = "/api/v1/execute",
    tag = "executions",
    params(("idempotency-key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    request_body = ExecuteRequest,
    responses(
        (status = 200, description = "The command ran, whatever its exit code", content(
            (ExecuteResponse = "application/json"),
            (ExecuteEvent = "text/event-stream"),
            (ExecuteEvent = "application/x-ndjson"),
        ), headers(
            ("idempotency-replayed" = String, description = "`true` where the answer was given before"),
        )),
        Problems,
    ),
)]
pub(crate) async fn execute(
    State(state): State<Shared>,
    Extension(request_id): Extension<RequestId>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<JsonBody<ExecuteRequest>, ApiError>,
) -> Result<Response, ApiError> {
    let JsonBody { value, bytes, room } = body?;
    refuse_what_is_not_there(&uri, &headers)?;
    let (rules, id) = (state.limits, request_id.clone());
    let mut spec = offload::by_size(bytes, move || validate::validate(value, id, &rules)).await??;
    spec.held = Some(Held::new(room));
    if let Some(format) = EventFormat::wanted(&headers) {
        let most = spec.max_output_bytes;
        return execute_stream::answer(state, request_id, format, most, |state, mut writer| {
            Box::pin(async move { state.engine.execute_live(spec, &mut writer).await })
        })
        .await;
    }
    match state.engine.execute(spec).await {
        Ok(outcome) => answer(&state, outcome, request_id).await,
        Err(error) => Err(ApiError::from_engine(error, &request_id)),
    }
}

/// The answer to a command that has ended.
pub(crate) async fn answer(
    state: &state::State,
    outcome: ExecutionOutcome,
    request_id: RequestId,
) -> Result<Response, ApiError> {
    let bytes = outcome.stdout.len() + outcome.stderr.len();
    let room = state.answers.room(bytes * JSON_FACTOR).await;
    let answer = offload::by_size(bytes, move || {
        let answer = response::execute_response(outcome, request_id)?;
        serde_json::to_vec(&answer).map_err(|error| ApiError::internal(&error))
    });
    let answer = answer.await??;
    Ok(([(header::CONTENT_TYPE, "application/json")], answer_budget::body(answer, room)).into_response())
}

/// How much longer an answer may be than the output in it: that is there twice, and each byte may become six.
const JSON_FACTOR: usize = 12;

/// Headers and parameters of the contract that this version does not act on are refused, not ignored.
fn refuse_what_is_not_there(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    query::none(uri)?;
    refuse_to_resume(headers)
}

/// The answer to a command that ended with its connection cannot be gone on with.
pub(crate) fn refuse_to_resume(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key("last-event-id") {
        let message = "a stream of this route cannot be resumed: its execution ended with its connection \
                       (leave out the header Last-Event-ID)";
        let error = FieldError { pointer: String::new(), message: message.to_owned() };
        return Err(ApiError::invalid(vec![error]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};

    use super::refuse_what_is_not_there;

    fn refused(uri: &'static str, header: &'static str, value: &'static str) -> bool {
        let name = HeaderName::from_static(header);
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        refuse_what_is_not_there(&Uri::from_static(uri), &headers).is_err()
    }

    #[test]
    fn what_the_contract_has_and_this_version_does_not_is_refused() {
        assert!(refused("/api/v1/execute?wait=false", "x-a", "b"));
        assert!(refused("/api/v1/execute", "last-event-id", "17"));
        assert!(!refused("/api/v1/execute", "accept", "text/event-stream"));
    }
}
