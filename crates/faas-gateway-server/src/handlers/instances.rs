//! `/api/v1/instances`: sandboxes that outlive one request.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use axum::{Extension, Json};
use faas_executor::guest::Held;
use faas_executor::store::{InstanceFilter, Position};
use faas_executor::{EngineError, InstanceInfo, Removal};
use faas_types::{
    CreateInstanceRequest, ExecRequest, ExecuteEvent, ExecuteResponse, Execution, Instance, InstanceId,
    InstanceMetrics, InstanceStatus, RequestId, StopRequest, TimeoutRequest, UpdateInstanceRequest,
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::error::ApiError;
use crate::events::EventFormat;
use crate::extract::{JsonBody, OptionalJson};
use crate::handlers::subject::{Bare, Subject, tenant};
use crate::handlers::{execute, execute_stream, executions};
use crate::idempotency::Tie;
use crate::openapi::Problems;
use crate::state::Shared;
use crate::{instance_info, label_filter, offload, query, validate};

/// The answer to what was done with an instance.
fn answer(
    target: &Subject<InstanceId>,
    done: Result<InstanceInfo, EngineError>,
) -> Result<Json<Instance>, ApiError> {
    Ok(Json(instance_info::instance(done.map_err(|error| target.refusal(error))?)))
}

/// Create an instance
///
/// Answers when commands can be run in it. It is there until it is deleted or its time is over, whatever becomes of the
/// server. One whose client goes away while it is made is deleted again.
#[utoipa::path(
    post,
    path = "/api/v1/instances",
    tag = "instances",
    params(("idempotency-key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    request_body = CreateInstanceRequest,
    responses(
        (status = 201, description = "It runs", body = Instance, headers(
            ("idempotency-replayed" = String, description = "`true` where the answer was given before"),
        )),
        Problems,
    ),
)]
pub(crate) async fn create(
    State(state): State<Shared>,
    Extension(request_id): Extension<RequestId>,
    uri: Uri,
    body: Result<JsonBody<CreateInstanceRequest>, ApiError>,
) -> Result<Response, ApiError> {
    let JsonBody { value, bytes, room } = body?;
    query::none(&uri)?;
    let rules = state.limits;
    let new = offload::by_size(bytes, move || validate::new_instance(value, tenant(), &rules)).await??;
    let created = state.instances.create(new).await;
    drop(room);
    let created = created.map_err(|error| ApiError::from_engine(error, &request_id))?;
    Ok((StatusCode::CREATED, Json(instance_info::instance(created))).into_response())
}

/// What can be asked of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParameters {
    /// Only those of this status; several are separated by commas.
    status: Option<String>,
    /// The most entries of the answer: 1 to 1000. Default: 100
    limit: Option<usize>,
    /// The header `x-next-cursor` of the page before.
    cursor: Option<String>,
}

fn filter(asked: &ListParameters, labels: &[String]) -> Result<InstanceFilter, ApiError> {
    let mut filter = InstanceFilter::default();
    for word in asked.status.iter().flat_map(|words| words.split(',')) {
        let known = InstanceStatus::ALL.into_iter().find(|status| status.as_str() == word);
        let status = known.ok_or_else(|| {
            let all: Vec<_> = InstanceStatus::ALL.into_iter().map(InstanceStatus::as_str).collect();
            query::invalid("status", format_args!("is {word:?}, and must be of {}", all.join(", ")))
        })?;
        filter.status.extend(faas_executor::state::InstanceState::shown_as(status).map(str::to_owned));
    }
    filter.labels = label_filter::parse(labels)?;
    Ok(filter)
}

/// A place in a list that is sorted by time of creation and id.
pub(crate) fn position(cursor: &str) -> Option<Position> {
    let (created, id) = cursor.split_once('-')?;
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    plain.then_some(Position { created_at_ms: i64::from_str_radix(created, 16).ok()?, id: id.to_owned() })
}

/// List instances
///
/// The newest first.
#[utoipa::path(
    get,
    path = "/api/v1/instances",
    tag = "instances",
    params(
        ListParameters,
        ("label" = Option<Vec<String>>, Query, description = "Only those with this label, `KEY=VALUE`; several are separated \
            by commas or come as several parameters, and all must be there. A `,` or `=` that is part of a label has `\\` \
            before it"),
    ),
    responses(
        (status = 200, description = "A page of the list", body = [Instance], headers(
            ("x-next-cursor" = String, description = "The cursor of the next page, where there is one"),
        )),
        Problems,
    ),
)]
pub(crate) async fn list(
    State(state): State<Shared>,
    Extension(request_id): Extension<RequestId>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let (asked, labels): (ListParameters, _) = query::parse_with(&uri, "label")?;
    let limit = query::limit(asked.limit)?;
    let after = asked.cursor.as_deref().map(|cursor| {
        position(cursor).ok_or_else(|| query::invalid("cursor", "is none that this server has given"))
    });
    let after = after.transpose()?;
    let page = state.instances.list(&tenant(), &filter(&asked, &labels)?, after.as_ref(), limit).await;
    let page = page.map_err(|error| ApiError::from_engine(error, &request_id))?;
    let next = page.next.map(|next| (query::NEXT_CURSOR, format!("{:x}-{}", next.created_at_ms, next.id)));
    let instances: Vec<_> = page.instances.into_iter().map(instance_info::instance).collect();
    Ok((AppendHeaders(next), Json(instances)).into_response())
}

/// Get an instance
#[utoipa::path(
    get,
    path = "/api/v1/instances/{id}",
    tag = "instances",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "It", body = Instance), Problems),
)]
pub(crate) async fn get(
    State(state): State<Shared>,
    Bare(target): Bare<InstanceId>,
) -> Result<Json<Instance>, ApiError> {
    answer(&target, state.instances.get(&target.tenant, &target.id))
}

/// Change the limits of an instance that runs
///
/// All or nothing. Its disk limit stays.
#[utoipa::path(
    patch,
    path = "/api/v1/instances/{id}",
    tag = "instances",
    params(("id" = String, Path, description = "Its id")),
    request_body = UpdateInstanceRequest,
    responses((status = 200, description = "It has them", body = Instance), Problems),
)]
pub(crate) async fn update(
    State(state): State<Shared>,
    Bare(target): Bare<InstanceId>,
    body: Result<JsonBody<UpdateInstanceRequest>, ApiError>,
) -> Result<Json<Instance>, ApiError> {
    let JsonBody { value, .. } = body?;
    let change = validate::limit_change(&value, &state.limits)?;
    answer(&target, state.instances.set_limits(&target.tenant, &target.id, change).await)
}

/// Delete an instance
///
/// Its processes are killed and its files removed, whatever its status, while it is created too. Once more is 204 again.
#[utoipa::path(
    delete,
    path = "/api/v1/instances/{id}",
    tag = "instances",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 204, description = "Nothing of it is left"),
        (status = 202, description = "It is being deleted, which takes longer than usual and is not stopped by anything"),
        Problems,
    ),
)]
pub(crate) async fn delete(
    State(state): State<Shared>,
    Bare(target): Bare<InstanceId>,
) -> Result<StatusCode, ApiError> {
    match state.instances.delete(&target.tenant, &target.id).await {
        Ok(Removal::Gone) => Ok(StatusCode::NO_CONTENT),
        Ok(Removal::UnderWay) => Ok(StatusCode::ACCEPTED),
        Err(error) => Err(target.refusal(error)),
    }
}

/// Run one command in an instance
///
/// Answers when it has ended. What it started in the background runs on. A command that fails is a 200 with its
/// `exit_code`; a client that closes its connection cancels its command, with all that it started.
///
/// With `accept: text/event-stream` or `application/x-ndjson` the answer comes as events, as that of `/api/v1/execute`.
///
/// With `background` the answer is the execution, at once; with `keep_running` the command does not end with its client.
/// Both are listed, and can be read from, written to and signalled under `/api/v1/executions/{id}`.
#[utoipa::path(
    post,
    path = "/api/v1/instances/{id}/exec",
    tag = "instances",
    params(
        ("id" = String, Path, description = "Its id"),
        ("idempotency-key" = Option<String>, Header, description = "1 to 255 visible ASCII characters"),
    ),
    request_body = ExecRequest,
    responses(
        (status = 200, description = "The command ran, whatever its exit code", content(
            (ExecuteResponse = "application/json"),
            (ExecuteEvent = "text/event-stream"),
            (ExecuteEvent = "application/x-ndjson"),
        ), headers(
            ("idempotency-replayed" = String, description = "`true` where the answer was given before"),
        )),
        (status = 202, description = "It runs in the background", body = Execution),
        Problems,
    ),
)]
pub(crate) async fn exec(
    State(state): State<Shared>,
    Bare(target): Bare<InstanceId>,
    headers: HeaderMap,
    tie: Option<Extension<Tie>>,
    body: Result<JsonBody<ExecRequest>, ApiError>,
) -> Result<Response, ApiError> {
    let JsonBody { value, bytes, room } = body?;
    execute::refuse_to_resume(&headers)?;
    // What it may be given depends on the instance.
    let of_instance = state.instances.get(&target.tenant, &target.id);
    let limits = of_instance.map_err(|error| target.refusal(error))?.limits;
    let (rules, request_id) = (state.limits, target.request_id.clone());
    let validated = offload::by_size(bytes, move || validate::exec(value, request_id, &limits, &rules));
    let held = Some(Held::new(room));
    let mut spec = match validated.await?? {
        validate::Exec::Waiting(spec) => *spec,
        validate::Exec::Lasting(mut spec) => {
            spec.command.held = held;
            return executions::start(&state, &target, &headers, tie, *spec).await;
        }
    };
    spec.held = held;
    if let Some(format) = EventFormat::wanted(&headers) {
        let (most, request_id) = (spec.max_output_bytes, target.request_id.clone());
        return execute_stream::answer(state, request_id, format, most, |state, mut writer| {
            Box::pin(async move {
                state.instances.exec(&target.tenant, &target.id, spec, Some(&mut writer)).await
            })
        })
        .await;
    }
    match state.instances.exec(&target.tenant, &target.id, spec, None).await {
        Ok(outcome) => execute::answer(&state, outcome, target.request_id).await,
        Err(error) => Err(target.refusal(error)),
    }
}

/// Stop an instance
///
/// Its processes are asked by SIGTERM to end, and killed when they have not after `grace_ms`. Its files stay, those in
/// memory aside (`/run`, `/dev/shm`). One that is stopped already is answered as it is.
#[utoipa::path(
    post,
    path = "/api/v1/instances/{id}/stop",
    tag = "instances",
    params(("id" = String, Path, description = "Its id")),
    request_body = Option<StopRequest>,
    responses((status = 200, description = "It is stopped", body = Instance), Problems),
)]
pub(crate) async fn stop(
    State(state): State<Shared>,
    Bare(target): Bare<InstanceId>,
    body: Result<OptionalJson<StopRequest>, ApiError>,
) -> Result<Json<Instance>, ApiError> {
    let OptionalJson(request) = body?;
    let grace = validate::grace(request)?;
    answer(&target, state.instances.stop(&target.tenant, &target.id, grace).await)
}

/// Start an instance
///
/// One that is stopped, or has failed and still has its files. No process of before is there.
#[utoipa::path(
    post,
    path = "/api/v1/instances/{id}/start",
    tag = "instances",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "It runs", body = Instance), Problems),
)]
pub(crate) async fn start(
    State(state): State<Shared>,
    Bare(target): Bare<InstanceId>,
    body: Result<OptionalJson<Nothing>, ApiError>,
) -> Result<Json<Instance>, ApiError> {
    let OptionalJson(Nothing {}) = body?;
    answer(&target, state.instances.start(&target.tenant, &target.id).await)
}

/// Pause an instance
///
/// Its processes are stopped where they are and use no CPU time. A command that is running goes on when the instance is
/// resumed; its timeout does not run meanwhile.
#[utoipa::path(
    post,
    path = "/api/v1/instances/{id}/pause",
    tag = "instances",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "It is paused", body = Instance), Problems),
)]
pub(crate) async fn pause(
    State(state): State<Shared>,
    Bare(target): Bare<InstanceId>,
    body: Result<OptionalJson<Nothing>, ApiError>,
) -> Result<Json<Instance>, ApiError> {
    let OptionalJson(Nothing {}) = body?;
    answer(&target, state.instances.pause(&target.tenant, &target.id).await)
}

/// Resume an instance
#[utoipa::path(
    post,
    path = "/api/v1/instances/{id}/resume",
    tag = "instances",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "It runs", body = Instance), Problems),
)]
pub(crate) async fn resume(
    State(state): State<Shared>,
    Bare(target): Bare<InstanceId>,
    body: Result<OptionalJson<Nothing>, ApiError>,
) -> Result<Json<Instance>, ApiError> {
    let OptionalJson(Nothing {}) = body?;
    answer(&target, state.instances.resume(&target.tenant, &target.id).await)
}

/// Change how long an instance is there
///
/// Both times are counted from now.
#[utoipa::path(
    post,
    path = "/api/v1/instances/{id}/timeout",
    tag = "instances",
    params(("id" = String, Path, description = "Its id")),
    request_body = TimeoutRequest,
    responses((status = 200, description = "It has them", body = Instance), Problems),
)]
pub(crate) async fn timeout(
    State(state): State<Shared>,
    Bare(target): Bare<InstanceId>,
    body: Result<JsonBody<TimeoutRequest>, ApiError>,
) -> Result<Json<Instance>, ApiError> {
    let JsonBody { value, .. } = body?;
    let change = validate::time_change(&value)?;
    answer(&target, state.instances.set_times(&target.tenant, &target.id, change).await)
}

/// What an instance uses now
///
/// A figure that its runtime does not tell is null. Of one that does not run all are.
#[utoipa::path(
    get,
    path = "/api/v1/instances/{id}/metrics",
    tag = "instances",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "The figures", body = InstanceMetrics), Problems),
)]
pub(crate) async fn metrics(
    State(state): State<Shared>,
    Bare(target): Bare<InstanceId>,
) -> Result<Json<InstanceMetrics>, ApiError> {
    let measured = state.instances.measure(&target.tenant, &target.id).await;
    let (info, measures) = measured.map_err(|error| target.refusal(error))?;
    Ok(Json(instance_info::metrics(&info, measures)))
}

/// A body that says nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

#[cfg(test)]
mod tests {
    use super::{ListParameters, filter, position};

    #[test]
    fn a_cursor_is_one_that_was_given() {
        assert_eq!(
            position("1f-ins-0a").map(|place| (place.created_at_ms, place.id)),
            Some((31, "ins-0a".into()))
        );
        for wrong in ["", "1f", "x-ins-0a", "1f-ins_0a", "1f-a b"] {
            assert!(position(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_is_listed_is_asked_for_by_status_and_labels() {
        let asked = |status: Option<&str>, label: Option<&str>| {
            let own = |text: &str| text.to_owned();
            let labels: Vec<String> = label.map(own).into_iter().collect();
            filter(&ListParameters { status: status.map(own), limit: None, cursor: None }, &labels)
        };
        let both = asked(Some("running,stopping"), Some("a=1,b=x=y")).unwrap();
        assert_eq!(both.status, ["running", "stopping", "deleting"]);
        assert_eq!(both.labels["b"], "x=y");
        assert!(asked(Some("asleep"), None).is_err());
        assert!(asked(None, Some("a")).is_err());
    }
}
