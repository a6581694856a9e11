//! `GET /api/v1/admin/leaks`.

use axum::extract::State;
use axum::http::Uri;
use axum::{Extension, Json};
use faas_types::{LeakInfo, RequestId};

use crate::error::ApiError;
use crate::openapi::Problems;
use crate::query;
use crate::state::Shared;

/// What is on the host with this gateway's mark and belongs to nobody
///
/// Found by looking at the host. Empty when all is well.
#[utoipa::path(
    get,
    path = "/api/v1/admin/leaks",
    tag = "server",
    responses((status = 200, description = "What there is", body = [LeakInfo]), Problems),
)]
pub(crate) async fn leaks(
    State(state): State<Shared>,
    Extension(request_id): Extension<RequestId>,
    uri: Uri,
) -> Result<Json<Vec<LeakInfo>>, ApiError> {
    query::none(&uri)?;
    let leaks = state.instances.leaks().await.map_err(|error| ApiError::from_engine(error, &request_id))?;
    let shown = leaks.into_iter().map(|(runtime, leak)| LeakInfo {
        runtime,
        kind: leak.kind.to_owned(),
        name: leak.name,
    });
    Ok(Json(shown.collect()))
}
