//! `/api/v1/instances/{id}/logs`: what became of an instance and what its main command said.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use faas_executor::{EngineError, LogFollower};
use faas_guest_protocol::OutputStream;
use faas_types::{InstanceId, LogEntry, LogEvent, LogItem, LogOutput};
use futures_util::stream::{self, StreamExt as _};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::error::ApiError;
use crate::events::{self, EventFormat, Named};
use crate::handlers::subject::Subject;
use crate::instance_info::timestamp;
use crate::openapi::Problems;
use crate::query;
use crate::state::Shared;

/// How many entries are given where nobody says how many, and at most.
const TAIL: usize = 1000;
const MAX_TAIL: usize = 10_000;

/// What can be asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogParameters {
    /// The newest so many entries, 0 to 10000. Default: 1000
    tail: Option<usize>,
}

/// Get or follow the log of an instance
///
/// What became of it, and what its main command said in all runs that are kept, in one order: the newest entries, at most
/// 4 MiB of output. With `accept: text/event-stream` or `application/x-ndjson` they come as events, and then what comes,
/// until the instance is deleted.
#[utoipa::path(
    get,
    path = "/api/v1/instances/{id}/logs",
    tag = "instances",
    params(("id" = String, Path, description = "Its id"), LogParameters),
    responses(
        (status = 200, description = "Its log, the oldest first", content(
            (Vec<LogEntry> = "application/json"),
            (LogEntry = "text/event-stream"),
            (LogEntry = "application/x-ndjson"),
        )),
        Problems,
    ),
)]
pub(crate) async fn logs(
    State(state): State<Shared>,
    uri: Uri,
    target: Subject<InstanceId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let asked: LogParameters = query::parse(&uri)?;
    let most = asked.tail.unwrap_or(TAIL);
    if most > MAX_TAIL {
        return Err(query::invalid("tail", format_args!("is {most}, and must be 0 to {MAX_TAIL}")));
    }
    let logs = state.instances.logs(&target.tenant, &target.id, most).await;
    let (entries, follower) = logs.map_err(|error| target.refusal(error))?;
    let entries: Vec<_> = entries.into_iter().map(shown).collect();
    let Some(format) = EventFormat::wanted(&headers) else {
        return Ok(Json(entries).into_response());
    };
    let live = stream::unfold(Some((follower, target, state)), |following| async {
        let (mut follower, target, state) = following?;
        let next = tokio::select! {
            next = next(&mut follower, &target) => next?,
            () = state.draining.cancelled() => failed(EngineError::ShuttingDown, &target),
        };
        let goes_on = !matches!(next.item, LogItem::Error(_));
        Some((next, goes_on.then_some((follower, target, state))))
    });
    let said = stream::iter(entries).chain(live).map(|entry| {
        let name = match entry.item {
            LogItem::Event(_) => "event",
            LogItem::Stdout(_) => "stdout",
            LogItem::Stderr(_) => "stderr",
            LogItem::Error(_) => "error",
        };
        Named { name: name.into(), id: None, said: entry }
    });
    Ok(events::response(format, said))
}

async fn next(follower: &mut LogFollower, target: &Subject<InstanceId>) -> Option<LogEntry> {
    match follower.next().await {
        Ok(entry) => entry.map(shown),
        Err(error) => Some(failed(error, target)),
    }
}

fn failed(error: EngineError, target: &Subject<InstanceId>) -> LogEntry {
    let failure = target.refusal(error).problem(&target.request_id).into();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let at = timestamp(u64::try_from(now.as_millis()).unwrap_or_default());
    LogEntry { at, item: LogItem::Error(failure) }
}

fn shown(entry: faas_executor::LogEntry) -> LogEntry {
    let item = match entry.item {
        faas_executor::LogItem::Event { kind, reason } => LogItem::Event(LogEvent { kind, reason }),
        faas_executor::LogItem::Output { execution, stream, bytes } => {
            let (data, data_base64) = match String::from_utf8(bytes) {
                Ok(text) => (Some(text), None),
                Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
            };
            let output = LogOutput { execution_id: execution, data, data_base64 };
            match stream {
                OutputStream::Stdout => LogItem::Stdout(output),
                OutputStream::Stderr => LogItem::Stderr(output),
            }
        }
    };
    LogEntry { at: timestamp(entry.at_ms), item }
}
