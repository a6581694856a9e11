//! A request's body as JSON: read within its limits, parsed with an error that says where.
//!
//! What cannot be parsed is 400; what can and does not fit is 422 with a JSON Pointer to the member.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use faas_types::{ErrorCode, FieldError};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_path_to_error::Segment;

use crate::body_budget::BodyRoom;
use crate::error::ApiError;
use crate::offload;
use crate::state::{Shared, State};

/// The longest message of a parser that is repeated: it may quote the value.
const MAX_MESSAGE_BYTES: usize = 300;

/// A JSON body.
#[derive(Debug)]
pub(crate) struct JsonBody<T> {
    /// What it says.
    pub(crate) value: T,
    /// How many bytes it had.
    pub(crate) bytes: usize,
    /// To be kept as long as what it says is.
    pub(crate) room: BodyRoom,
}

impl<T: DeserializeOwned + Send + 'static> FromRequest<Shared> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        check_content_type(&parts.headers).map_err(ApiError::closing)?;
        let (bytes, room) = match parts.extensions.get::<ReadBody>().and_then(ReadBody::take) {
            Some(read_before) => read_before,
            None => read(&parts.headers, body, state).await.map_err(ApiError::closing)?,
        };
        let length = bytes.len();
        let value = offload::by_size(length, move || parse(&bytes)).await??;
        Ok(Self { value, bytes: length, room })
    }
}

/// A JSON body that may be left out. Its content type may not: a web page can send a request without one, but not with
/// this one without asking first (Fetch standard, "CORS-safelisted request-header").
#[derive(Debug)]
pub(crate) struct OptionalJson<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<Shared> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        check_content_type(&parts.headers).map_err(ApiError::closing)?;
        let (bytes, _room) = read(&parts.headers, body, state).await.map_err(ApiError::closing)?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        Ok(Self(parse::<Option<T>>(&bytes)?.unwrap_or_default()))
    }
}

/// The media type of a body, in lower case and without parameters.
#[cfg(all(target_os = "linux", feature = "native"))]
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    value.split(';').next().map(|kind| kind.trim().to_ascii_lowercase())
}

/// How long the body is, where the request says it.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok())
}

/// Bodies are taken as they are.
pub(crate) fn refuse_content_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        let detail = "a body with a content-encoding is not taken; send it as it is";
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType, detail));
    }
    Ok(())
}

/// A body that a layer has read before the handler.
#[derive(Clone, Debug)]
pub(crate) struct ReadBody(Arc<Mutex<Option<(Bytes, BodyRoom)>>>);

impl ReadBody {
    pub(crate) fn new(bytes: Bytes, room: BodyRoom) -> Self {
        Self(Arc::new(Mutex::new(Some((bytes, room)))))
    }

    fn take(&self) -> Option<(Bytes, BodyRoom)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whether the body is said to be JSON as it is.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    check_content_type(headers).is_ok()
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let refuse = |detail: &str| Err(ApiError::new(ErrorCode::UnsupportedMediaType, detail));
    refuse_content_encoding(headers)?;
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return refuse("the header content-type is missing; it must be application/json");
    };
    let mut parts = value.to_str().unwrap_or_default().split(';').map(str::trim);
    if !parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return refuse("the header content-type must be application/json");
    }
    for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
        if name.eq_ignore_ascii_case("charset") && !value.trim_matches('"').eq_ignore_ascii_case("utf-8") {
            return refuse("JSON is UTF-8; another charset is not taken");
        }
    }
    Ok(())
}

/// Reads a body within its limits.
///
/// # Errors
/// 413, 408, 400, or 503 where the server holds as many bodies as it takes. The connection is at no request's beginning
/// then.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    state: &State,
) -> Result<(Bytes, BodyRoom), ApiError> {
    let limit = state.bodies.max_bytes();
    let too_large = || {
        let detail = format!("the body is longer than {limit} bytes, the most that this server takes");
        ApiError::new(ErrorCode::PayloadTooLarge, detail)
    };
    let declared = content_length(headers);
    if declared.is_some_and(|declared| declared > limit) {
        return Err(too_large());
    }
    let Ok(room) = tokio::time::timeout(state.body_timeout, state.bodies.room(declared)).await else {
        return Err(ApiError::new(
            ErrorCode::Overloaded,
            "the server holds as many large bodies as it takes",
        ));
    };
    let collect = Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX)).collect();
    match tokio::time::timeout(state.body_timeout, collect).await {
        Ok(Ok(collected)) => Ok((collected.to_bytes(), room)),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the body cannot be read");
            Err(ApiError::malformed("the body cannot be read to its end"))
        }
        Err(_elapsed) => {
            let within = state.body_timeout.as_millis();
            let detail = format!("the body did not arrive within {within} ms");
            Err(ApiError::new(ErrorCode::RequestTimeout, detail))
        }
    }
}

/// Parses a body.
///
/// # Errors
/// 400 when it is no JSON in UTF-8 or nested too deeply, 422 when it is not a `T`.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let bad = |detail: String| ApiError::malformed(detail);
    if body.is_empty() {
        return Err(bad("the body is empty; JSON is expected".to_owned()));
    }
    let text = std::str::from_utf8(body)
        .map_err(|error| bad(format!("the body is not UTF-8 from byte {} on", error.valid_up_to())))?;
    let not_json =
        |error: &serde_json::Error| bad(format!("the body is not JSON: {}", shortened(&error.to_string())));
    let mut deserializer = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(value) => match deserializer.end() {
            Ok(()) => Ok(value),
            Err(error) => Err(not_json(&error)),
        },
        Err(error) if error.inner().is_data() => {
            // What comes after the member that does not fit may be broken, and that is the first thing to say.
            if let Err(error) = serde_json::from_str::<Anything>(text) {
                return Err(not_json(&error));
            }
            let pointer = pointer(error.path());
            Err(ApiError::invalid(vec![FieldError { pointer, message: message(error.inner()) }]))
        }
        Err(error) => Err(not_json(error.inner())),
    }
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => {
                pointer.push('/');
                pointer.push_str(&escape(key));
            }
            Segment::Enum { .. } | Segment::Unknown => break,
        }
    }
    pointer
}

/// A member's name as it stands in a JSON Pointer (RFC 6901).
pub(crate) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The parser's message, without the place: the pointer says that.
fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    shortened(text.strip_suffix(&place).unwrap_or(&text))
}

fn shortened(text: &str) -> String {
    if text.len() <= MAX_MESSAGE_BYTES {
        return text.to_owned();
    }
    let half = MAX_MESSAGE_BYTES / 2;
    format!(
        "{} ... {}",
        &text[..text.floor_char_boundary(half)],
        &text[text.ceil_char_boundary(text.len() - half)..]
    )
}

/// Any JSON, looked at and dropped. Unlike `IgnoredAny` it recurses, so that the parser's limit on depth holds.
struct Anything;

impl<'de> serde::Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyVisitor;
        impl<'de> Visitor<'de> for AnyVisitor {
            type Value = Anything;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_str<E>(self, _: &str) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_unit<E>(self) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Anything, A::Error> {
                while seq.next_element::<Anything>()?.is_some() {}
                Ok(Anything)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Anything, A::Error> {
                while map.next_entry::<IgnoredAny, Anything>()?.is_some() {}
                Ok(Anything)
            }
        }
        deserializer.deserialize_any(AnyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use faas_types::{ErrorCode, ExecuteRequest, Problem, RequestId};

    use super::parse;

    fn refused(body: impl AsRef<[u8]>) -> Problem {
        parse::<ExecuteRequest>(body.as_ref()).unwrap_err().problem(&RequestId("r".to_owned()))
    }

    #[test]
    fn what_is_no_json_is_400_and_says_where() {
        for (body, said) in [
            (&b""[..], "empty"),
            (b"{\"command\": \"x\"", "line 1 column 15"),
            (b"{\"command\":\n nope}", "line 2"),
            (b"{\"command\": \"x\"} {}", "trailing"),
            (b"{\"command\": \"\xff\"}", "byte 13"),
            (b"{\"command\": \"\\ud800\"}", "not JSON"),
            (b"{\"command\": 1, \"b\": nope}", "line 1 column 22"),
        ] {
            let problem = refused(body);
            assert_eq!(
                (problem.status, problem.code),
                (400, ErrorCode::InvalidRequest),
                "{}",
                problem.detail
            );
            assert!(problem.detail.contains(said), "{}", problem.detail);
        }
    }

    #[test]
    fn deep_nesting_is_400() {
        for member in ["command", "image", "no_such"] {
            let body = format!("{{\"{member}\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
            let problem = refused(&body);
            assert_eq!(problem.status, 400, "{}", problem.detail);
            assert!(problem.detail.contains("recursion"), "{}", problem.detail);
        }
    }

    #[test]
    fn what_does_not_fit_is_422_and_points_at_the_member() {
        for (body, pointer, said) in [
            (r#"{"command":1}"#, "/command", "string"),
            (r#"{"command":["a",2]}"#, "/command", "string"),
            (r#"{"command":"a","timeout_ms":-1}"#, "/timeout_ms", "-1"),
            (r#"{"command":"a","timeout_ms":1.5}"#, "/timeout_ms", "1.5"),
            (r#"{"command":"a","runtime":"podman"}"#, "/runtime", "podman"),
            (r#"{"command":"a","files":[{"path":"x","content":"","owner":3}]}"#, "/files/0/owner", "owner"),
            (r#"{"command":"a","files":[{"content":""}]}"#, "/files/0", "path"),
            (r#"{"command":"a","comand":"b"}"#, "/comand", "comand"),
            (r#"{"command":"a","image":"x","image":"y"}"#, "", "duplicate field `image`"),
            (r#"{"command":"a","labels":{"a/b":1}}"#, "/labels/a~1b", "string"),
            ("[]", "", "expected"),
            ("3", "", "expected"),
        ] {
            let problem = refused(body);
            assert_eq!(problem.status, 422, "{body}: {}", problem.detail);
            assert_eq!(problem.errors[0].pointer, pointer, "{body}: {}", problem.detail);
            assert!(problem.errors[0].message.contains(said), "{body}: {}", problem.detail);
            assert!(!problem.errors[0].message.contains("column"), "{body}: {}", problem.detail);
        }
    }

    #[test]
    fn a_long_value_is_not_repeated_whole() {
        let body = format!("{{\"command\":\"a\",\"timeout_ms\":\"{}\"}}", "ä".repeat(10_000));
        assert!(refused(body).detail.len() < 1000);
    }
}
