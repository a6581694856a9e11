//! The one table of routes. The contract at `/openapi.json` is made from it.

use axum::Router;
use axum::middleware::from_fn;
#[cfg(not(all(target_os = "linux", feature = "native")))]
use axum::routing::any;
use axum::routing::get;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

#[cfg(all(target_os = "linux", feature = "native"))]
use crate::handlers::images;
#[cfg(not(all(target_os = "linux", feature = "native")))]
use crate::handlers::no_images;
use crate::handlers::{
    capabilities, docs, events, execute, executions, files, health, instances, leaks, logs, pty, version,
};
use crate::idempotency;
use crate::state::Shared;

/// The routes of the contract.
fn contract() -> OpenApiRouter<Shared> {
    let router = OpenApiRouter::with_openapi(crate::openapi::base());
    #[cfg(all(target_os = "linux", feature = "native"))]
    let router = router.routes(
        routes!(images::list, images::add, images::remove).layer(from_fn(idempotency::refuse_if_interrupted)),
    );
    router
        .routes(routes!(execute::execute).layer(from_fn(idempotency::run_again_if_interrupted)))
        .routes(
            routes!(instances::create, instances::list).layer(from_fn(idempotency::refuse_if_interrupted)),
        )
        .routes(routes!(instances::get, instances::update, instances::delete))
        .routes(routes!(instances::exec).layer(from_fn(idempotency::refuse_if_interrupted)))
        .routes(routes!(executions::list))
        .routes(routes!(pty::pty))
        .routes(routes!(executions::get, executions::cancel))
        .routes(routes!(executions::stream))
        .routes(routes!(executions::input))
        .routes(routes!(executions::signal))
        .routes(routes!(instances::stop))
        .routes(routes!(instances::start))
        .routes(routes!(instances::pause))
        .routes(routes!(instances::resume))
        .routes(routes!(instances::timeout))
        .routes(routes!(logs::logs))
        .routes(routes!(instances::metrics))
        .routes(routes!(events::events))
        .routes(routes!(files::get, files::put, files::change, files::remove))
        .routes(routes!(leaks::leaks))
        .routes(routes!(capabilities::capabilities))
        .routes(routes!(health::health))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(version::version))
}

/// All routes: the contract and its documentation. What matches none is answered by [`crate::app`].
pub(crate) fn router() -> Router<Shared> {
    let (router, _) = contract().split_for_parts();
    #[cfg(not(all(target_os = "linux", feature = "native")))]
    let router = router.route("/api/v1/images", any(no_images::refuse));
    router
        .route("/openapi.json", get(docs::openapi))
        .route("/docs", get(docs::to_index))
        .route("/docs/", get(docs::index))
        .route("/docs/{*file}", get(docs::file))
        .route("/docs/errors/{code}", get(docs::error_page))
}

/// What the table says of itself.
pub(crate) fn openapi() -> OpenApi {
    contract().into_openapi()
}
