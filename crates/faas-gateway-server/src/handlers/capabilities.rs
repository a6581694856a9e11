//! `GET /api/v1/capabilities`.

use axum::Json;
use axum::extract::State;
use faas_types::Capabilities;

use crate::state::Shared;

/// What every runtime can do here
///
/// Probed on this host, with the reason for everything that is not there.
#[utoipa::path(
    get,
    path = "/api/v1/capabilities",
    tag = "server",
    responses((status = 200, description = "Every runtime", body = Capabilities)),
)]
pub(crate) async fn capabilities(State(state): State<Shared>) -> Json<Capabilities> {
    Json(state.engine.capabilities().await)
}
