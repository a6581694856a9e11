//! Answers that come in events: as server-sent events (HTML living standard, "Server-sent events") or as newline
//! delimited JSON, one event a line.

use std::borrow::Cow;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{Stream, StreamExt as _};
use serde::Serialize;

/// How long a stream is silent at most, so that no proxy takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The form of the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventFormat {
    /// `text/event-stream`.
    ServerSent,
    /// `application/x-ndjson`.
    JsonLines,
}

impl EventFormat {
    /// The form that a request wants its answer in; none where it takes one JSON document.
    pub(crate) fn wanted(headers: &HeaderMap) -> Option<Self> {
        let accepted = || {
            headers
                .get_all(header::ACCEPT)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .map(|range| range.split(';').next().unwrap_or_default().trim())
        };
        if accepted().any(|kind| kind.eq_ignore_ascii_case("application/json") || kind == "*/*") {
            return None;
        }
        accepted().find_map(|kind| match kind.to_ascii_lowercase().as_str() {
            "text/event-stream" => Some(Self::ServerSent),
            "application/x-ndjson" => Some(Self::JsonLines),
            _ => None,
        })
    }
}

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Named<T> {
    pub(crate) name: Cow<'static, str>,
    /// Where a reader can go on after it.
    pub(crate) id: Option<u64>,
    /// Where the form has no place for the name, it is to be in this.
    pub(crate) said: T,
}

impl<T> From<(&'static str, T)> for Named<T> {
    fn from((name, said): (&'static str, T)) -> Self {
        Self { name: name.into(), id: None, said }
    }
}

/// An answer of events.
pub(crate) fn response<T: Serialize + Send + 'static>(
    format: EventFormat,
    events: impl Stream<Item: Into<Named<T>>> + Send + 'static,
) -> Response {
    let events = events.map(Into::into);
    match format {
        EventFormat::ServerSent => {
            let events = events.map(|Named { name, id, said }| {
                let event = match id {
                    Some(id) => Event::default().id(id.to_string()),
                    None => Event::default(),
                };
                // What is said is plain data: there is nothing in it that JSON cannot hold.
                event.event(name).json_data(said).or_else(|error| {
                    tracing::error!(%error, "an event could not be written as JSON");
                    Ok::<_, Infallible>(Event::default().event("error"))
                })
            });
            Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
        }
        EventFormat::JsonLines => {
            let lines = futures_util::stream::unfold(events.boxed(), |mut events| async move {
                let line = match tokio::time::timeout(KEEP_ALIVE, events.next()).await {
                    Ok(Some(Named { said, .. })) => serde_json::to_vec(&said).map(|mut line| {
                        line.push(b'\n');
                        line
                    }),
                    Ok(None) => return None,
                    Err(_elapsed) => Ok(b"\n".to_vec()),
                };
                Some((line, events))
            });
            ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header};
    use futures_util::stream;
    use http_body_util::BodyExt as _;

    use super::{EventFormat, response};

    fn wanted(accept: &'static str) -> Option<EventFormat> {
        EventFormat::wanted(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
    }

    #[test]
    fn events_come_where_no_document_is_taken() {
        assert_eq!(wanted("text/event-stream"), Some(EventFormat::ServerSent));
        assert_eq!(wanted("application/x-ndjson;q=1, text/html"), Some(EventFormat::JsonLines));
        assert_eq!(wanted("text/event-stream, application/json"), None);
        assert_eq!(wanted("*/*"), None);
        assert_eq!(EventFormat::wanted(&HeaderMap::new()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn both_forms_say_the_same_and_are_never_silent_for_long() {
        for (format, expected) in [
            (EventFormat::ServerSent, "event: a\ndata: {\"x\":1}\n\n"),
            (EventFormat::JsonLines, "{\"x\":1}\n"),
        ] {
            let later = stream::once(async {
                tokio::time::sleep(super::KEEP_ALIVE * 3).await;
                ("a", serde_json::json!({"x": 1}))
            });
            let body = response(format, later).into_body().collect().await.unwrap().to_bytes();
            let text = std::str::from_utf8(&body).unwrap();
            assert!(text.ends_with(expected), "{text}");
            assert!(text.len() > expected.len(), "{text}");
        }
    }
}
