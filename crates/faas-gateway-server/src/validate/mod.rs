//! Makes an execution out of a request, or says everything that is wrong with it. Pure: nothing here looks at the host.
//!
//! What cannot be known without a sandbox (whether a directory or a user is there) is the guest agent's to say.

mod command;
mod files;
mod instance;
mod limits;
mod names;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use faas_executor::ExecuteSpec;
use faas_types::{EnvVars, ErrorCode, ExecuteRequest, FieldError, RequestId};

use crate::config::LimitRules;
use crate::error::ApiError;
pub(crate) use instance::{
    Exec, exec, grace, limit_change, new_instance, signal, terminal, terminal_size, time_change,
};
pub(crate) use names::is_user;

/// Everything found wrong so far, up to so much that a person would read it.
#[derive(Debug, Default)]
struct Findings(Vec<FieldError>);

/// The most that is told.
const MAX_FINDINGS: usize = 100;

impl Findings {
    fn add(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        if self.0.len() < MAX_FINDINGS {
            self.0.push(FieldError { pointer: pointer.into(), message: message.into() });
        }
    }

    /// Whether nothing more would be told.
    fn is_full(&self) -> bool {
        self.0.len() >= MAX_FINDINGS
    }

    /// Text that becomes a C string cannot hold a NUL byte.
    fn no_nul(&mut self, pointer: &str, text: &str) -> bool {
        let found = text.contains('\0');
        if found {
            self.add(pointer, "must not contain a NUL byte");
        }
        !found
    }

    fn base64(&mut self, pointer: &str, text: &str) -> Option<Vec<u8>> {
        match STANDARD.decode(text) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.add(pointer, format!("is not base64 (RFC 4648, section 4, with padding): {error}"));
                None
            }
        }
    }
}

/// The execution that a request asks for.
///
/// # Errors
/// `invalid_request` with all that is wrong; `unsupported` for what is valid and not done here.
pub(crate) fn validate(
    request: ExecuteRequest,
    request_id: RequestId,
    rules: &LimitRules,
) -> Result<ExecuteSpec, ApiError> {
    let mut findings = Findings::default();
    let program = command::program(request.command, &request.env_vars.0, &mut findings);
    if let Some(image) = &request.image {
        names::image(image, &mut findings);
    }
    surroundings(
        &request.env_vars,
        request.working_dir.as_deref(),
        request.user.as_deref(),
        &request.labels,
        &mut findings,
    );
    let stdin = stdin(request.stdin, request.stdin_base64, &mut findings);
    let asked = limits::Asked {
        timeout_ms: request.timeout_ms,
        memory_mb: request.memory_mb,
        cpu_cores: request.cpu_cores,
        pids_limit: request.pids_limit,
        disk_mb: request.disk_mb,
        max_output_bytes: request.max_output_bytes,
    };
    let granted = limits::limits(&asked, rules, &mut findings);
    let mut files = files::files(request.files, &mut findings);
    files.extend(files::secrets(request.secrets, &mut findings));
    files::fit(&files, &granted.sandbox, &mut findings);

    let Some(program) = program.filter(|_| findings.0.is_empty()) else {
        return Err(ApiError::invalid(findings.0));
    };
    if request.cache_key.is_some() {
        return Err(ApiError::new(
            ErrorCode::Unsupported,
            "cache_key: only the mode `cached` shares a sandbox between requests, and this version does not have it",
        ));
    }
    Ok(ExecuteSpec {
        request_id,
        program,
        env: request.env_vars.0,
        image: request.image,
        runtime: request.runtime,
        working_dir: request.working_dir,
        user: request.user,
        stdin,
        files,
        timeout: granted.timeout,
        limits: granted.sandbox,
        network: request.network,
        max_output_bytes: granted.max_output_bytes,
        labels: request.labels,
        held: None,
    })
}

/// Checks what every command has, wherever it runs.
fn surroundings(
    env_vars: &EnvVars,
    working_dir: Option<&str>,
    user: Option<&str>,
    labels: &BTreeMap<String, String>,
    findings: &mut Findings,
) {
    command::env(&env_vars.0, findings);
    if let Some(working_dir) = working_dir {
        names::working_dir(working_dir, findings);
    }
    if let Some(user) = user {
        names::user(user, findings);
    }
    names::labels(labels, findings);
}

/// What is wrong with the name of an image, if anything is.
pub(crate) fn image_problem(image: &str) -> Option<String> {
    let mut findings = Findings::default();
    names::image(image, &mut findings);
    findings.0.pop().map(|finding| finding.message)
}

fn stdin(text: Option<String>, base64: Option<String>, findings: &mut Findings) -> Option<Vec<u8>> {
    match (text, base64) {
        (Some(_), Some(_)) => {
            findings.add("/stdin_base64", "must not be given together with stdin");
            None
        }
        (Some(text), None) => Some(text.into_bytes()),
        (None, Some(text)) => findings.base64("/stdin_base64", &text),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests;
