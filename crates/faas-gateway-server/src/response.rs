//! What the engine says of an execution, as it stands in the answer.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use faas_executor::ExecutionOutcome;
use faas_guest_protocol::ExitReport;
use faas_types::{ErrorCode, ExecuteResponse, RequestId};

use crate::error::ApiError;

/// The answer to an execution that has ended.
///
/// # Errors
/// `sandbox_lost` where the guest agent reported an end that is neither an exit nor a signal.
pub(crate) fn execute_response(
    outcome: ExecutionOutcome,
    request_id: RequestId,
) -> Result<ExecuteResponse, ApiError> {
    let (exit_code, signal) = ended_by(&outcome.exit).ok_or_else(|| {
        let ExitReport { code, signal, .. } = outcome.exit;
        let detail = format!("its agent reported exit code {code:?} and signal {signal:?}");
        ApiError::new(ErrorCode::SandboxLost, detail)
    })?;
    let error = error_of(&outcome.exit, exit_code, outcome.timeout_ms);
    let (stdout, stdout_base64) = text(outcome.stdout);
    let (stderr, stderr_base64) = text(outcome.stderr);
    Ok(ExecuteResponse {
        request_id,
        execution_id: outcome.execution_id,
        exit_code,
        signal,
        output: Arc::clone(&stdout),
        logs: Arc::clone(&stderr),
        stdout,
        stderr,
        stdout_base64,
        stderr_base64,
        stdout_truncated: outcome.exit.stdout_truncated,
        stderr_truncated: outcome.exit.stderr_truncated,
        duration_ms: outcome.exit.duration_us.div_ceil(1000).max(1),
        timings: outcome.timings,
        runtime: outcome.runtime,
        image: outcome.image,
        oom_killed: outcome.oom_killed,
        usage: outcome.usage,
        error,
    })
}

/// The exit code and the name of the signal of what ended by itself or by a signal.
pub(crate) fn ended_by(exit: &ExitReport) -> Option<(i32, Option<String>)> {
    match (exit.code, exit.signal) {
        (Some(code), None) => Some((code, None)),
        (None, Some(number @ 1..=64)) => Some((128 + number, Some(signal_name(number)))),
        _ => None,
    }
}

/// What went wrong with a command that ended with this code, in one sentence.
pub(crate) fn error_of(exit: &ExitReport, exit_code: i32, timeout_ms: u64) -> Option<String> {
    if exit.timed_out {
        Some(format!("process was killed at its timeout of {timeout_ms} ms"))
    } else if exit.cancelled {
        Some("process was cancelled".to_owned())
    } else {
        (exit_code != 0).then(|| format!("process exited with code {exit_code}"))
    }
}

/// Bytes as text, and exactly where they are not UTF-8. A character that the limit cut in two makes them that as well.
fn text(bytes: Vec<u8>) -> (Arc<str>, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) => (text.into(), None),
        Err(error) => {
            let bytes = error.as_bytes();
            (String::from_utf8_lossy(bytes).into(), Some(STANDARD.encode(bytes)))
        }
    }
}

/// The names of the signals of Linux from 1 on (signal(7)), on x86-64 and arm64.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The number of a signal by its name, with or without `SIG`.
pub(crate) fn signal_number(name: &str) -> Option<i32> {
    let plain = name.strip_prefix("SIG").unwrap_or(name);
    if let Some(index) = NAMES.iter().position(|known| *known == plain) {
        return i32::try_from(index + 1).ok();
    }
    let above = plain.strip_prefix("RTMIN+")?.parse::<i32>().ok()?;
    (0..=30).contains(&above).then_some(34 + above)
}

/// The name of a signal.
fn signal_name(number: i32) -> String {
    let known = usize::try_from(number - 1).ok().and_then(|index| NAMES.get(index));
    match known {
        Some(name) => format!("SIG{name}"),
        // The C library keeps 32 and 33 for itself.
        None if number >= 34 => format!("SIGRTMIN+{}", number - 34),
        None => format!("SIG{number}"),
    }
}

#[cfg(test)]
mod tests {
    use faas_executor::ExecutionOutcome;
    use faas_guest_protocol::ExitReport;
    use faas_types::{ExecuteResponse, ExecutionId, RequestId, Runtime, Timings, Usage};

    use super::{execute_response, signal_name, signal_number};

    fn answer(exit: ExitReport, stdout: &[u8]) -> Result<ExecuteResponse, crate::error::ApiError> {
        let outcome = ExecutionOutcome {
            execution_id: ExecutionId("exe-1".to_owned()),
            exit,
            stdout: stdout.to_vec(),
            stderr: Vec::new(),
            oom_killed: false,
            usage: Usage::default(),
            runtime: Runtime::Native,
            image: "host".to_owned(),
            timeout_ms: 5,
            timings: Timings::default(),
        };
        execute_response(outcome, RequestId("r".to_owned()))
    }

    fn exit(code: Option<i32>, signal: Option<i32>) -> ExitReport {
        ExitReport {
            code,
            signal,
            timed_out: false,
            cancelled: false,
            stdout_truncated: false,
            stderr_truncated: false,
            duration_us: 0,
            oom_kills: None,
        }
    }

    #[test]
    fn an_exit_code_is_kept_and_named_in_error() {
        let good = answer(exit(Some(0), None), b"x").unwrap();
        assert_eq!((good.exit_code, good.error.as_deref(), good.signal.as_deref()), (0, None, None));
        assert_eq!((&*good.stdout, &*good.output), ("x", "x"));
        let bad = answer(exit(Some(3), None), b"").unwrap();
        assert_eq!(bad.error.as_deref(), Some("process exited with code 3"));
    }

    #[test]
    fn a_signal_is_128_and_its_number() {
        let killed = answer(exit(None, Some(9)), b"").unwrap();
        assert_eq!((killed.exit_code, killed.signal.as_deref()), (137, Some("SIGKILL")));
        assert_eq!(signal_name(31), "SIGSYS");
        assert_eq!(signal_name(34), "SIGRTMIN+0");
    }

    #[test]
    fn a_signal_is_known_by_its_name_and_back() {
        for number in (1..=31).chain(34..=64) {
            assert_eq!(signal_number(&signal_name(number)), Some(number));
        }
        assert_eq!(signal_number("TERM"), Some(15));
        for unknown in ["", "SIG", "term", "SIGRTMIN+31", "SIGRTMIN+-1", "NOPE"] {
            assert_eq!(signal_number(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn an_end_that_is_none_is_a_lost_sandbox() {
        for (code, signal) in [(None, None), (Some(1), Some(9)), (None, Some(0)), (None, Some(i32::MAX))] {
            assert!(answer(exit(code, signal), b"").is_err(), "{code:?} {signal:?}");
        }
    }

    #[test]
    fn a_duration_is_rounded_up_and_at_least_one() {
        for (us, ms) in [(0, 1), (1, 1), (1000, 1), (1001, 2)] {
            let answered = answer(ExitReport { duration_us: us, ..exit(Some(0), None) }, b"").unwrap();
            assert_eq!(answered.duration_ms, ms);
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_come_exactly_as_well() {
        let answered = answer(exit(Some(0), None), b"a\xff").unwrap();
        assert_eq!(&*answered.stdout, "a\u{fffd}");
        assert_eq!(answered.stdout_base64.as_deref(), Some("Yf8="));
        assert_eq!(answered.stderr_base64, None);
    }

    #[test]
    fn a_timeout_says_so() {
        let answered = answer(ExitReport { timed_out: true, ..exit(None, Some(9)) }, b"").unwrap();
        assert_eq!(answered.error.as_deref(), Some("process was killed at its timeout of 5 ms"));
    }
}
