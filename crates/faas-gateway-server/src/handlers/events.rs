//! `GET /api/v1/events`: what happens to instances and executions, for whoever follows it.
//!
//! A stream is the number of the last event that it has read and a page of those after it: it reads the next page when its
//! client has taken this one.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use faas_executor::store::{DEFAULT_TENANT, Event, EventBounds, EventFilter};
use faas_executor::{EventPage, Events, EventsError};
use faas_types::{ErrorCode, EventMessage, EventsEnd, LifecycleEvent, Problem, RequestId};
use futures_util::stream;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use crate::error::ApiError;
use crate::events::{self, EventFormat, Named};
use crate::instance_info::timestamp;
use crate::openapi::Problems;
use crate::query;
use crate::state::Shared;

/// How many kinds are asked for at most.
const MAX_KINDS: usize = 32;

/// How many events a stream holds at most.
const PAGE: u32 = 64;

/// The header that says what a client has read already (HTML living standard, "Server-sent events").
const LAST_EVENT_ID: &str = "last-event-id";

/// What can be asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// The number after which to begin; 0: with the oldest that is kept. A stream begins with what comes from now on where
    /// none is given, a page with the oldest.
    after: Option<u64>,
    /// Only kinds that begin so, `instance.` or `instance.running` for example; several are separated by commas.
    kind: Option<String>,
    /// Only what happened to the instance or execution of this id.
    subject: Option<String>,
    /// Of a page: the most entries, 1 to 1000. Default: 100
    limit: Option<usize>,
}

/// Follow what happens to instances and executions
///
/// As server-sent events, with the numbers as their ids and the kinds as their names, or as a line of JSON each: those
/// after the number `after` and then whatever comes, until the client closes the connection or the server ends. With
/// `accept: application/json` the answer is a page of those that there are. Who comes back says with `last-event-id` or
/// `after` where it was; no event is missed, whatever became of the server meanwhile.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    tag = "events",
    params(
        Parameters,
        ("last-event-id" = Option<u64>, Header, description = "As `after`; wins over it"),
    ),
    responses(
        (status = 200, description = "The events", content(
            (EventMessage = "text/event-stream"),
            (EventMessage = "application/x-ndjson"),
            (Vec<LifecycleEvent> = "application/json"),
        )),
        (status = 410, description = "gone: some after `after` are no longer kept; `first_offset` is the oldest that is",
            body = Problem, content_type = "application/problem+json"),
        (status = 416, description = "range_not_satisfiable: there is none of that number yet; `next_offset` is the next",
            body = Problem, content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(crate) async fn events(
    State(state): State<Shared>,
    Extension(request_id): Extension<RequestId>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let asked: Parameters = query::parse(&uri)?;
    let filter = filter(&asked)?;
    let after = resumed(&headers)?.or(asked.after);
    let format = format(&headers);
    if format.is_some() && asked.limit.is_some() {
        return Err(query::invalid("limit", "is for a page: accept: application/json"));
    }
    let limit = query::limit(asked.limit)?;
    let bounds = state.events.bounds().await.map_err(|error| ApiError::from_store(&error))?;
    let begin = begin(after, bounds, format.is_some())?;
    let Some(format) = format else {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let page = begin.page(&state.events, &filter, limit).await.map_err(refusal)?;
        let page: Vec<_> = page.events.iter().map(|event| told(event)).collect();
        return Ok(Json(page).into_response());
    };
    let following = Following {
        events: state.events.clone(),
        draining: state.draining.clone(),
        filter,
        place: begin,
        read: VecDeque::new(),
        request_id,
    };
    let said = stream::unfold(Some(following), |following| async {
        let mut following = following?;
        match following.next().await? {
            Ok(event) => Some((event, Some(following))),
            Err(error) => {
                let problem = error.problem(&following.request_id);
                let end = EventMessage::End(EventsEnd::Error(problem));
                Some((Named { name: "error".into(), id: None, said: end }, None))
            }
        }
    });
    Ok(events::response(format, said))
}

/// One client that follows.
struct Following {
    events: Events,
    draining: CancellationToken,
    filter: EventFilter,
    /// Up to where all has been read.
    place: Place,
    /// What has been read and not yet taken.
    read: VecDeque<Arc<Event>>,
    request_id: RequestId,
}

impl Following {
    /// The next event; none where the server ends.
    async fn next(&mut self) -> Option<Result<Named<EventMessage>, ApiError>> {
        let draining = self.draining.clone();
        loop {
            if draining.is_cancelled() {
                return None;
            }
            if let Some(event) = self.read.pop_front() {
                let said = told(&event);
                let (name, id) = (said.kind.clone().into(), Some(said.seq));
                return Some(Ok(Named { name, id, said: EventMessage::Event(said) }));
            }
            tokio::select! {
                read = self.read() => if let Err(error) = read {
                    return Some(Err(refusal(error)));
                },
                () = draining.cancelled() => {}
            }
        }
    }

    /// Waits for more and reads it.
    async fn read(&mut self) -> Result<(), EventsError> {
        self.events.more(self.place.after()).await?;
        let page = self.place.page(&self.events, &self.filter, PAGE).await?;
        self.place = Place::After(page.next);
        self.read = page.events.into();
        Ok(())
    }
}

/// The form of the answer; none is a page.
fn format(headers: &HeaderMap) -> Option<EventFormat> {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(',')).map(|range| {
        let kind = range.split(';').next().unwrap_or_default().trim();
        kind.to_ascii_lowercase()
    });
    let known = kinds.find_map(|kind| match kind.as_str() {
        "text/event-stream" => Some(Some(EventFormat::ServerSent)),
        "application/x-ndjson" => Some(Some(EventFormat::JsonLines)),
        "application/json" => Some(None),
        _ => None,
    });
    known.unwrap_or(Some(EventFormat::ServerSent))
}

fn filter(asked: &Parameters) -> Result<EventFilter, ApiError> {
    let kinds: Vec<String> =
        asked.kind.iter().flat_map(|kinds| kinds.split(',')).map(str::to_owned).collect();
    if kinds.len() > MAX_KINDS {
        return Err(query::invalid("kind", format_args!("has more than {MAX_KINDS} kinds")));
    }
    let is_kind =
        |kind: &String| !kind.is_empty() && kind.bytes().all(|b| matches!(b, b'a'..=b'z' | b'.' | b'_'));
    if let Some(wrong) = kinds.iter().find(|kind| !is_kind(kind)) {
        let message = format_args!("has {wrong:?}, and wants the beginning of a kind: letters, `.` and `_`");
        return Err(query::invalid("kind", message));
    }
    let is_id = |id: &String| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if asked.subject.as_ref().is_some_and(|id| !is_id(id)) {
        return Err(query::invalid("subject", "is no id"));
    }
    Ok(EventFilter { kinds, subject: asked.subject.clone() })
}

/// What the client has read already.
fn resumed(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(given) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    match given.to_str().ok().and_then(|id| id.parse().ok()) {
        Some(id) => Ok(Some(id)),
        None => Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "the header last-event-id is no number, and must be that of an event",
        )),
    }
}

/// Where a reader goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// With the oldest that is kept when it is read; as yet, the one after this number.
    Oldest(i64),
    /// After this number.
    After(i64),
}

impl Place {
    fn after(self) -> i64 {
        match self {
            Self::Oldest(after) | Self::After(after) => after,
        }
    }

    async fn page(self, events: &Events, filter: &EventFilter, limit: u32) -> Result<EventPage, EventsError> {
        match self {
            Self::Oldest(after) => Ok(events.page_of_kept(DEFAULT_TENANT, filter, after, limit).await?),
            Self::After(after) => events.page(DEFAULT_TENANT, filter, after, limit).await,
        }
    }
}

/// Where to begin.
fn begin(after: Option<u64>, bounds: EventBounds, streams: bool) -> Result<Place, ApiError> {
    let after = match after {
        None if streams => return Ok(Place::After(bounds.newest)),
        None | Some(0) => return Ok(Place::Oldest(bounds.oldest - 1)),
        Some(after) => i64::try_from(after).unwrap_or(i64::MAX),
    };
    if after > bounds.newest {
        let detail = format!("there is no event of number {after} yet; the last one is {}", bounds.newest);
        let next = unsigned(bounds.newest.saturating_add(1));
        return Err(ApiError::new(ErrorCode::RangeNotSatisfiable, detail).with_next_offset(next));
    }
    if after < bounds.oldest - 1 {
        return Err(gone(bounds.oldest));
    }
    Ok(Place::After(after))
}

fn gone(oldest: i64) -> ApiError {
    let detail = format!(
        "events before number {oldest} are no longer kept; begin anew, and with after=0 for the rest"
    );
    ApiError::new(ErrorCode::Gone, detail).with_first_offset(unsigned(oldest))
}

fn refusal(error: EventsError) -> ApiError {
    match error {
        EventsError::Gone { oldest } => gone(oldest),
        EventsError::Store(error) => ApiError::from_store(&error),
    }
}

/// An event as it is told.
fn told(event: &Event) -> LifecycleEvent {
    LifecycleEvent {
        seq: unsigned(event.seq),
        at: timestamp(unsigned(event.event.at_ms)),
        kind: event.event.kind.clone(),
        subject: event.event.subject.clone(),
        data: event.event.data.clone(),
    }
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header};
    use faas_executor::store::EventBounds;

    use super::{EventFormat, Parameters, Place, begin, filter, format, resumed};

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn events_are_sent_unless_a_document_is_asked_for() {
        let of = |accept| format(&headers(header::ACCEPT, accept));
        assert_eq!(of("*/*"), Some(EventFormat::ServerSent));
        assert_eq!(format(&HeaderMap::new()), Some(EventFormat::ServerSent));
        assert_eq!(of("text/html, Application/X-NDJSON;q=1"), Some(EventFormat::JsonLines));
        assert_eq!(of("application/json"), None);
        assert_eq!(of("text/event-stream, application/json"), Some(EventFormat::ServerSent));
    }

    #[test]
    fn it_begins_within_what_is_kept() {
        let bounds = EventBounds { oldest: 5, newest: 9 };
        let place = |after, streams| {
            begin(after, bounds, streams).map_err(|error| {
                let problem = error.problem(&faas_types::RequestId("r".to_owned()));
                (problem.status, problem.first_offset, problem.next_offset)
            })
        };
        assert_eq!(place(None, true), Ok(Place::After(9)));
        assert_eq!(place(None, false), Ok(Place::Oldest(4)));
        for streams in [true, false] {
            assert_eq!(place(Some(0), streams), Ok(Place::Oldest(4)));
            assert_eq!(place(Some(4), streams), Ok(Place::After(4)));
            assert_eq!(place(Some(9), streams), Ok(Place::After(9)));
            assert_eq!(place(Some(3), streams), Err((410, Some(5), None)));
            assert_eq!(place(Some(10), streams), Err((416, None, Some(10))));
            assert_eq!(place(Some(u64::MAX), streams), Err((416, None, Some(10))));
        }
        let empty = EventBounds { oldest: 1, newest: 0 };
        assert_eq!(begin(None, empty, false).unwrap(), Place::Oldest(0));
    }

    #[test]
    fn what_is_asked_for_is_checked() {
        let of = |kind: &str, subject: Option<&str>| {
            filter(&Parameters {
                kind: Some(kind.to_owned()),
                subject: subject.map(str::to_owned),
                ..Parameters::default()
            })
        };
        let good = of("instance.,execution.ended", Some("ins-0a")).unwrap();
        assert_eq!(good.kinds, ["instance.", "execution.ended"]);
        for (kind, subject) in [("", None), ("a,", None), ("a%", None), ("a", Some("")), ("a", Some("a b"))] {
            assert!(of(kind, subject).is_err(), "{kind:?} {subject:?}");
        }
        let id = header::HeaderName::from_static("last-event-id");
        assert_eq!(resumed(&headers(id.clone(), "17")).unwrap(), Some(17));
        assert!(resumed(&headers(id.clone(), "-1")).is_err() && resumed(&headers(id, "")).is_err());
    }
}
