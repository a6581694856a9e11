//! `GET /health`, `/livez` and `/readyz`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use faas_executor::store::{Store as _, StoreError};
use faas_types::{
    Capabilities, ErrorCode, Health, HealthStatus, LimitsSupport, Problem, Runtime, RuntimeCapabilities,
    RuntimeHealth, StoreHealth,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::version::VERSION;
use crate::error::ApiError;
use crate::state::Shared;

/// The body of `/livez` and `/readyz`.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct Probe {
    /// Always `ok`; anything else is not a 200.
    status: &'static str,
}

const OK: Probe = Probe { status: "ok" };

/// The server's health
///
/// `healthy` and `degraded` are 200, `unhealthy` is 503 with the same body. `degraded` means that the default runtime
/// works, and that it does not enforce every limit or that the store cannot be reached.
#[utoipa::path(
    get,
    path = "/health",
    tag = "server",
    responses(
        (status = 200, description = "It works", body = Health),
        (status = 503, description = "It cannot run a sandbox", body = Health),
    ),
)]
pub(crate) async fn health(State(state): State<Shared>) -> (StatusCode, Json<Health>) {
    let uptime_ms = u64::try_from(state.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (capabilities, ping) = tokio::join!(state.engine.capabilities(), state.store.ping());
    let reason = ping.err().map(|error| store_reason(&error).to_owned());
    let store = StoreHealth { kind: state.store.kind().to_owned(), available: reason.is_none(), reason };
    let health = of(capabilities, store, uptime_ms);
    let status = match health.status {
        HealthStatus::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
        HealthStatus::Healthy | HealthStatus::Degraded => StatusCode::OK,
    };
    (status, Json(health))
}

/// Why the store does not answer. Whatever else the error says is of the inside.
fn store_reason(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unreachable { .. } => "it cannot be reached",
        error => {
            tracing::warn!(%error, "the store");
            "it does not work; the cause is in the server's log"
        }
    }
}

/// Whether the process answers
#[utoipa::path(
    get,
    path = "/livez",
    tag = "server",
    responses((status = 200, description = "It does", body = Probe)),
)]
pub(crate) async fn livez() -> Json<Probe> {
    Json(OK)
}

/// Whether the server takes work
///
/// All kinds of work: without its store executions run, and instances and whatever has a key do not; `/health` says so.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "server",
    responses(
        (status = 200, description = "It does", body = Probe),
        (status = 501, description = "runtime_unavailable: no runtime can be used on this host", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "overloaded: it is shutting down, or its store does not answer", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn readyz(State(state): State<Shared>) -> Result<Json<Probe>, ApiError> {
    if state.is_draining() {
        return Err(ApiError::new(ErrorCode::Overloaded, "the server is shutting down"));
    }
    let (capabilities, ping) = tokio::join!(state.engine.capabilities(), state.store.ping());
    if let Err(error) = ping {
        let detail = format!("the store does not answer: {}", store_reason(&error));
        return Err(ApiError::new(ErrorCode::Overloaded, detail));
    }
    match capabilities.default_runtime {
        Some(_) => Ok(Json(OK)),
        None => Err(ApiError::new(ErrorCode::RuntimeUnavailable, reasons(&capabilities))),
    }
}

fn reasons(capabilities: &Capabilities) -> String {
    let reasons = capabilities.runtimes.iter();
    let reasons = reasons.filter_map(|(runtime, of)| Some(format!("{runtime}: {}", of.reason.as_ref()?)));
    reasons.collect::<Vec<_>>().join("; ")
}

fn of(capabilities: Capabilities, store: StoreHealth, uptime_ms: u64) -> Health {
    let available = |name| capabilities.runtimes.get(&name).is_some_and(|runtime| runtime.available);
    let (docker, firecracker) = (available(Runtime::Docker), available(Runtime::Firecracker));
    let default = capabilities.default_runtime.and_then(|default| capabilities.runtimes.get(&default));
    let status = match default {
        None => HealthStatus::Unhealthy,
        Some(default) if unenforced(&default.limits).is_empty() && store.available => HealthStatus::Healthy,
        Some(_) => HealthStatus::Degraded,
    };
    let runtimes = capabilities.runtimes.into_iter().map(|(name, of)| (name, runtime_health(of))).collect();
    Health { status, version: VERSION.to_owned(), uptime_ms, runtimes, store, docker, firecracker }
}

fn runtime_health(of: RuntimeCapabilities) -> RuntimeHealth {
    let unenforced_limits = if of.available { unenforced(&of.limits) } else { Vec::new() };
    RuntimeHealth { available: of.available, reason: of.reason, unenforced_limits }
}

fn unenforced(limits: &LimitsSupport) -> Vec<String> {
    let members = [
        ("memory_mb", &limits.memory),
        ("cpu_cores", &limits.cpu),
        ("pids_limit", &limits.pids),
        ("disk_mb", &limits.disk),
    ];
    let unsupported = members.into_iter().filter(|(_, support)| !support.supported);
    unsupported.map(|(name, support)| format!("{name}: {}", support.detail)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use faas_types::{
        Capabilities, HealthStatus, LimitSupport, LimitsSupport, Runtime, RuntimeCapabilities, StoreHealth,
    };

    use super::of;

    fn store(available: bool) -> StoreHealth {
        let reason = (!available).then(|| "it cannot be reached".to_owned());
        StoreHealth { kind: "sqlite".to_owned(), available, reason }
    }

    fn status(available: bool, disk: LimitSupport, store_available: bool) -> (HealthStatus, Vec<String>) {
        let yes = || LimitSupport::yes("x");
        let native = RuntimeCapabilities {
            available,
            limits: LimitsSupport { memory: yes(), cpu: yes(), pids: yes(), disk },
            ..RuntimeCapabilities::default()
        };
        let health = of(
            Capabilities {
                default_runtime: available.then_some(Runtime::Native),
                default_image: "host".to_owned(),
                runtimes: BTreeMap::from([(Runtime::Native, native)]),
            },
            store(store_available),
            0,
        );
        (health.status, health.runtimes[&Runtime::Native].unenforced_limits.clone())
    }

    #[test]
    fn health_is_as_good_as_the_default_runtime_and_the_store() {
        assert_eq!(status(true, LimitSupport::yes("x"), true), (HealthStatus::Healthy, vec![]));
        let unenforced = vec!["disk_mb: no loop devices".to_owned()];
        assert_eq!(
            status(true, LimitSupport::no("no loop devices"), true),
            (HealthStatus::Degraded, unenforced)
        );
        assert_eq!(status(false, LimitSupport::yes("x"), true).0, HealthStatus::Unhealthy);
        assert_eq!(status(true, LimitSupport::yes("x"), false).0, HealthStatus::Degraded);
    }
}
