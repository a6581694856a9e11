//! What every request passes through, whatever its route: id, log, checks of host and origin, router, and the form of
//! every error.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Request};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use hyper::service::Service as _;
use tracing::Instrument as _;

use crate::error::{ApiError, PROBLEM_JSON};
use crate::layers::access_log::{self, AccessLog};
use crate::layers::{host, origin, request_id};
use crate::serve::Serving;
use crate::state::Shared;

/// The server as a function from requests to answers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    router: hyper_util::service::TowerToHyperService<Router>,
    state: Shared,
}

/// What a connection has to know of its requests' answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionFlags {
    /// Whether the last answer may have gone out before its request was read to the end.
    pub(crate) unread: Arc<AtomicBool>,
    /// Whether a request is being served.
    pub(crate) serving: Arc<Serving>,
}

impl App {
    pub(crate) fn new(state: Shared) -> Self {
        let router = crate::routes::router().with_state(Arc::clone(&state));
        Self { router: hyper_util::service::TowerToHyperService::new(router), state }
    }

    /// Answers one request. Dropping the future cancels whatever the request began.
    pub(crate) async fn handle(&self, request: Request<Body>, connection: &ConnectionFlags) -> Response {
        let serving = connection.serving.begin();
        let (mut head, body) = request.into_parts();
        let has_body = !body.is_end_stream();
        let (id, id_header) = request_id::of(&head.headers);
        let span = access_log::span(&id, &head.method, head.uri.path());
        let log = AccessLog::begin(span.clone());
        head.extensions.insert(id.clone());
        // For layers of a route, which are made before there is a state.
        head.extensions.insert(Arc::clone(&self.state));

        let routed = async {
            if let Err(error) = host::check(&head).and_then(|()| origin::check(&head)) {
                return error.into_response();
            }
            let answer = self.router.call(Request::from_parts(head, body));
            match AssertUnwindSafe(answer).catch_unwind().await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(panic) => ApiError::internal(&panic_message(&*panic)).into_response(),
            }
        };
        let mut response = routed.instrument(span).await;

        if let Some(error) = response.extensions_mut().remove::<ApiError>() {
            response = error.render(&id);
        } else if is_foreign_error(&response) {
            let allow = response.headers_mut().remove(ALLOW);
            response = ApiError::from_foreign(&response).render(&id);
            if let Some(allow) = allow {
                response.headers_mut().insert(ALLOW, allow);
            }
        }
        connection.unread.store(has_body && !response.status().is_success(), Ordering::Relaxed);
        let headers = response.headers_mut();
        headers.insert(request_id::HEADER, id_header);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        log.answered(response.status());
        // One that is still being made when its head goes out: until its end the client may go away.
        if response.body().size_hint().exact().is_none() { serving.until_sent(response) } else { response }
    }
}

/// An error answer that was not made by [`ApiError`] and has no JSON body of a handler.
fn is_foreign_error(response: &Response) -> bool {
    let status = response.status();
    (status.is_client_error() || status.is_server_error())
        && !matches!(
            response.headers().get(CONTENT_TYPE),
            Some(kind) if kind == PROBLEM_JSON || kind == "application/json"
        )
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a handler panicked: {}", text.unwrap_or("without a message"))
}
