//! A lasting execution, and the same as a row of the store.

use std::collections::BTreeMap;

use faas_guest_protocol::{AgentError, ExitReport, Program};
use faas_types::{
    CommandLine, ExecutionId, ExecutionKind, ExecutionStatus, InstanceId, RestartPolicy, Runtime, TenantId,
    TerminalSize, Timings, Usage,
};
use serde::{Deserialize, Serialize};

use super::super::data::{now_ms, signed, unsigned};
use crate::engine::ExecutionOutcome;
use crate::engine::execute::{SIGKILL, micros};
use crate::error::EngineError;
use crate::sandbox::SandboxError;
use crate::store::{Execution as Row, NewEvent, StoreError};

/// The version of what is in a row.
const VERSION: u32 = 1;

/// The main command of an instance, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainSpec {
    /// What was given; none where it is the image's alone.
    pub command: Option<CommandLine>,
    /// Whether the image's entrypoint runs.
    pub of_image: bool,
    /// When it is run again.
    pub restart: RestartPolicy,
}

/// The newest run of a main command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MainRun {
    /// The execution.
    pub execution: ExecutionId,
    /// How often it had been run again before, since its instance was started.
    pub restarts: u32,
}

/// How an execution ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HowEnded {
    /// Its agent told its end.
    Exit {
        /// What it told.
        report: ExitReport,
        /// Whether the kernel killed a process of the instance for want of memory while it ran.
        oom_killed: bool,
    },
    /// Its sandbox or its agent ended under it.
    Lost {
        /// How that came.
        reason: String,
    },
    /// It could not be started.
    Failed {
        /// Why not.
        error: AgentError,
    },
}

/// The end of an execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionEnd {
    /// When it was known, in milliseconds since 1970.
    pub at_ms: u64,
    /// The offset after the last byte of its output.
    pub next_offset: u64,
    /// How.
    pub how: HowEnded,
}

/// One execution in an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutionInfo {
    /// Its id.
    pub id: ExecutionId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The instance it runs in.
    pub instance: InstanceId,
    /// The runtime of that.
    pub runtime: Runtime,
    /// The image of that.
    pub image: String,
    /// What it is to that.
    pub kind: ExecutionKind,
    /// What was run.
    pub command: CommandLine,
    /// Whether nobody waits for it.
    pub background: bool,
    /// The terminal that it was started with.
    pub tty: Option<TerminalSize>,
    /// Whether its standard input was left open.
    pub stdin_open: bool,
    /// The caller's own words.
    pub labels: BTreeMap<String, String>,
    /// Its wall time in milliseconds, where it has a limit.
    pub timeout_ms: Option<u64>,
    /// How many bytes of each of stdout and stderr are passed on, where there is a limit.
    pub max_output_bytes: Option<u64>,
    /// When it was asked for, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// How often the main command had been run again before this, since its instance was started.
    pub restarts: u32,
    /// How it ended; none while it runs.
    pub end: Option<ExecutionEnd>,
    /// What its agent knows it by, and the number of that agent's run; 0 where it has none.
    pub(crate) wire: u64,
    pub(crate) boot_id: u64,
    /// What the kernel had killed in the instance before.
    pub(crate) oom_kills_before: Option<u64>,
}

/// What of an execution is in the column `spec`.
#[derive(Debug, Serialize, Deserialize)]
struct SavedSpec {
    version: u32,
    runtime: Runtime,
    image: String,
    kind: ExecutionKind,
    command: CommandLine,
    background: bool,
    tty: Option<TerminalSize>,
    stdin_open: bool,
    labels: BTreeMap<String, String>,
    timeout_ms: Option<u64>,
    max_output_bytes: Option<u64>,
    restarts: u32,
    wire: u64,
    boot_id: u64,
    oom_kills_before: Option<u64>,
}

fn unreadable(what: impl std::fmt::Display) -> StoreError {
    StoreError::Row { table: "executions", reason: what.to_string() }
}

/// A program as it is shown.
pub(in crate::engine::instances) fn shown(program: &Program) -> CommandLine {
    match program {
        Program::Shell(line) => CommandLine::Shell(line.clone()),
        Program::Argv(argv) => CommandLine::Argv(argv.clone()),
    }
}

impl HowEnded {
    /// The end of one whose agent did not end it at its timeout. What it started may still run.
    pub(super) fn overdue(ran: std::time::Duration) -> Self {
        let report = ExitReport {
            signal: Some(SIGKILL),
            timed_out: true,
            duration_us: micros(ran),
            ..ExitReport::default()
        };
        Self::Exit { report, oom_killed: false }
    }

    const fn status(&self) -> ExecutionStatus {
        match self {
            Self::Exit { report, .. } if report.timed_out => ExecutionStatus::TimedOut,
            Self::Exit { report, .. } if report.cancelled => ExecutionStatus::Cancelled,
            Self::Exit { .. } => ExecutionStatus::Exited,
            Self::Lost { .. } => ExecutionStatus::Lost,
            Self::Failed { .. } => ExecutionStatus::Failed,
        }
    }
}

impl ExecutionInfo {
    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> ExecutionStatus {
        self.end.as_ref().map_or(ExecutionStatus::Running, |end| end.how.status())
    }

    /// What came of it, with this output; for one that has ended.
    ///
    /// # Errors
    /// [`EngineError::Timeout`], and where it was lost or could not be started.
    pub fn outcome(&self, stdout: Vec<u8>, stderr: Vec<u8>) -> Result<ExecutionOutcome, EngineError> {
        let lost = |reason: String| Err(SandboxError::Lost { reason }.into());
        let (report, oom_killed) = match self.end.as_ref().map(|end| &end.how) {
            Some(HowEnded::Exit { report, oom_killed }) => (report.clone(), *oom_killed),
            Some(HowEnded::Lost { reason }) => return lost(reason.clone()),
            Some(HowEnded::Failed { error }) => return Err(error.clone().into()),
            None => return lost("it has not ended".to_owned()),
        };
        let timed_out = report.timed_out;
        let outcome = ExecutionOutcome {
            execution_id: self.id.clone(),
            timings: Timings { queue_us: 0, create_us: 0, exec_us: report.duration_us },
            exit: report,
            stdout,
            stderr,
            oom_killed,
            // What the kernel counts it counts for all that runs in the instance.
            usage: Usage::default(),
            runtime: self.runtime,
            image: self.image.clone(),
            timeout_ms: self.timeout_ms.unwrap_or(u64::MAX),
        };
        if timed_out { Err(EngineError::Timeout { outcome: Box::new(outcome) }) } else { Ok(outcome) }
    }

    /// The event of its start or of its end.
    pub(super) fn event(&self) -> NewEvent {
        let kind = if self.end.is_none() { "execution.started" } else { "execution.ended" };
        NewEvent {
            tenant: self.tenant.as_str().to_owned(),
            at_ms: signed(now_ms()),
            kind: kind.to_owned(),
            subject: self.id.as_str().to_owned(),
            data: serde_json::json!({
                "instance_id": self.instance,
                "kind": self.kind,
                "status": self.status().as_str(),
            }),
        }
    }

    pub(super) fn to_row(&self) -> Result<Row, StoreError> {
        let spec = SavedSpec {
            version: VERSION,
            runtime: self.runtime,
            image: self.image.clone(),
            kind: self.kind,
            command: self.command.clone(),
            background: self.background,
            tty: self.tty,
            stdin_open: self.stdin_open,
            labels: self.labels.clone(),
            timeout_ms: self.timeout_ms,
            max_output_bytes: self.max_output_bytes,
            restarts: self.restarts,
            wire: self.wire,
            boot_id: self.boot_id,
            oom_kills_before: self.oom_kills_before,
        };
        Ok(Row {
            id: self.id.as_str().to_owned(),
            tenant: self.tenant.as_str().to_owned(),
            instance_id: Some(self.instance.as_str().to_owned()),
            state: self.status().as_str().to_owned(),
            spec: serde_json::to_value(spec).map_err(unreadable)?,
            result: self.end.as_ref().map(serde_json::to_value).transpose().map_err(unreadable)?,
            created_at_ms: signed(self.created_at_ms),
            ended_at_ms: self.end.as_ref().map(|end| signed(end.at_ms)),
        })
    }

    pub(super) fn from_row(row: Row) -> Result<Self, StoreError> {
        let spec: SavedSpec = serde_json::from_value(row.spec).map_err(unreadable)?;
        if spec.version != VERSION {
            return Err(unreadable(format!("version {} of an execution", spec.version)));
        }
        Ok(Self {
            id: ExecutionId(row.id),
            tenant: TenantId(row.tenant),
            instance: InstanceId(row.instance_id.ok_or_else(|| unreadable("one without an instance"))?),
            runtime: spec.runtime,
            image: spec.image,
            kind: spec.kind,
            command: spec.command,
            background: spec.background,
            tty: spec.tty,
            stdin_open: spec.stdin_open,
            labels: spec.labels,
            timeout_ms: spec.timeout_ms,
            max_output_bytes: spec.max_output_bytes,
            created_at_ms: unsigned(row.created_at_ms),
            restarts: spec.restarts,
            end: row.result.map(serde_json::from_value).transpose().map_err(unreadable)?,
            wire: spec.wire,
            boot_id: spec.boot_id,
            oom_kills_before: spec.oom_kills_before,
        })
    }
}

#[cfg(test)]
mod tests {
    use faas_guest_protocol::{AgentError, AgentErrorKind, ExitReport};
    use faas_types::{
        CommandLine, ExecutionId, ExecutionKind, ExecutionStatus, InstanceId, Runtime, TenantId, TerminalSize,
    };

    use super::{ExecutionEnd, ExecutionInfo, HowEnded};
    use crate::error::EngineError;

    fn ended(how: HowEnded) -> ExecutionInfo {
        ExecutionInfo {
            id: ExecutionId("exe-1".into()),
            tenant: TenantId("default".into()),
            instance: InstanceId("ins-1".into()),
            runtime: Runtime::Native,
            image: "host".into(),
            kind: ExecutionKind::Terminal,
            command: CommandLine::Shell("true".into()),
            background: true,
            tty: Some(TerminalSize { rows: 2, cols: 3 }),
            stdin_open: true,
            labels: [("a".to_owned(), "b".to_owned())].into(),
            timeout_ms: Some(5),
            max_output_bytes: Some(6),
            created_at_ms: 7,
            restarts: 2,
            end: Some(ExecutionEnd { at_ms: 9, next_offset: 11, how }),
            wire: u64::MAX >> 1,
            boot_id: u64::MAX,
            oom_kills_before: Some(1),
        }
    }

    fn exit(report: ExitReport) -> HowEnded {
        HowEnded::Exit { report, oom_killed: false }
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let error = AgentError { kind: AgentErrorKind::User, message: "nobody".into(), errno: 0 };
        for info in [
            ended(exit(ExitReport { code: Some(3), ..ExitReport::default() })),
            ended(HowEnded::Lost { reason: "r".into() }),
            ended(HowEnded::Failed { error }),
            ExecutionInfo { end: None, ..ended(HowEnded::Lost { reason: String::new() }) },
        ] {
            let row = info.to_row().unwrap();
            assert_eq!(row.ended_at_ms.is_some(), info.end.is_some());
            assert_eq!(ExecutionInfo::from_row(row).unwrap(), info);
        }
    }

    #[test]
    fn each_end_can_be_told_from_the_others() {
        let report = |timed_out, cancelled| ExitReport {
            signal: Some(9),
            timed_out,
            cancelled,
            ..ExitReport::default()
        };
        let status = |how| ended(how).status();
        assert_eq!(status(exit(report(false, false))), ExecutionStatus::Exited);
        assert_eq!(status(exit(report(true, false))), ExecutionStatus::TimedOut);
        assert_eq!(status(exit(report(false, true))), ExecutionStatus::Cancelled);
        assert_eq!(status(HowEnded::Lost { reason: String::new() }), ExecutionStatus::Lost);
        let outcome = |how| ended(how).outcome(Vec::new(), Vec::new());
        assert!(outcome(exit(report(false, true))).is_ok());
        assert!(matches!(outcome(exit(report(true, false))), Err(EngineError::Timeout { .. })));
        assert!(outcome(HowEnded::Lost { reason: String::new() }).is_err());
    }
}
