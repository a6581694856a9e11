//! Executions as clients are told of them.

use faas_executor::{ExecutionInfo, ExecutionView, HowEnded, InstanceInfo};
use faas_guest_protocol::ExitReport;
use faas_types::{Execution, ExecutionStatus, MainCommand};

use crate::instance_info::timestamp;
use crate::response::{ended_by, error_of};

/// An execution as it is shown.
pub(crate) fn execution(view: ExecutionView) -> Execution {
    let ExecutionView { info, first_offset, next_offset } = view;
    let status = info.status();
    let (report, oom_killed, status_reason) = match info.end.as_ref().map(|end| &end.how) {
        Some(HowEnded::Exit { report, oom_killed }) => (Some(report.clone()), *oom_killed, None),
        Some(HowEnded::Lost { reason }) => (None, false, Some(reason.clone())),
        Some(HowEnded::Failed { error }) => (None, false, Some(error.message.clone())),
        None => (None, false, None),
    };
    let ended = report.as_ref().and_then(ended_by);
    let error = match (&ended, &status_reason) {
        (Some((code, _)), _) => {
            error_of(&info_report(report.as_ref()), *code, info.timeout_ms.unwrap_or_default())
        }
        (None, reason) => reason.clone(),
    };
    let (exit_code, signal) = ended.map_or((None, None), |(code, signal)| (Some(code), signal));
    let reason = status_reason.or_else(|| reason(&info, status));
    Execution {
        status,
        status_reason: reason,
        exit_code,
        signal,
        oom_killed,
        stdout_truncated: report.as_ref().is_some_and(|report| report.stdout_truncated),
        stderr_truncated: report.as_ref().is_some_and(|report| report.stderr_truncated),
        duration_ms: report.map(|report| report.duration_us.div_ceil(1000).max(1)),
        error,
        created_at: timestamp(info.created_at_ms),
        ended_at: info.end.as_ref().map(|end| timestamp(end.at_ms)),
        execution_id: info.id,
        instance_id: info.instance,
        kind: info.kind,
        command: info.command,
        background: info.background,
        tty: info.tty,
        labels: info.labels,
        timeout_ms: info.timeout_ms,
        first_offset,
        next_offset,
    }
}

fn info_report(report: Option<&ExitReport>) -> ExitReport {
    report.cloned().unwrap_or_default()
}

fn reason(info: &ExecutionInfo, status: ExecutionStatus) -> Option<String> {
    match (status, info.timeout_ms) {
        (ExecutionStatus::TimedOut, Some(ms)) => Some(format!("it was still running after {ms} ms")),
        (ExecutionStatus::Cancelled, _) => Some("it was cancelled".to_owned()),
        _ => None,
    }
}

/// The main command of an instance as it is shown.
pub(crate) fn main_command(info: &InstanceInfo) -> Option<MainCommand> {
    let spec = info.main.as_ref()?;
    Some(MainCommand {
        command: spec.command.clone(),
        main: spec.of_image,
        restart: spec.restart,
        execution_id: info.main_run.as_ref().map(|run| run.execution.clone()),
        restarts: info.main_run.as_ref().map_or(0, |run| run.restarts),
    })
}
