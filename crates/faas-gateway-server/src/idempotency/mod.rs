//! `Idempotency-Key`: a request that is sent twice has its effect once, and gives the first answer again.
//!
//! A route has it by one line in the table of routes, `.layer(from_fn(idempotency::...))`; its handler knows nothing of
//! it. The key is taken in the store before the handler runs, so that of many who send it at once one alone runs, and is
//! given back where the request came to nothing. Only requests with a JSON body have keys: for others a route refuses
//! the header itself.

mod answer;
mod claim;
mod key;

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use faas_executor::store::{AnyStore, Begun, DEFAULT_TENANT, KeyClaim, Store as _};
use faas_types::{ErrorCode, RequestId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::ApiError;
use crate::events::EventFormat;
use crate::extract::{self, ReadBody};
use crate::offload;
use crate::state::Shared;
use claim::Claim;

/// How often keys that are old are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// The keys of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    store: AnyStore,
    /// What is still written to the store when its request is gone.
    background: TaskTracker,
    stopping: CancellationToken,
    runtime: tokio::runtime::Handle,
}

impl Keys {
    /// The keys in a store, each kept for `ttl` after it was taken. Must be called within a Tokio runtime.
    pub(crate) fn new(store: AnyStore, ttl: Duration) -> Self {
        let keys = Self {
            store,
            background: TaskTracker::new(),
            stopping: CancellationToken::new(),
            runtime: tokio::runtime::Handle::current(),
        };
        let (store, stopping) = (keys.store.clone(), keys.stopping.clone());
        keys.background.spawn(async move {
            let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
            loop {
                match store.prune_keys(now_ms().saturating_sub(ttl_ms)).await {
                    Ok(0) => {}
                    Ok(pruned) => tracing::debug!(pruned, "idempotency keys are forgotten"),
                    Err(error) => tracing::warn!(%error, "old idempotency keys cannot be removed"),
                }
                tokio::select! {
                    () = tokio::time::sleep(PRUNE_EVERY.min(ttl)) => {}
                    () = stopping.cancelled() => return,
                }
            }
        });
        keys
    }

    /// Returns when nothing is to be written any more. No request may run.
    pub(crate) async fn settle(&self) {
        self.stopping.cancel();
        self.background.close();
        self.background.wait().await;
    }
}

/// Unix time.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// For a route whose requests leave nothing behind: one that was interrupted by the end of its server is run again.
pub(crate) async fn run_again_if_interrupted(
    Extension(state): Extension<Shared>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
    next: Next,
) -> Response {
    let answered = pass(&state, request_id, request, next, true).await;
    answered.unwrap_or_else(ApiError::into_response)
}

/// For a route whose requests make something that stays: one that was interrupted by the end of its server is refused,
/// since nobody knows how far it came.
pub(crate) async fn refuse_if_interrupted(
    Extension(state): Extension<Shared>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
    next: Next,
) -> Response {
    let answered = pass(&state, request_id, request, next, false).await;
    answered.unwrap_or_else(ApiError::into_response)
}

async fn pass(
    state: &Shared,
    request_id: RequestId,
    mut request: Request,
    next: Next,
    rerun_interrupted: bool,
) -> Result<Response, ApiError> {
    if request.method() != Method::POST {
        return Ok(next.run(request).await);
    }
    let Some(key) = key::of(request.headers()).map_err(ApiError::closing)? else {
        return Ok(next.run(request).await);
    };
    if !extract::is_json(request.headers()) {
        return Ok(next.run(request).await);
    }
    if EventFormat::wanted(request.headers()).is_some() {
        let detail = "an answer in events is not kept; with idempotency-key, accept application/json";
        return Err(ApiError::new(ErrorCode::Unsupported, detail).closing());
    }
    let body = std::mem::replace(request.body_mut(), Body::empty());
    let (bytes, room) = extract::read(request.headers(), body, state).await.map_err(ApiError::closing)?;
    let (uri, hashed) = (request.uri().clone(), bytes.clone());
    let claim = KeyClaim {
        tenant: DEFAULT_TENANT.to_owned(),
        key,
        route: format!("POST {}", request.uri().path()),
        fingerprint: offload::by_size(bytes.len(), move || key::fingerprint(&uri, &hashed)).await?,
        at_ms: now_ms(),
        rerun_interrupted,
    };
    match state.keys.store.begin_key(&claim).await.map_err(|error| ApiError::from_store(&error))? {
        Begun::New => {
            let claim = Claim::new(state.keys.clone(), claim.tenant, claim.key);
            request.extensions_mut().insert(ReadBody::new(bytes, room));
            let response = next.run(request).await;
            Ok(answer::keep(claim, response, state, &request_id).await)
        }
        Begun::Done(kept) => answer::replay(kept, state).await,
        Begun::Running => {
            let detail = "the first request with this idempotency-key is still running";
            Err(ApiError::new(ErrorCode::Conflict, detail).retryable(true))
        }
        Begun::Mismatch => {
            let detail =
                "this idempotency-key was used for another request: its path or its body is not the same";
            Err(ApiError::new(ErrorCode::InvalidRequest, detail))
        }
        Begun::Interrupted => {
            let detail = "the first request with this idempotency-key was interrupted by the end of its server; what \
                          it did until then is not known. Look, and use another key";
            Err(ApiError::new(ErrorCode::Conflict, detail))
        }
    }
}
