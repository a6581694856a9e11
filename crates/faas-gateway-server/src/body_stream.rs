//! A request's body in pieces, for whoever takes it as it comes.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use faas_types::ErrorCode;
use futures_util::stream::{self, BoxStream, StreamExt as _};

use crate::error::ApiError;

/// Why a body did not come to its end: who takes the pieces only learns that it did not.
pub(crate) type Fault = Arc<OnceLock<ApiError>>;

/// The pieces of a body, each of which has to come `within` so long. `ended` is called when all have.
pub(crate) fn pieces(
    body: Body,
    within: Duration,
    fault: Fault,
    ended: impl Fn() + Send + Sync + 'static,
) -> BoxStream<'static, std::io::Result<Bytes>> {
    let ended = Arc::new(ended);
    let pieces = stream::unfold(body.into_data_stream(), move |mut body| {
        let (fault, ended) = (Arc::clone(&fault), Arc::clone(&ended));
        async move {
            let failed = match tokio::time::timeout(within, body.next()).await {
                Ok(Some(Ok(piece))) => return Some((Ok(piece), body)),
                Ok(None) => {
                    ended();
                    return None;
                }
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, "the body cannot be read");
                    ApiError::malformed("the body cannot be read to its end")
                }
                Err(_elapsed) => {
                    let detail = format!("nothing of the body arrived within {} ms", within.as_millis());
                    ApiError::new(ErrorCode::RequestTimeout, detail)
                }
            };
            // The first one is the cause of the others.
            let error = std::io::Error::other("the client did not send it whole");
            match fault.set(failed) {
                Ok(()) | Err(_) => Some((Err(error), body)),
            }
        }
    });
    pieces.boxed()
}
