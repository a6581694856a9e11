//! `/api/v1/executions`: executions that outlive the request which started them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{CommandLine, ExecutionId, Failure, InstanceId, OutputGap};

/// What an execution is to its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExecutionKind {
    /// A command that somebody ran in it.
    Command,
    /// Its main command.
    Main,
    /// A terminal.
    Terminal,
}

/// Where an execution stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionStatus {
    /// It runs, or is stopped with its instance.
    Running,
    /// It ended by itself or by a signal: `exit_code` and `signal` say how.
    Exited,
    /// It was still running at its timeout and was killed for that.
    TimedOut,
    /// Somebody cancelled it.
    Cancelled,
    /// Its instance or its agent ended under it; how it ended is not known.
    Lost,
    /// It could not be started.
    Failed,
}

impl ExecutionStatus {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Running, Self::Exited, Self::TimedOut, Self::Cancelled, Self::Lost, Self::Failed];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Exited => "exited",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::Failed => "failed",
        }
    }
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Its height.
    pub rows: u16,
    /// Its width.
    pub cols: u16,
}

/// One execution in an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Execution {
    /// Its id.
    pub execution_id: ExecutionId,
    /// The instance it runs in.
    pub instance_id: InstanceId,
    /// What it is to that.
    pub kind: ExecutionKind,
    /// Where it stands.
    pub status: ExecutionStatus,
    /// Why it stands there, where that does not go without saying.
    pub status_reason: Option<String>,
    /// What was run.
    pub command: CommandLine,
    /// Whether nobody waits for it.
    pub background: bool,
    /// The terminal that it was started with, or null.
    pub tty: Option<TerminalSize>,
    /// The caller's own words.
    pub labels: BTreeMap<String, String>,
    /// Its wall time in milliseconds, or null without a limit.
    pub timeout_ms: Option<u64>,
    /// When it was asked for (RFC 3339).
    pub created_at: String,
    /// When it ended (RFC 3339), or null.
    pub ended_at: Option<String>,
    /// The exit code; 128 + n when signal n ended it; null as long as it is not known.
    pub exit_code: Option<i32>,
    /// The name of the signal that ended it, or null.
    pub signal: Option<String>,
    /// Whether the kernel killed a process of the instance for want of memory while it ran.
    pub oom_killed: bool,
    /// Whether standard output went on after `max_output_bytes`.
    pub stdout_truncated: bool,
    /// Whether standard error went on after `max_output_bytes`.
    pub stderr_truncated: bool,
    /// Wall time in milliseconds: whole, rounded up, at least 1; null as long as it is not known.
    pub duration_ms: Option<u64>,
    /// What went wrong in one sentence, or null.
    pub error: Option<String>,
    /// The offset of the first byte of its output that is still held.
    pub first_offset: u64,
    /// The offset after the last byte of its output so far.
    pub next_offset: u64,
}

/// A signal by its name (`"SIGTERM"`, `"TERM"`) or its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "it is neither the name nor the number of a signal")]
pub enum Signal {
    /// Its number on Linux.
    Number(i32),
    /// Its name.
    Name(String),
}

/// The body of `POST /api/v1/executions/{id}/signal`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// The signal. It goes to the process group that the command began with.
    pub signal: Signal,
}

/// What the server says of a terminal in text frames.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PtyEvent {
    /// It is there. The first.
    Started(PtyStarted),
    /// Output that is not held any more.
    Gap(OutputGap),
    /// It has ended. The last.
    Exit(Box<Execution>),
    /// The connection cannot go on. The last.
    Error(Failure),
}

/// A terminal is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PtyStarted {
    /// Its execution.
    pub execution_id: ExecutionId,
    /// The offset of the first byte of output that comes.
    pub offset: u64,
}

/// What a client says of a terminal in text frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PtyCommand {
    /// It has this size from now on.
    Resize(TerminalSize),
}

/// When an instance's main command is run again after its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// Not at all.
    #[default]
    Never,
    /// When its exit code was not 0.
    OnFailure,
    /// Always, but for when it was cancelled.
    Always,
}

/// The main command of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MainCommand {
    /// What was asked for; null where it is the image's alone.
    pub command: Option<CommandLine>,
    /// Whether the image's entrypoint runs, with `command` in the place of its arguments where there is one.
    pub main: bool,
    /// When it is run again.
    pub restart: RestartPolicy,
    /// Its newest run, or null before the first.
    pub execution_id: Option<ExecutionId>,
    /// How often it was run again since the instance was started.
    pub restarts: u32,
}

#[cfg(test)]
mod tests {
    use super::{ExecutionStatus, Signal, SignalRequest};

    #[test]
    fn every_status_is_spelled_as_serde_spells_it() {
        for status in ExecutionStatus::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }

    #[test]
    fn a_signal_has_a_name_or_a_number() {
        let parsed = |json| serde_json::from_str::<SignalRequest>(json);
        assert_eq!(parsed(r#"{"signal":9}"#).unwrap().signal, Signal::Number(9));
        assert_eq!(parsed(r#"{"signal":"TERM"}"#).unwrap().signal, Signal::Name("TERM".into()));
        for wrong in [r#"{"signal":1.5}"#, r#"{"signal":null}"#, "{}", r#"{"signal":9,"x":1}"#] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
