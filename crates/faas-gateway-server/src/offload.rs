//! Work that takes long for a big body is done on a thread where it holds up no other request.

use crate::error::ApiError;

/// From this many bytes on, going to another thread costs less than it saves.
const BIG_BYTES: usize = 256 << 10;

/// Runs `work`, on another thread when it is about `bytes` many.
///
/// # Errors
/// An internal error when `work` panicked there.
pub(crate) async fn by_size<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    if bytes < BIG_BYTES {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::internal(&format_args!("work on a big body: {error}")))
}
