//! `/api/v1/images` of a build without the native runtime, and so without an image store.

use faas_types::ErrorCode;

use crate::error::ApiError;

/// Whatever is asked, there is no store to do it.
pub(crate) async fn refuse() -> ApiError {
    ApiError::new(
        ErrorCode::Unsupported,
        "this build has no image store, which comes with the native runtime; images are the Docker engine's: docker \
         pull, docker load, docker images, docker rmi",
    )
}
