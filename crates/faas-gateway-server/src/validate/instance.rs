//! Instances: a new one, a command in one, other limits, other times.

use std::time::Duration;

use faas_executor::sandbox::Limits;
use faas_executor::{CommandDefaults, ExecSpec, LimitChange, NewInstance, TimeChange, Times};
use faas_types::{
    CreateInstanceRequest, ExecRequest, RequestId, StopRequest, TenantId, TimeoutRequest,
    UpdateInstanceRequest,
};

use super::{Findings, command, files, limits, names, stdin, surroundings};
use crate::config::{Bound, LimitRules};
use crate::error::ApiError;

/// The longest time that an instance can be given, in milliseconds: ten years.
const MAX_TIME_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1000;
/// How long the processes of an instance have to end where the request does not say, and at most, in milliseconds.
const GRACE_MS: Bound<u64> = Bound { default: 5000, max: 60_000 };

/// The instance that a request asks for.
///
/// # Errors
/// `invalid_request` with all that is wrong.
pub(crate) fn new_instance(
    request: CreateInstanceRequest,
    tenant: TenantId,
    rules: &LimitRules,
) -> Result<NewInstance, ApiError> {
    let mut findings = Findings::default();
    if let Some(image) = &request.image {
        names::image(image, &mut findings);
    }
    if let Some(name) = &request.name {
        names::instance(name, &mut findings);
    }
    surroundings(
        &request.env_vars,
        request.working_dir.as_deref(),
        request.user.as_deref(),
        &request.labels,
        &mut findings,
    );
    let asked = limits::Asked {
        memory_mb: request.memory_mb,
        cpu_cores: request.cpu_cores,
        pids_limit: request.pids_limit,
        disk_mb: request.disk_mb,
        ..limits::Asked::default()
    };
    let granted = limits::limits(&asked, rules, &mut findings).sandbox;
    let files = files::files(request.files, &mut findings);
    files::fit(&files, &granted, &mut findings);
    time("/ttl_ms", request.ttl_ms, &mut findings);
    time("/idle_timeout_ms", request.idle_timeout_ms, &mut findings);
    if !findings.0.is_empty() {
        return Err(ApiError::invalid(findings.0));
    }
    Ok(NewInstance {
        tenant,
        image: request.image,
        name: request.name,
        runtime: request.runtime,
        defaults: CommandDefaults {
            env: request.env_vars.0,
            working_dir: request.working_dir,
            user: request.user,
        },
        files,
        limits: granted,
        network: request.network,
        times: Times {
            ttl_ms: request.ttl_ms,
            idle_timeout_ms: request.idle_timeout_ms,
            on_timeout: request.on_timeout,
            auto_resume: request.auto_resume,
        },
        labels: request.labels,
    })
}

/// The command that a request asks for, in an instance with these limits.
///
/// # Errors
/// `invalid_request` with all that is wrong.
pub(crate) fn exec(
    request: ExecRequest,
    request_id: RequestId,
    instance: &Limits,
    rules: &LimitRules,
) -> Result<ExecSpec, ApiError> {
    let mut findings = Findings::default();
    let program = command::program(request.command, &request.env_vars.0, &mut findings);
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
        max_output_bytes: request.max_output_bytes,
        ..limits::Asked::default()
    };
    let granted = limits::limits(&asked, rules, &mut findings);
    let mut files = files::files(request.files, &mut findings);
    files.extend(files::secrets(request.secrets, &mut findings));
    files::fit(&files, instance, &mut findings);
    let Some(program) = program.filter(|_| findings.0.is_empty()) else {
        return Err(ApiError::invalid(findings.0));
    };
    Ok(ExecSpec {
        request_id,
        program,
        env: request.env_vars.0,
        working_dir: request.working_dir,
        user: request.user,
        stdin,
        files,
        timeout: granted.timeout,
        max_output_bytes: granted.max_output_bytes,
        labels: request.labels,
        held: None,
    })
}

/// Other limits.
///
/// # Errors
/// `invalid_request` with all that is wrong, or where nothing is to be changed.
pub(crate) fn limit_change(
    request: &UpdateInstanceRequest,
    rules: &LimitRules,
) -> Result<LimitChange, ApiError> {
    let mut findings = Findings::default();
    let asked = limits::Asked {
        memory_mb: request.memory_mb,
        cpu_cores: request.cpu_cores,
        pids_limit: request.pids_limit,
        ..limits::Asked::default()
    };
    let granted = limits::limits(&asked, rules, &mut findings).sandbox;
    let change = LimitChange {
        memory_bytes: request.memory_mb.map(|_| granted.memory_bytes),
        cpu_millicores: request.cpu_cores.map(|_| granted.cpu_millicores),
        pids: request.pids_limit.map(|_| granted.pids),
    };
    if change == LimitChange::default() {
        findings.add("", "nothing to be changed: give memory_mb, cpu_cores or pids_limit");
    }
    if findings.0.is_empty() { Ok(change) } else { Err(ApiError::invalid(findings.0)) }
}

/// Other times.
///
/// # Errors
/// `invalid_request` with all that is wrong, or where nothing is to be changed.
pub(crate) fn time_change(request: &TimeoutRequest) -> Result<TimeChange, ApiError> {
    let mut findings = Findings::default();
    time("/ttl_ms", request.ttl_ms.flatten(), &mut findings);
    time("/idle_timeout_ms", request.idle_timeout_ms.flatten(), &mut findings);
    let change = TimeChange { ttl_ms: request.ttl_ms, idle_timeout_ms: request.idle_timeout_ms };
    if change == TimeChange::default() {
        findings.add("", "nothing to be changed: give ttl_ms or idle_timeout_ms");
    }
    if findings.0.is_empty() { Ok(change) } else { Err(ApiError::invalid(findings.0)) }
}

/// How long processes have to end.
///
/// # Errors
/// `invalid_request`.
pub(crate) fn grace(request: StopRequest) -> Result<Duration, ApiError> {
    let mut findings = Findings::default();
    let ms = limits::whole("/grace_ms", request.grace_ms, 0, GRACE_MS, &mut findings);
    if findings.0.is_empty() { Ok(Duration::from_millis(ms)) } else { Err(ApiError::invalid(findings.0)) }
}

fn time(pointer: &str, ms: Option<u64>, findings: &mut Findings) {
    limits::whole(pointer, ms, 1, Bound { default: 1, max: MAX_TIME_MS }, findings);
}

#[cfg(test)]
mod tests {
    use faas_types::{StopRequest, TimeoutRequest, UpdateInstanceRequest};

    use super::{grace, limit_change, time_change};

    #[test]
    fn a_change_that_changes_nothing_is_refused() {
        assert!(time_change(&TimeoutRequest::default()).is_err());
        let away = TimeoutRequest { ttl_ms: Some(None), ..TimeoutRequest::default() };
        assert_eq!(time_change(&away).unwrap().ttl_ms, Some(None));
        let rules = super::super::tests::RULES;
        assert!(limit_change(&UpdateInstanceRequest::default(), &rules).is_err());
    }

    #[test]
    fn times_are_bounded() {
        for ms in [0, u64::MAX] {
            let request = TimeoutRequest { idle_timeout_ms: Some(Some(ms)), ..TimeoutRequest::default() };
            assert!(time_change(&request).is_err(), "{ms}");
        }
        assert!(grace(StopRequest { grace_ms: Some(60_001) }).is_err());
        assert!(grace(StopRequest { grace_ms: Some(0) }).unwrap().is_zero());
    }
}
