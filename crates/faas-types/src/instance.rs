//! `/api/v1/instances`: sandboxes that outlive one request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    CommandLine, EnvVars, ExecutionId, Failure, InputFile, InstanceId, MainCommand, Network, RestartPolicy,
    Runtime, RuntimeChoice, SnapshotId, TerminalSize,
};

/// Where an instance stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum InstanceStatus {
    /// Its sandbox is being made, for the first time or again.
    Creating,
    /// Commands can be run in it.
    Running,
    /// Its processes are stopped where they are. They use no CPU time.
    Paused,
    /// Its processes are being ended, or it is being deleted.
    Stopping,
    /// Its processes are gone, its files are there.
    Stopped,
    /// Its sandbox ended without having been told to; `status_reason` says how.
    Failed,
}

impl InstanceStatus {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 6] =
        [Self::Creating, Self::Running, Self::Paused, Self::Stopping, Self::Stopped, Self::Failed];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl std::fmt::Display for InstanceStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What becomes of an instance whose time is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    /// It is deleted, with its files.
    #[default]
    Delete,
    /// It is paused, and can be resumed.
    Pause,
}

/// The body of `POST /api/v1/instances`. An unknown member is an error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateInstanceRequest {
    /// The image whose files it starts from; the server's default when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A name of the caller's own: letters, digits, `-`, `_` and `.`; no two instances have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The runtime to use.
    #[serde(default)]
    pub runtime: RuntimeChoice,
    /// Environment variables of every command that is run in it, added to those of the image.
    #[serde(default)]
    pub env_vars: EnvVars,
    /// The working directory of every command; the image's, or `/`, when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The user of every command; the image's, or root of the sandbox, when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Files put into it before anything runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<InputFile>,
    /// Memory limit in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// CPU limit in cores; fractions are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<f64>,
    /// The most processes and threads at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u64>,
    /// Disk limit in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_mb: Option<u64>,
    /// What its commands can reach.
    #[serde(default)]
    pub network: Network,
    /// How long it is there, in milliseconds from its creation; without one until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// How long it may be idle, in milliseconds: running, and no request is about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,
    /// What becomes of it when one of these times is over.
    #[serde(default)]
    pub on_timeout: OnTimeout,
    /// Whether a command for it resumes it when it is paused.
    #[serde(default)]
    pub auto_resume: bool,
    /// Its main command: run when it has been created, and again when it is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandLine>,
    /// Whether the image's entrypoint is its main command, with `command`, or the image's own arguments, after it.
    #[serde(default)]
    pub main: bool,
    /// When its main command is run again after its end.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// Free words for the caller's own use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The body of `POST /api/v1/instances/{id}/exec`. Only `command` is required; an unknown member is an error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// What to run: a string for `/bin/sh -c`, or an array that is executed as it is.
    pub command: Option<CommandLine>,
    /// Environment variables, added to those of the instance.
    #[serde(default)]
    pub env_vars: EnvVars,
    /// The working directory; the instance's when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The user: a name, `uid` or `uid:gid`; the instance's when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Standard input as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Standard input as bytes in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_base64: Option<String>,
    /// Files put into the instance before the command runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<InputFile>,
    /// Secrets: each appears as a file `/run/secrets/NAME` on a tmpfs, readable by the command's user alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// Wall time of the command in milliseconds, counted from the start of its process; 30000 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How many bytes are kept of each of stdout and stderr; the rest is read and dropped. In the background without a
    /// limit where it is not given: then the newest part is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_bytes: Option<u64>,
    /// Whether the answer is the execution, at once, and nobody waits for it. It has no timeout unless one is given.
    #[serde(default)]
    pub background: bool,
    /// Whether it runs on when its client closes the connection.
    #[serde(default)]
    pub keep_running: bool,
    /// Whether its standard input stays open for `/api/v1/executions/{id}/input`; with `background` or `keep_running`.
    #[serde(default)]
    pub stdin_open: bool,
    /// A terminal for it, with `background`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<TerminalSize>,
    /// Free words for the caller's own use; they appear in the server's log.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The body of `POST /api/v1/instances/{id}/timeout`: counted from now on. A member that is not given stays as it is,
/// null takes the limit away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeoutRequest {
    /// How long it is still there, in milliseconds.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub ttl_ms: Option<Option<u64>>,
    /// How long it may be idle, in milliseconds.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub idle_timeout_ms: Option<Option<u64>>,
}

/// Tells null from nothing.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::<u64>::deserialize(deserializer).map(Some)
}

/// The body of `PATCH /api/v1/instances/{id}`: other limits for one that runs. A member that is not given stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateInstanceRequest {
    /// Memory limit in MiB; not below what is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// CPU limit in cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<f64>,
    /// The most processes and threads at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u64>,
}

/// The body of `POST /api/v1/instances/{id}/stop`, which may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// How long its processes have after SIGTERM, in milliseconds, until they are killed: at most 60000; 5000 when not
    /// given. 0 kills them at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

/// What an instance may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// CPU limit in cores.
    pub cpu_cores: f64,
    /// Memory limit in MiB.
    pub memory_mb: u64,
    /// Disk limit in MiB, where one was asked for.
    pub disk_mb: Option<u64>,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// Its id. Also its host name.
    pub id: InstanceId,
    /// The caller's name for it, or null.
    pub name: Option<String>,
    /// The image it was made from.
    pub image: String,
    /// The runtime it is on.
    pub runtime: Runtime,
    /// Where it stands.
    pub status: InstanceStatus,
    /// Why it stands there, where that does not go without saying.
    pub status_reason: Option<String>,
    /// When it was asked for (RFC 3339).
    pub created_at: String,
    /// CPU limit in cores.
    pub cpu_cores: f64,
    /// Memory limit in MiB.
    pub memory_mb: u64,
    /// The most processes and threads at once.
    pub pids_limit: u32,
    /// Disk limit in MiB, where one was asked for.
    pub disk_mb: Option<u64>,
    /// What its commands can reach.
    pub network: Network,
    /// The caller's own words.
    pub labels: BTreeMap<String, String>,
    /// The instance that it is a branch of, or null.
    pub parent_id: Option<InstanceId>,
    /// The snapshot that it was made from, or null.
    pub snapshot_id: Option<SnapshotId>,
    /// How long it is there, in milliseconds, as it was last set, or null.
    pub ttl_ms: Option<u64>,
    /// How long it may be idle, in milliseconds, or null.
    pub idle_timeout_ms: Option<u64>,
    /// When its time is over (RFC 3339): the earlier of both limits as things stand now, or null.
    pub expires_at: Option<String>,
    /// What becomes of it then.
    pub on_timeout: OnTimeout,
    /// Whether a command for it resumes it when it is paused.
    pub auto_resume: bool,
    /// Its main command, or null.
    pub main: Option<MainCommand>,
    /// The limits once more, together.
    pub resources: Resources,
}

/// What an instance uses now: the answer of `GET /api/v1/instances/{id}/metrics`. A figure that its runtime does not tell
/// is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceMetrics {
    /// Its id.
    pub instance_id: InstanceId,
    /// Where it stands.
    pub status: InstanceStatus,
    /// CPU time of all of its processes since it was created or started, in microseconds.
    pub cpu_us: Option<u64>,
    /// Memory that it holds, page cache and tmpfs included.
    pub memory_bytes: Option<u64>,
    /// The most that it held at once.
    pub memory_peak_bytes: Option<u64>,
    /// Its memory limit.
    pub memory_limit_bytes: u64,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// The most of them at once.
    pub pids_limit: u32,
    /// What its files take, those of its image aside.
    pub disk_bytes: Option<u64>,
    /// Bytes that came in over its network, loopback aside.
    pub network_received_bytes: Option<u64>,
    /// Bytes that went out.
    pub network_sent_bytes: Option<u64>,
}

/// An entry of an instance's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogEntry {
    /// When (RFC 3339).
    pub at: String,
    /// What it is.
    #[serde(flatten)]
    pub item: LogItem,
}

/// What an entry of a log is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LogItem {
    /// What became of the instance.
    Event(LogEvent),
    /// Standard output of its main command.
    Stdout(LogOutput),
    /// Standard error of its main command.
    Stderr(LogOutput),
    /// The log cannot be followed any more: the last entry then.
    Error(Failure),
}

/// What became of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogEvent {
    /// The kind of the event: `instance.running`, for example.
    pub kind: String,
    /// Why, where that does not go without saying, or null.
    pub reason: Option<String>,
}

/// What its main command said. Exactly one of `data` and `data_base64` is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogOutput {
    /// The run that said it.
    pub execution_id: ExecutionId,
    /// It as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// It in base64, where its bytes are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::{InstanceStatus, TimeoutRequest};

    #[test]
    fn every_status_is_spelled_as_serde_spells_it() {
        for status in InstanceStatus::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }

    #[test]
    fn a_limit_that_is_null_is_told_from_one_that_is_not_there() {
        let parsed: TimeoutRequest = serde_json::from_str(r#"{"ttl_ms":null}"#).unwrap();
        assert_eq!(parsed, TimeoutRequest { ttl_ms: Some(None), idle_timeout_ms: None });
        let parsed: TimeoutRequest = serde_json::from_str(r#"{"idle_timeout_ms":5}"#).unwrap();
        assert_eq!(parsed, TimeoutRequest { ttl_ms: None, idle_timeout_ms: Some(Some(5)) });
    }
}
