//! Every error answer: one type, one map from codes to statuses, one body.
//!
//! A handler returns an [`ApiError`]; [`crate::app`] writes the body, since it knows the request's id.

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use faas_executor::EngineError;
#[cfg(all(target_os = "linux", feature = "native"))]
use faas_executor::images::{ImageError, ImageErrorKind};
use faas_executor::sandbox::SandboxError;
use faas_executor::store::StoreError;
use faas_guest_protocol::AgentErrorKind;
use faas_types::{ErrorCode, ExecuteResponse, FieldError, Problem, RequestId};

/// The media type of every error answer (RFC 9457).
pub(crate) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// How long a client is asked to wait before it tries an overloaded server again, in seconds.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// Why a request gets no result.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    code: ErrorCode,
    status: StatusCode,
    detail: String,
    errors: Vec<FieldError>,
    execution: Option<Box<ExecuteResponse>>,
    first_offset: Option<u64>,
    next_offset: Option<u64>,
    /// Whether the same request may succeed later, where the code alone does not tell.
    retryable: Option<bool>,
    closes: bool,
    /// With `range_not_satisfiable`: how long the content is.
    content_bytes: Option<u64>,
}

/// The one map from codes to statuses. `invalid_request` is 400 where the request could not be parsed.
pub(crate) const fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidRequest => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::Gone => StatusCode::GONE,
        ErrorCode::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        ErrorCode::RateLimited | ErrorCode::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::RuntimeUnavailable | ErrorCode::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorCode::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::ImageUnavailable | ErrorCode::SandboxLost => StatusCode::BAD_GATEWAY,
        ErrorCode::InsufficientStorage => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::ExecutionTimeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What a code means, in a few words.
pub(crate) const fn title(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InvalidRequest => "The request is not valid",
        ErrorCode::Unauthorized => "Valid credentials are needed",
        ErrorCode::Forbidden => "The request is not allowed",
        ErrorCode::NotFound => "There is nothing here",
        ErrorCode::MethodNotAllowed => "The route does not have this method",
        ErrorCode::RequestTimeout => "The request did not arrive in time",
        ErrorCode::Conflict => "The state of the resource does not allow this",
        ErrorCode::Gone => "What was asked for is no longer held",
        ErrorCode::PayloadTooLarge => "The body is too large",
        ErrorCode::UnsupportedMediaType => "The content type is not supported",
        ErrorCode::RangeNotSatisfiable => "The range lies outside the content",
        ErrorCode::RateLimited => "Too many requests",
        ErrorCode::QuotaExceeded => "The quota is used up",
        ErrorCode::RuntimeUnavailable => "The runtime is not available here",
        ErrorCode::Unsupported => "This is not supported here",
        ErrorCode::Overloaded => "The server has too much to do",
        ErrorCode::ImageUnavailable => "The image is not available",
        ErrorCode::SandboxLost => "The sandbox was lost",
        ErrorCode::InsufficientStorage => "The host has no room left",
        ErrorCode::ExecutionTimeout => "The command was still running at its timeout",
        ErrorCode::Internal => "The server failed",
    }
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: status(code),
            detail: detail.into(),
            errors: Vec::new(),
            execution: None,
            first_offset: None,
            next_offset: None,
            retryable: None,
            closes: false,
            content_bytes: None,
        }
    }

    /// The request could not be parsed: 400.
    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, ..Self::new(ErrorCode::InvalidRequest, detail) }
    }

    /// The request was parsed and these members of it are not valid: 422.
    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        let first = errors.first().map_or_else(String::new, |error| {
            let place = if error.pointer.is_empty() { "the request" } else { &error.pointer };
            format!("{place}: {}", error.message)
        });
        let more = match errors.len() {
            0 | 1 => String::new(),
            n => format!(" (and {} more, see errors)", n - 1),
        };
        Self { errors, ..Self::new(ErrorCode::InvalidRequest, first + &more) }
    }

    /// A fault of the server. `cause` goes to the log and nowhere else.
    pub(crate) fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "internal error");
        Self::new(ErrorCode::Internal, "the cause is in the server's log, under this request's id")
    }

    /// The connection is not fit for another request: it is closed after the answer.
    pub(crate) fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    /// The answer to an execution that gave no result.
    pub(crate) fn from_engine(error: EngineError, request_id: &RequestId) -> Self {
        let code = error.code();
        match error {
            EngineError::Timeout { outcome } => {
                let detail =
                    format!("the command was still running after {} ms and was killed", outcome.timeout_ms);
                match crate::response::execute_response(*outcome, request_id.clone()) {
                    Ok(response) => Self { execution: Some(Box::new(response)), ..Self::new(code, detail) },
                    Err(error) => error,
                }
            }
            EngineError::Agent(error) if code == ErrorCode::InvalidRequest => {
                let pointer = match error.kind {
                    AgentErrorKind::WorkingDir => "/working_dir",
                    AgentErrorKind::User => "/user",
                    AgentErrorKind::File => "/files",
                    AgentErrorKind::TooLarge => "/env_vars",
                    _ => "",
                };
                Self::invalid(vec![FieldError { pointer: pointer.to_owned(), message: error.message }])
            }
            EngineError::File(error) => {
                Self { content_bytes: error.size(), ..Self::new(code, error.to_string()) }
            }
            EngineError::Overloaded { waiting } => {
                Self::new(code, format!("{waiting} executions are waiting already; try again later"))
            }
            #[cfg(all(target_os = "linux", feature = "native"))]
            EngineError::Sandbox(SandboxError::Image(error)) => Self::from_image(&error, "/image"),
            EngineError::OutputGone { first } => Self::new(code, error.to_string()).with_first_offset(first),
            EngineError::OutputBeyond { next } => Self::new(code, error.to_string()).with_next_offset(next),
            EngineError::NoMainCommand => {
                let message = error.to_string();
                Self::invalid(vec![FieldError { pointer: "/main".to_owned(), message }])
            }
            error if code == ErrorCode::Internal => Self::internal(&error),
            error => {
                if let EngineError::Sandbox(SandboxError::Lost { .. } | SandboxError::NoSpace { .. }) = &error
                {
                    tracing::warn!(%error, "an execution has no result");
                }
                Self::new(code, error.to_string())
            }
        }
    }

    /// The answer where the image store does not do what was asked; the image was named by the member at `pointer`.
    #[cfg(all(target_os = "linux", feature = "native"))]
    pub(crate) fn from_image(error: &ImageError, pointer: &str) -> Self {
        let code = match error.kind() {
            ImageErrorKind::Invalid => {
                let pointer = match error {
                    ImageError::InvalidName { .. } => pointer,
                    _ => "",
                };
                let message = error.to_string();
                return Self::invalid(vec![FieldError { pointer: pointer.to_owned(), message }]);
            }
            ImageErrorKind::NotFound | ImageErrorKind::Unavailable => ErrorCode::ImageUnavailable,
            ImageErrorKind::NoSpace => ErrorCode::InsufficientStorage,
            ImageErrorKind::InUse => ErrorCode::Conflict,
            ImageErrorKind::Internal => return Self::internal(error),
        };
        Self { retryable: Some(error.is_retryable()), ..Self::new(code, error.to_string()) }
    }

    /// The answer where the store did not do what was asked, before anything was run.
    pub(crate) fn from_store(error: &StoreError) -> Self {
        match error {
            StoreError::Unreachable { .. } => {
                tracing::warn!(%error, "the store");
                Self::new(ErrorCode::Overloaded, "the store cannot be reached; nothing was run")
            }
            StoreError::Full { .. } => {
                tracing::warn!(%error, "the store");
                Self::new(ErrorCode::InsufficientStorage, "the store has no room left; nothing was run")
            }
            error => Self::internal(error),
        }
    }

    /// Says whether the same request may succeed later, where the code alone does not.
    pub(crate) fn retryable(self, retryable: bool) -> Self {
        Self { retryable: Some(retryable), ..self }
    }

    /// Says where what is still held begins.
    pub(crate) fn with_first_offset(self, first: u64) -> Self {
        Self { first_offset: Some(first), ..self }
    }

    /// Says where what there is ends.
    pub(crate) fn with_next_offset(self, next: u64) -> Self {
        Self { next_offset: Some(next), ..self }
    }

    /// The body of the answer, for the request of this id.
    pub(crate) fn problem(self, request_id: &RequestId) -> Problem {
        Problem {
            kind: format!("/docs/errors/{}", self.code),
            title: title(self.code).to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            code: self.code,
            request_id: request_id.0.clone(),
            retryable: self.retryable.unwrap_or_else(|| self.code.retryable()),
            errors: self.errors,
            execution: self.execution,
            first_offset: self.first_offset,
            next_offset: self.next_offset,
        }
    }

    /// The whole answer, for the request of this id.
    pub(crate) fn render(self, request_id: &RequestId) -> Response {
        let (code, status, closes, content_bytes) = (self.code, self.status, self.closes, self.content_bytes);
        let problem = self.problem(request_id);
        let body = match serde_json::to_vec(&problem) {
            Ok(body) => Body::from(body),
            Err(error) => {
                // Strings, numbers and lists of them: there is nothing in it that JSON cannot hold.
                tracing::error!(%error, "a problem could not be written as JSON");
                Body::empty()
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        if matches!(code, ErrorCode::Overloaded | ErrorCode::RateLimited | ErrorCode::QuotaExceeded) {
            headers.insert(RETRY_AFTER, RETRY_AFTER_S);
        }
        let range = content_bytes.map(|bytes| HeaderValue::try_from(format!("bytes */{bytes}")));
        headers.extend(range.and_then(Result::ok).map(|range| (CONTENT_RANGE, range)));
        if closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Replaces an answer that some layer made by itself, keeping what it says of allowed methods.
    pub(crate) fn from_foreign(response: &Response) -> Self {
        let code = match response.status() {
            StatusCode::NOT_FOUND => ErrorCode::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => ErrorCode::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => ErrorCode::RequestTimeout,
            StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::PayloadTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::UnsupportedMediaType,
            status if status.is_client_error() => ErrorCode::InvalidRequest,
            _ => ErrorCode::Internal,
        };
        let detail = match code {
            ErrorCode::MethodNotAllowed => {
                match response.headers().get(ALLOW).and_then(|value| value.to_str().ok()) {
                    Some(allowed) => format!("allowed here: {allowed}"),
                    None => title(code).to_owned(),
                }
            }
            _ => title(code).to_owned(),
        };
        let keeps_status = code != ErrorCode::InvalidRequest && code != ErrorCode::Internal;
        let made = Self::new(code, detail);
        if keeps_status { made } else { Self { status: response.status(), ..made } }
    }
}

impl IntoResponse for ApiError {
    /// A response without a body that carries the error to [`crate::app`].
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}
