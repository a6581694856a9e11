//! `Idempotency-Key`: a request that is sent twice has its effect once, and gives the first answer again.
//!
//! A route has it by one line in the table of routes, `.layer(from_fn(idempotency::...))`; its handler knows nothing of
//! it, unless what it does outlives its client ([`Tie`]). The key is taken in the store before the handler runs, so that of
//! many who send it at once one alone runs, and is given back where the request came to nothing. Only requests with a JSON
//! body have keys: for others a route refuses the header itself.

mod answer;
mod claim;
mod key;
mod tie;

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use faas_executor::store::{AnyStore, DEFAULT_TENANT, KeyClaim, Store as _};
use faas_types::{ErrorCode, RequestId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::error::ApiError;
use crate::events::EventFormat;
use crate::extract::{self, ReadBody};
use crate::offload;
use crate::state::Shared;
use claim::{AtWork, Claim, Taking};
pub(crate) use tie::Tie;

/// How often keys that are old are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// The keys of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    store: AnyStore,
    at_work: AtWork,
    /// Requests that have a key, and what is still written to the store when they are gone.
    background: TaskTracker,
    stopping: CancellationToken,
    runtime: tokio::runtime::Handle,
}

impl Keys {
    /// The keys in a store, each kept for `ttl` after it was taken. Must be called within a Tokio runtime.
    pub(crate) fn new(store: AnyStore, ttl: Duration) -> Self {
        let keys = Self {
            store,
            at_work: AtWork::default(),
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

    /// Returns when nothing is to be written any more. No connection may be left, and the engine must have ended: requests
    /// that outlive their clients end with that.
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

/// For a route whose requests make something that stays: one that was interrupted is refused, since nobody knows how far it
/// came.
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
    let asked = KeyClaim {
        tenant: DEFAULT_TENANT.to_owned(),
        key,
        route: format!("POST {}", request.uri().path()),
        fingerprint: offload::by_size(bytes.len(), move || key::fingerprint(&uri, &hashed)).await?,
        at_ms: now_ms(),
        rerun_interrupted,
    };
    match state.keys.take(asked).await? {
        Taking::Taken(claim) => {
            request.extensions_mut().insert(ReadBody::new(bytes, room));
            Ok(run(state, request_id, request, next, claim).await)
        }
        Taking::Done(kept) => answer::replay(kept, state).await,
    }
}

/// Runs a request that has its key: in a task, which ends when its client goes, unless the handler says that it goes on.
async fn run(
    state: &Shared,
    request_id: RequestId,
    mut request: Request,
    next: Next,
    claim: Claim,
) -> Response {
    let tie = Tie::new(claim.may_have_begun());
    request.extensions_mut().insert(tie.clone());
    let (keys, state) = (&state.keys, state.clone());
    let running = async move {
        let response = next.run(request).await;
        answer::keep(claim, response, &state, &request_id).await
    };
    let running = keys.background.spawn_on(running.in_current_span(), &keys.runtime);
    let _bound = tie.bind(running.abort_handle());
    match running.await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(response) => response,
        // Handled where that of any other request is.
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(error)) => ApiError::internal(&error).into_response(),
    }
}
