//! Error codes and the problem body (RFC 9457) that carries them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Every way in which the gateway itself can fail a request. User code that fails is not one of them.
///
/// Each code has a page in `docs/errors/`, named as the code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request cannot be parsed (400), or is parsed and not valid (422).
    InvalidRequest,
    /// No valid credentials.
    Unauthorized,
    /// Valid credentials that do not allow this.
    Forbidden,
    /// No such route or resource, or it belongs to somebody else.
    NotFound,
    /// The route exists, not with this method.
    MethodNotAllowed,
    /// The client was too slow to send its request.
    RequestTimeout,
    /// The resource's state does not allow this; the detail names the state.
    Conflict,
    /// What was asked for is no longer held.
    Gone,
    /// The body is larger than the server takes.
    PayloadTooLarge,
    /// The content type is not one the route takes.
    UnsupportedMediaType,
    /// The range asked for lies outside the content.
    RangeNotSatisfiable,
    /// Too many requests in too short a time.
    RateLimited,
    /// A quota of the tenant is used up.
    QuotaExceeded,
    /// The runtime asked for cannot be used on this host; the detail gives the probe's reason.
    RuntimeUnavailable,
    /// This server, or the runtime asked for, does not do this; the detail gives the reason.
    Unsupported,
    /// More work than the server takes at once.
    Overloaded,
    /// The image cannot be had.
    ImageUnavailable,
    /// The sandbox died under the execution.
    SandboxLost,
    /// The host has no room left.
    InsufficientStorage,
    /// The command was still running at its timeout; member `execution` holds the answer so far.
    ExecutionTimeout,
    /// A fault of the server. Nothing of its inside is shown.
    Internal,
}

impl ErrorCode {
    /// All codes, in the order of the documentation.
    pub const ALL: [Self; 21] = [
        Self::InvalidRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::Conflict,
        Self::Gone,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::RangeNotSatisfiable,
        Self::RateLimited,
        Self::QuotaExceeded,
        Self::RuntimeUnavailable,
        Self::Unsupported,
        Self::Overloaded,
        Self::ImageUnavailable,
        Self::SandboxLost,
        Self::InsufficientStorage,
        Self::ExecutionTimeout,
        Self::Internal,
    ];

    /// The code as it stands in `code` and in the name of its documentation page.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::RangeNotSatisfiable => "range_not_satisfiable",
            Self::RateLimited => "rate_limited",
            Self::QuotaExceeded => "quota_exceeded",
            Self::RuntimeUnavailable => "runtime_unavailable",
            Self::Unsupported => "unsupported",
            Self::Overloaded => "overloaded",
            Self::ImageUnavailable => "image_unavailable",
            Self::SandboxLost => "sandbox_lost",
            Self::InsufficientStorage => "insufficient_storage",
            Self::ExecutionTimeout => "execution_timeout",
            Self::Internal => "internal",
        }
    }

    /// Whether the same request may succeed later without a change.
    #[must_use]
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::RequestTimeout
                | Self::RateLimited
                | Self::QuotaExceeded
                | Self::Overloaded
                | Self::ImageUnavailable
                | Self::SandboxLost
                | Self::InsufficientStorage
                | Self::Internal
        )
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The body of every error answer: `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A relative reference to the code's page: `/docs/errors/CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words; the same for every occurrence.
    pub title: String,
    /// The HTTP status, repeated.
    pub status: u16,
    /// What happened this time and what to do about it.
    pub detail: String,
    /// What a program decides by.
    pub code: ErrorCode,
    /// The id of the request, as in the header `x-request-id`.
    pub request_id: String,
    /// Whether the same request may succeed later without a change.
    pub retryable: bool,
    /// The members of the body that are not valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// With `execution_timeout`: the answer so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Box<crate::ExecuteResponse>>,
    /// With `gone`: the first offset, or number of an event, that is still held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_offset: Option<u64>,
    /// With `range_not_satisfiable`: the offset, or number of an event, that comes next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<u64>,
}

/// An error as a message with a `type` of its own says it: the members of a [`Problem`] that are for a reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// The code in words.
    pub title: String,
    /// The HTTP status that an answer would have.
    pub status: u16,
    /// What happened this time and what to do about it.
    pub detail: String,
    /// What a program decides by.
    pub code: ErrorCode,
    /// The id of the request.
    pub request_id: String,
    /// Whether the same request may succeed later without a change.
    pub retryable: bool,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self {
            title: problem.title,
            status: problem.status,
            detail: problem.detail,
            code: problem.code,
            request_id: problem.request_id,
            retryable: problem.retryable,
        }
    }
}

/// One member of the request that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// Where: a JSON Pointer (RFC 6901) into the body, `""` for the whole of it.
    pub pointer: String,
    /// What is wrong with it.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn every_code_is_spelled_as_serde_spells_it() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
