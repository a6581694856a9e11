//! Instances: a new one, a command in one, other limits, other times.

use std::collections::BTreeMap;
use std::time::Duration;

use faas_executor::sandbox::Limits;
use faas_executor::{
    CommandDefaults, ExecSpec, LastingSpec, LimitChange, MainSpec, MayHaveBegun, NewInstance, TimeChange,
    Times,
};
use faas_guest_protocol::lasting::STDIN_WINDOW_BYTES;
use faas_types::{
    CommandLine, CreateInstanceRequest, EnvVars, ExecRequest, ExecutionKind, RequestId, RestartPolicy,
    Signal, StopRequest, TenantId, TerminalSize, TimeoutRequest, UpdateInstanceRequest,
};

use super::{Findings, command, files, limits, names, stdin, surroundings};
use crate::config::{Bound, LimitRules};
use crate::error::ApiError;
use crate::response::signal_number;

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
    let main = main_command(&request, &mut findings);
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
        main,
        labels: request.labels,
    })
}

/// Its main command, where it has one.
fn main_command(request: &CreateInstanceRequest, findings: &mut Findings) -> Option<MainSpec> {
    if let Some(command) = &request.command {
        command::program(Some(command.clone()), &request.env_vars.0, findings)?;
    } else if !request.main {
        if request.restart != RestartPolicy::Never {
            findings.add("/restart", "is for a main command: give command, or main for the image's");
        }
        return None;
    }
    Some(MainSpec { command: request.command.clone(), of_image: request.main, restart: request.restart })
}

/// A command in an instance.
#[derive(Debug)]
pub(crate) enum Exec {
    /// One that ends with the request that waits for it.
    Waiting(Box<ExecSpec>),
    /// One that does not.
    Lasting(Box<LastingSpec>),
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
) -> Result<Exec, ApiError> {
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
    let is_lasting = request.background || request.keep_running;
    if request.stdin_open && !is_lasting {
        findings.add(
            "/stdin_open",
            "is for a command with background or keep_running: nobody else can write to it",
        );
    }
    if request.tty.is_some() && !request.background {
        findings.add("/tty", "is for a command with background");
    }
    if let Some(tty) = request.tty {
        check_size(tty, "/tty", &mut findings);
    }
    if let (true, Some(stdin)) = (is_lasting, &stdin)
        && stdin.len() as u64 > STDIN_WINDOW_BYTES
    {
        let message = format!(
            "of a command that lasts has at most {STDIN_WINDOW_BYTES} bytes: the rest through stdin_open and \
             /api/v1/executions/{{id}}/input, or files"
        );
        findings.add("/stdin", message);
    }
    let asked = limits::Asked {
        // In the background there is nobody who waits.
        timeout_ms: request.timeout_ms.filter(|_| !request.background),
        max_output_bytes: request.max_output_bytes,
        ..limits::Asked::default()
    };
    if request.background {
        time("/timeout_ms", request.timeout_ms, &mut findings);
    }
    let granted = limits::limits(&asked, rules, &mut findings);
    let mut files = files::files(request.files, &mut findings);
    files.extend(files::secrets(request.secrets, &mut findings));
    files::fit(&files, instance, &mut findings);
    let Some(program) = program.filter(|_| findings.0.is_empty()) else {
        return Err(ApiError::invalid(findings.0));
    };
    let command = ExecSpec {
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
    };
    if !is_lasting {
        return Ok(Exec::Waiting(Box::new(command)));
    }
    let (timeout, max_output_bytes) = if request.background {
        (request.timeout_ms.map(Duration::from_millis), request.max_output_bytes)
    } else {
        (Some(command.timeout), Some(command.max_output_bytes))
    };
    Ok(Exec::Lasting(Box::new(LastingSpec {
        command,
        kind: ExecutionKind::Command,
        timeout,
        max_output_bytes,
        tty: request.tty,
        stdin_open: request.stdin_open,
        background: request.background,
        may_have_begun: MayHaveBegun::default(),
    })))
}

/// The largest terminal, in characters each way.
const MAX_TERMINAL: u16 = 1000;

fn check_size(size: TerminalSize, pointer: &str, findings: &mut Findings) {
    for (member, given) in [("rows", size.rows), ("cols", size.cols)] {
        if !(1..=MAX_TERMINAL).contains(&given) {
            findings
                .add(format!("{pointer}/{member}"), format!("is {given}, and must be 1 to {MAX_TERMINAL}"));
        }
    }
}

/// The size of a terminal.
///
/// # Errors
/// `invalid_request`.
pub(crate) fn terminal_size(size: TerminalSize) -> Result<TerminalSize, ApiError> {
    let mut findings = Findings::default();
    check_size(size, "", &mut findings);
    if findings.0.is_empty() { Ok(size) } else { Err(ApiError::invalid(findings.0)) }
}

/// What runs in a terminal where nothing is said.
const LOGIN_SHELL: [&str; 2] = ["/bin/sh", "-l"];

/// What every program in a terminal is told of it, whatever its image says.
const TERM: (&str, &str) = ("TERM", "xterm-256color");

/// A terminal.
///
/// # Errors
/// `invalid_request` with all that is wrong.
pub(crate) fn terminal(
    command: Option<String>,
    user: Option<String>,
    working_dir: Option<String>,
    size: TerminalSize,
    request_id: RequestId,
) -> Result<LastingSpec, ApiError> {
    let mut findings = Findings::default();
    let command = command
        .map_or_else(|| CommandLine::Argv(LOGIN_SHELL.map(str::to_owned).to_vec()), CommandLine::Shell);
    let program = command::program(Some(command), &[], &mut findings);
    surroundings(
        &EnvVars::default(),
        working_dir.as_deref(),
        user.as_deref(),
        &BTreeMap::new(),
        &mut findings,
    );
    check_size(size, "", &mut findings);
    let Some(program) = program.filter(|_| findings.0.is_empty()) else {
        return Err(ApiError::invalid(findings.0));
    };
    let command = ExecSpec {
        request_id,
        program,
        env: vec![(TERM.0.to_owned(), TERM.1.to_owned())],
        working_dir,
        user,
        stdin: None,
        files: Vec::new(),
        timeout: Duration::ZERO,
        max_output_bytes: 0,
        labels: BTreeMap::new(),
        held: None,
    };
    Ok(LastingSpec {
        command,
        kind: ExecutionKind::Terminal,
        timeout: None,
        max_output_bytes: None,
        tty: Some(size),
        stdin_open: true,
        background: true,
        may_have_begun: MayHaveBegun::default(),
    })
}

/// The number of a signal.
///
/// # Errors
/// `invalid_request`.
pub(crate) fn signal(asked: &Signal) -> Result<i32, ApiError> {
    let number = match asked {
        Signal::Number(number) => Some(*number).filter(|number| (1..=64).contains(number)),
        Signal::Name(name) => signal_number(name),
    };
    number.ok_or_else(|| {
        let mut findings = Findings::default();
        findings.add("/signal", "is no signal of Linux; SIGTERM, TERM and 15 are the same one");
        ApiError::invalid(findings.0)
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
    use std::time::Duration;

    use faas_types::{RequestId, Signal, StopRequest, TimeoutRequest, UpdateInstanceRequest};

    use super::super::{Findings, limits};
    use super::{Exec, grace, limit_change, signal, time_change};

    #[test]
    fn a_change_that_changes_nothing_is_refused() {
        assert!(time_change(&TimeoutRequest::default()).is_err());
        let away = TimeoutRequest { ttl_ms: Some(None), ..TimeoutRequest::default() };
        assert_eq!(time_change(&away).unwrap().ttl_ms, Some(None));
        let rules = super::super::tests::RULES;
        assert!(limit_change(&UpdateInstanceRequest::default(), &rules).is_err());
    }

    #[test]
    fn what_is_for_a_lasting_command_is_for_that_alone() {
        let rules = super::super::tests::RULES;
        let limits = limits::limits(&limits::Asked::default(), &rules, &mut Findings::default()).sandbox;
        let exec = |json: &str| {
            let request = serde_json::from_str(json).unwrap();
            super::exec(request, RequestId("r".into()), &limits, &rules)
        };
        let lasting = |json| match exec(json).unwrap() {
            Exec::Lasting(spec) => *spec,
            Exec::Waiting(_) => panic!("{json}"),
        };
        assert!(matches!(exec(r#"{"command":"x"}"#), Ok(Exec::Waiting(_))));
        let spec = lasting(r#"{"command":"x","background":true}"#);
        assert!(spec.timeout.is_none() && spec.max_output_bytes.is_none() && spec.background);
        let spec = lasting(
            r#"{"command":"x","background":true,"timeout_ms":86400000,"tty":{"rows":1,"cols":1000}}"#,
        );
        assert_eq!(spec.timeout, Some(Duration::from_secs(86400)));
        let spec = lasting(r#"{"command":"x","keep_running":true,"stdin_open":true}"#);
        assert!(spec.timeout.is_some() && spec.max_output_bytes.is_some() && spec.stdin_open);
        for wrong in [
            r#"{"command":"x","stdin_open":true}"#,
            r#"{"command":"x","keep_running":true,"tty":{"rows":1,"cols":1}}"#,
            r#"{"command":"x","background":true,"tty":{"rows":0,"cols":1}}"#,
            r#"{"command":"x","background":true,"tty":{"rows":1,"cols":1001}}"#,
            r#"{"command":"x","background":true,"timeout_ms":0}"#,
            &format!(r#"{{"command":"x","keep_running":true,"stdin":"{}"}}"#, "x".repeat((256 << 10) + 1)),
        ] {
            assert!(exec(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_restart_is_of_a_main_command() {
        let rules = super::super::tests::RULES;
        let new = |json: &str| {
            let request = serde_json::from_str(json).unwrap();
            super::new_instance(request, faas_types::TenantId("default".into()), &rules)
        };
        assert!(new("{}").unwrap().main.is_none());
        assert!(new(r#"{"main":true,"restart":"always"}"#).unwrap().main.unwrap().of_image);
        assert!(new(r#"{"command":["a"],"restart":"on_failure"}"#).unwrap().main.unwrap().command.is_some());
        assert!(new(r#"{"restart":"always"}"#).is_err());
        assert!(new(r#"{"command":""}"#).is_err());
    }

    #[test]
    fn a_signal_is_one_that_there_is() {
        assert_eq!(signal(&Signal::Number(9)).unwrap(), 9);
        assert_eq!(signal(&Signal::Name("SIGINT".into())).unwrap(), 2);
        for wrong in [Signal::Number(0), Signal::Number(65), Signal::Name("SIGNOPE".into())] {
            assert!(signal(&wrong).is_err(), "{wrong:?}");
        }
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
