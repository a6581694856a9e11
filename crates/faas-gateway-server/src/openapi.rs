//! The contract as OpenAPI 3.1, made from the table of routes and the types of `faas-types`.

use std::collections::BTreeMap;

use faas_types::{ErrorCode, Problem};
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{Schema, SchemaType, Type};
use utoipa::openapi::{
    Content, Info, License, OpenApi, OpenApiBuilder, Ref, RefOr, Response, ResponseBuilder,
};
use utoipa::{IntoResponses, PartialSchema as _, ToSchema as _};

/// The error answers of a route, for its documentation: every status with the codes that have it.
#[derive(Debug)]
pub(crate) struct Problems;

/// The codes that this version answers with.
const CODES: [ErrorCode; 19] = [
    ErrorCode::InvalidRequest,
    ErrorCode::Forbidden,
    ErrorCode::NotFound,
    ErrorCode::MethodNotAllowed,
    ErrorCode::RequestTimeout,
    ErrorCode::Conflict,
    ErrorCode::Gone,
    ErrorCode::PayloadTooLarge,
    ErrorCode::QuotaExceeded,
    ErrorCode::UnsupportedMediaType,
    ErrorCode::RangeNotSatisfiable,
    ErrorCode::RuntimeUnavailable,
    ErrorCode::Unsupported,
    ErrorCode::Overloaded,
    ErrorCode::ImageUnavailable,
    ErrorCode::SandboxLost,
    ErrorCode::InsufficientStorage,
    ErrorCode::ExecutionTimeout,
    ErrorCode::Internal,
];

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut codes: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for code in CODES {
            codes.entry(crate::error::status(code).as_u16()).or_default().push(code.as_str());
        }
        codes.entry(400).or_default().push(ErrorCode::InvalidRequest.as_str());
        let response = |codes: Vec<&str>| {
            let content = Content::new(Some(Ref::from_schema_name(Problem::name())));
            let described = ResponseBuilder::new().description(codes.join(", "));
            RefOr::T(described.content("application/problem+json", content).build())
        };
        codes.into_iter().map(|(status, codes)| (status.to_string(), response(codes))).collect()
    }
}

/// The document before its routes.
pub(crate) fn base() -> OpenApi {
    let mut info = Info::new("FaaS gateway", env!("CARGO_PKG_VERSION"));
    info.description = Some("Runs commands in sandboxes for whoever asks over HTTP.".to_owned());
    info.license = Some(License::new("Apache-2.0"));
    let mut document = OpenApiBuilder::new().info(info).build();
    let components = document.components.get_or_insert_default();
    components.schemas.insert(Problem::name().into_owned(), Problem::schema());
    let mut more = Vec::new();
    Problem::schemas(&mut more);
    components.schemas.extend(more);
    document
}

/// The whole document.
fn document() -> OpenApi {
    let mut document = crate::routes::openapi();
    require_command(&mut document, "ExecuteRequest");
    require_command(&mut document, "ExecRequest");
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
            without_bodyless_problems(operation);
        }
    }
    document
}

/// The request's type lets `command` be absent so that its absence is an error of ours; the contract does not.
fn require_command(document: &mut OpenApi, schema: &str) {
    let schemas = document.components.as_mut().map(|components| &mut components.schemas);
    let Some(RefOr::T(Schema::Object(request))) = schemas.and_then(|schemas| schemas.get_mut(schema)) else {
        return;
    };
    if !request.required.iter().any(|name| name == "command") {
        request.required.insert(0, "command".to_owned());
    }
    if let Some(RefOr::T(Schema::OneOf(command))) = request.properties.get_mut("command") {
        let is_null = |schema: &RefOr<Schema>| matches!(schema, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null));
        command.items.retain(|schema| !is_null(schema));
    }
}

/// A route that takes no body and runs nothing cannot answer with what comes of either.
fn without_bodyless_problems(operation: &mut Operation) {
    // Those of files have everything in the query, and all of it is checked in the sandbox.
    let of_files = operation.tags.iter().flatten().any(|tag| tag == "files");
    if operation.request_body.is_none() && !of_files {
        const OF_BODIES: [&str; 9] = ["400", "408", "413", "415", "422", "501", "502", "504", "507"];
        operation.responses.responses.retain(|status, _| !OF_BODIES.contains(&status.as_str()));
    }
}

/// The contract as it is served and as it is checked in.
///
/// # Panics
/// Never: the document holds nothing that JSON cannot.
#[must_use]
#[expect(clippy::expect_used, reason = "a document of strings and lists; a test makes it")]
pub fn openapi_json() -> String {
    let mut text = serde_json::to_string_pretty(&document()).expect("the OpenAPI document is plain data");
    text.push('\n');
    text
}

/// Fails when a checked-in file is not what the code makes; `FAAS_UPDATE=1` writes it anew.
#[cfg(test)]
#[cfg(all(target_os = "linux", feature = "native", feature = "docker"))]
pub(crate) fn assert_checked_in(path: &str, made: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    #[expect(clippy::disallowed_methods, reason = "a switch of tests, not a setting of the server")]
    if std::env::var("FAAS_UPDATE").is_ok() {
        std::fs::write(&file, made).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == made, "{path} differs from the code; FAAS_UPDATE=1 cargo test writes it anew");
}

#[cfg(test)]
mod tests {
    /// The contract is that of a build with every runtime.
    #[cfg(all(target_os = "linux", feature = "native", feature = "docker"))]
    #[test]
    fn the_checked_in_contract_is_the_one_that_is_served() {
        super::assert_checked_in("api/openapi.json", &super::openapi_json());
    }

    #[test]
    fn it_is_openapi_3_1_and_requires_a_command() {
        let document: serde_json::Value = serde_json::from_str(&super::openapi_json()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        assert_eq!(document["components"]["schemas"]["ExecuteRequest"]["required"][0], "command");
        let problem = &document["paths"]["/api/v1/execute"]["post"]["responses"]["422"]["content"];
        assert!(problem["application/problem+json"].is_object());
    }
}
