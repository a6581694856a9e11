//! Which answers are kept, and how they are given again.

use axum::body::{Body, HttpBody as _};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use faas_executor::store::KeptAnswer;
use faas_types::{ErrorCode, RequestId};
use http_body_util::BodyExt as _;

use super::claim::Claim;
use crate::answer_budget;
use crate::error::ApiError;
use crate::state::Shared;

/// The longest body that is kept: beyond that the store would be a store of outputs.
const MAX_BYTES: u64 = 1 << 20;

/// Says that an answer is one that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The headers that belong to an answer, whichever request gets it.
const KEPT_HEADERS: [HeaderName; 2] = [header::CONTENT_TYPE, header::LOCATION];

/// Whether the same request would get the same answer for good. What failed or was refused for the moment can be sent
/// again; of the gateway's failures only a timeout is an end: the command ran.
fn is_final(status: StatusCode) -> bool {
    match status {
        StatusCode::GATEWAY_TIMEOUT => true,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => false,
        other => !other.is_server_error(),
    }
}

/// Keeps the answer where it is final, and passes it on.
pub(super) async fn keep(
    claim: Claim,
    mut response: Response,
    state: &Shared,
    request_id: &RequestId,
) -> Response {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = error.render(request_id);
    }
    if !is_final(response.status()) {
        claim.end(None).await;
        return response;
    }
    let (head, body) = response.into_parts();
    let headers = KEPT_HEADERS.iter().filter_map(|name| {
        let value = head.headers.get(name)?.to_str().ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    });
    let headers = headers.collect();
    let status = head.status.as_u16();
    if body.size_hint().exact().is_none_or(|length| length > MAX_BYTES) {
        claim.end(Some(KeptAnswer { status, headers, body: None })).await;
        return Response::from_parts(head, body);
    }
    let bytes = match body.collect().await {
        Ok(collected) => Vec::from(collected.to_bytes()),
        Err(error) => {
            claim.end(None).await;
            return ApiError::internal(&error).into_response();
        }
    };
    claim.end(Some(KeptAnswer { status, headers, body: Some(bytes.clone()) })).await;
    let room = state.answers.room(bytes.len()).await;
    Response::from_parts(head, answer_budget::body(bytes, room))
}

/// Gives a kept answer again.
pub(super) async fn replay(kept: KeptAnswer, state: &Shared) -> Result<Response, ApiError> {
    let KeptAnswer { status, headers, body } = kept;
    let Some(body) = body else {
        let detail = format!(
            "the first request with this idempotency-key was answered with {status}, and the answer was longer than \
             {MAX_BYTES} bytes, the most that is kept; it was not run again"
        );
        return Err(ApiError::new(ErrorCode::Conflict, detail));
    };
    let status = StatusCode::from_u16(status).map_err(|error| ApiError::internal(&error))?;
    let room = state.answers.room(body.len()).await;
    let body = if body.is_empty() { Body::empty() } else { answer_budget::body(body, room) };
    let mut response = (status, body).into_response();
    for name in KEPT_HEADERS {
        let kept = headers.iter().find(|(kept, _)| *kept == name.as_str());
        match kept.map(|(_, value)| HeaderValue::try_from(value)).transpose() {
            Ok(Some(value)) => {
                response.headers_mut().insert(name, value);
            }
            Ok(None) => {
                response.headers_mut().remove(name);
            }
            Err(error) => return Err(ApiError::internal(&error)),
        }
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use faas_types::ErrorCode;

    use super::is_final;

    #[test]
    fn what_may_succeed_later_is_not_kept() {
        assert!(is_final(StatusCode::OK) && is_final(StatusCode::CREATED));
        let kept = ErrorCode::ALL.into_iter().filter(|code| is_final(crate::error::status(*code)));
        let kept: Vec<_> = kept.map(ErrorCode::as_str).collect();
        assert_eq!(
            kept,
            [
                "invalid_request",
                "unauthorized",
                "forbidden",
                "not_found",
                "method_not_allowed",
                "conflict",
                "gone",
                "payload_too_large",
                "unsupported_media_type",
                "range_not_satisfiable",
                "execution_timeout",
            ]
        );
    }
}
