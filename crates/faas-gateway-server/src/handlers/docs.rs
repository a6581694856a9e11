//! `/openapi.json`, the page to try it at `/docs`, and a page for each error code at `/docs/errors/CODE`.

use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Redirect, Response};
use faas_types::ErrorCode;
use utoipa_swagger_ui::Config;

use crate::error::ApiError;

static OPENAPI: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(crate::openapi::openapi_json()));
static UI: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| Arc::new(Config::from("/openapi.json")));

pub(crate) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI.clone()).into_response()
}

pub(crate) async fn to_index() -> Redirect {
    Redirect::permanent("/docs/")
}

pub(crate) async fn index() -> Result<Response, ApiError> {
    ui_file("index.html")
}

pub(crate) async fn file(Path(file): Path<String>) -> Result<Response, ApiError> {
    ui_file(&file)
}

fn ui_file(name: &str) -> Result<Response, ApiError> {
    match utoipa_swagger_ui::serve(name, Arc::clone(&UI)) {
        Ok(Some(file)) => Ok(([(CONTENT_TYPE, file.content_type)], file.bytes.into_owned()).into_response()),
        Ok(None) => Err(ApiError::new(ErrorCode::NotFound, "the documentation has no such file")),
        Err(error) => Err(ApiError::internal(&error)),
    }
}

pub(crate) async fn error_page(Path(code): Path<String>) -> Result<Response, ApiError> {
    let code = ErrorCode::ALL.into_iter().find(|known| known.as_str() == code);
    let page =
        code.map(page).ok_or_else(|| ApiError::new(ErrorCode::NotFound, "there is no such error code"))?;
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], page).into_response())
}

macro_rules! pages {
    ($($code:ident => $file:literal),+ $(,)?) => {
        /// The page of a code.
        const fn page(code: ErrorCode) -> &'static str {
            match code {
                $(ErrorCode::$code => include_str!(concat!("../../../../docs/errors/", $file, ".md")),)+
            }
        }
    };
}

pages! {
    InvalidRequest => "invalid_request",
    Unauthorized => "unauthorized",
    Forbidden => "forbidden",
    NotFound => "not_found",
    MethodNotAllowed => "method_not_allowed",
    RequestTimeout => "request_timeout",
    Conflict => "conflict",
    Gone => "gone",
    PayloadTooLarge => "payload_too_large",
    UnsupportedMediaType => "unsupported_media_type",
    RangeNotSatisfiable => "range_not_satisfiable",
    RateLimited => "rate_limited",
    QuotaExceeded => "quota_exceeded",
    RuntimeUnavailable => "runtime_unavailable",
    Unsupported => "unsupported",
    Overloaded => "overloaded",
    ImageUnavailable => "image_unavailable",
    SandboxLost => "sandbox_lost",
    InsufficientStorage => "insufficient_storage",
    ExecutionTimeout => "execution_timeout",
    Internal => "internal",
}

#[cfg(test)]
mod tests {
    use faas_types::ErrorCode;

    #[test]
    fn every_page_is_that_of_its_code_and_has_its_status() {
        for code in ErrorCode::ALL {
            let page = super::page(code);
            let status = crate::error::status(code).as_u16().to_string();
            let mut lines = page.lines();
            assert_eq!(lines.next(), Some(format!("# {code}").as_str()));
            let summary: String = lines.take(3).collect();
            assert!(summary.contains(&status), "{code}: its first lines name the status {status}");
            for part in ["## When", "## What to do"] {
                assert!(page.contains(part), "{code}: {part}");
            }
        }
    }
}
