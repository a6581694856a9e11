//! What a request is about: a thing by its id in the path, whose it is, and the request's own id.

use axum::Extension;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use faas_executor::EngineError;
use faas_types::{RequestId, TenantId};

use crate::error::ApiError;
use crate::query;
use crate::state::Shared;

/// Whose everything is, as long as there are no keys.
pub(crate) fn tenant() -> TenantId {
    TenantId("default".to_owned())
}

/// What a request is about. Its query parameters are the handler's to read.
pub(crate) struct Subject<Id> {
    pub(crate) tenant: TenantId,
    pub(crate) id: Id,
    pub(crate) request_id: RequestId,
}

impl<Id> Subject<Id> {
    /// The answer where the engine does not do what was asked of it.
    pub(crate) fn refusal(&self, error: EngineError) -> ApiError {
        ApiError::from_engine(error, &self.request_id)
    }
}

impl<Id: From<String>> FromRequestParts<Shared> for Subject<Id> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, ApiError> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::malformed(error.body_text()))?;
        let Extension(request_id) = Extension::<RequestId>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::internal(&error))?;
        Ok(Self { tenant: tenant(), id: Id::from(id), request_id })
    }
}

/// The same of a request that has no query parameters.
pub(crate) struct Bare<Id>(pub(crate) Subject<Id>);

impl<Id: From<String>> FromRequestParts<Shared> for Bare<Id> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, ApiError> {
        query::none(&parts.uri)?;
        Subject::from_request_parts(parts, state).await.map(Self)
    }
}
