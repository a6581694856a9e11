//! `GET /version`.

use axum::Json;
use faas_types::VersionInfo;

/// The version of the server.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version of the HTTP contract: the `v1` of its paths.
const API: &str = "v1";

/// The server's versions
#[utoipa::path(
    get,
    path = "/version",
    tag = "server",
    responses((status = 200, description = "The versions of the server and of what it speaks", body = VersionInfo)),
)]
pub(crate) async fn version() -> Json<VersionInfo> {
    Json(VersionInfo {
        version: VERSION.to_owned(),
        api: API.to_owned(),
        guest_protocol: faas_guest_protocol::VERSION,
        guest_agent: faas_executor::agent_digest().to_owned(),
    })
}
