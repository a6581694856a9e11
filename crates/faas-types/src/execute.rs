//! `POST /api/v1/execute`: what is asked and what is answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ExecutionId, Problem, RequestId};

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "it is neither a string nor an array of strings")]
pub enum CommandLine {
    /// A string: run by `/bin/sh -c`.
    Shell(String),
    /// An array: executed as it is; the first entry is looked up in `PATH` unless it holds a `/`.
    Argv(Vec<String>),
}

/// Environment variables, in the order in which they were given; a later one wins over an earlier one.
///
/// Accepted as an object, as an array of `[name, value]` pairs or as an array of `"NAME=value"` strings.
#[derive(Clone, Debug, Default, PartialEq, Eq, ToSchema)]
#[schema(value_type = BTreeMap<String, String>)]
pub struct EnvVars(pub Vec<(String, String)>);

impl Serialize for EnvVars {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(k, v)| (k, v)))
    }
}

impl<'de> Deserialize<'de> for EnvVars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Entry {
            Pair(String, String),
            Joined(String),
        }

        struct EnvVisitor;
        impl<'de> Visitor<'de> for EnvVisitor {
            type Value = EnvVars;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(
                    "an object, an array of [name, value] pairs or an array of \"NAME=value\" strings",
                )
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EnvVars, A::Error> {
                let mut vars = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    vars.push(entry);
                }
                Ok(EnvVars(vars))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<EnvVars, A::Error> {
                let mut vars = Vec::new();
                while let Some(entry) = seq.next_element::<Entry>().map_err(|_| {
                    de::Error::custom("an entry is neither a [name, value] pair nor a \"NAME=value\" string")
                })? {
                    vars.push(match entry {
                        Entry::Pair(name, value) => (name, value),
                        Entry::Joined(joined) => match joined.split_once('=') {
                            Some((name, value)) => (name.to_owned(), value.to_owned()),
                            None => {
                                return Err(de::Error::custom("an entry has no '=' between name and value"));
                            }
                        },
                    });
                }
                Ok(EnvVars(vars))
            }
        }
        deserializer.deserialize_any(EnvVisitor)
    }
}

/// The runtime a caller asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeChoice {
    /// The server picks one that can do what is asked.
    #[default]
    Auto,
    /// Sandboxes that this server makes itself.
    Native,
    /// A Docker engine.
    Docker,
    /// Firecracker microVMs.
    Firecracker,
}

/// The runtime that did the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Sandboxes that this server makes itself.
    Native,
    /// A Docker engine.
    Docker,
    /// Firecracker microVMs.
    Firecracker,
}

impl Runtime {
    /// All runtimes, in the order in which `auto` prefers them.
    pub const ALL: [Self; 3] = [Self::Native, Self::Docker, Self::Firecracker];

    /// The runtime as it stands in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Docker => "docker",
            Self::Firecracker => "firecracker",
        }
    }
}

impl std::fmt::Display for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a sandbox can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Itself over loopback, and nothing else.
    #[default]
    None,
    /// Connections to the outside.
    Egress,
}

/// A file put into the sandbox before the command runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// Where: absolute, or relative to the working directory. Missing parents are made.
    pub path: String,
    /// Its content as text. Exactly one of `content` and `content_base64` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Its content as bytes in base64 (RFC 4648, section 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<String>,
    /// Permission bits in octal, for example `"0755"`; `"0644"` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// The body of `POST /api/v1/execute`. Only `command` is required; an unknown member is an error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecuteRequest {
    /// What to run: a string for `/bin/sh -c`, or an array that is executed as it is.
    pub command: Option<CommandLine>,
    /// The image whose files the sandbox starts from; the server's default when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The runtime to use.
    #[serde(default)]
    pub runtime: RuntimeChoice,
    /// Environment variables, added to those of the image.
    #[serde(default)]
    pub env_vars: EnvVars,
    /// The working directory; the image's, or `/`, when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The user: a name, `uid` or `uid:gid`; the image's, or root of the sandbox, when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Standard input as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Standard input as bytes in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_base64: Option<String>,
    /// Files put into the sandbox before the command runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<InputFile>,
    /// Secrets: each appears as a file `/run/secrets/NAME` on a tmpfs, readable by the command's user alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// Wall time of the command in milliseconds, counted from the start of its process; 30000 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
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
    /// What the command can reach.
    #[serde(default)]
    pub network: Network,
    /// How many bytes are kept of each of stdout and stderr; the rest is read and dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_bytes: Option<u64>,
    /// Free words for the caller's own use; they appear in the server's log.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// For mode `cached` alone: requests with one key share one sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_key: Option<String>,
}

/// Where the time of one execution went. Measured, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Timings {
    /// Waiting for a place among the executions that run at once.
    pub queue_us: u64,
    /// Making the sandbox.
    pub create_us: u64,
    /// Running the command, from the start of its process until its end was known.
    pub exec_us: u64,
}

/// What a sandbox used. A figure that the host does not tell is null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// CPU time of all of its processes, in microseconds.
    pub cpu_us: Option<u64>,
    /// The most memory that it held at once, page cache and tmpfs included, in bytes.
    pub memory_peak_bytes: Option<u64>,
}

/// The answer to an execution that ran, whatever its exit code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecuteResponse {
    /// The id of the request.
    pub request_id: RequestId,
    /// The id of the execution.
    pub execution_id: ExecutionId,
    /// The exit code; 128 + n when signal n ended it.
    pub exit_code: i32,
    /// The name of the signal that ended it, or null.
    pub signal: Option<String>,
    /// Standard output. Where its bytes are not UTF-8, U+FFFD stands for them and `stdout_base64` has them.
    #[schema(value_type = String)]
    pub stdout: Arc<str>,
    /// Standard error, likewise.
    #[schema(value_type = String)]
    pub stderr: Arc<str>,
    /// The exact bytes of standard output, where they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// The exact bytes of standard error, where they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
    /// Whether standard output went on after `max_output_bytes`.
    pub stdout_truncated: bool,
    /// Whether standard error went on after `max_output_bytes`.
    pub stderr_truncated: bool,
    /// Wall time of the command in milliseconds: whole, rounded up, at least 1.
    pub duration_ms: u64,
    /// Where the time went.
    pub timings: Timings,
    /// The runtime that ran it.
    pub runtime: Runtime,
    /// The image it ran in.
    pub image: String,
    /// Whether the kernel killed a process of the sandbox for want of memory.
    pub oom_killed: bool,
    /// What the sandbox used.
    #[serde(default)]
    pub usage: Usage,
    /// Null, or `process exited with code N`.
    pub error: Option<String>,
    /// The same as `stdout`, for older clients.
    #[schema(value_type = String)]
    pub output: Arc<str>,
    /// The same as `stderr`, for older clients.
    #[schema(value_type = String)]
    pub logs: Arc<str>,
}

/// One event of an execution whose answer is a stream: `started`, then output in the order in which it came, then one of
/// `exit` and `error`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ExecuteEvent {
    /// The command runs.
    Started(ExecutionStarted),
    /// Standard output.
    Stdout(OutputPiece),
    /// Standard error.
    Stderr(OutputPiece),
    /// Output that this reader was too slow for.
    Gap(OutputGap),
    /// The command has ended: the last event of what went well, whatever its exit code.
    Exit(ExecutionExit),
    /// The last event of what did not: `execution_timeout`, `sandbox_lost` and others. The member `execution` of a timeout
    /// has no output: that came before.
    Error(Problem),
}

/// The command runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecutionStarted {
    /// The id of the request.
    pub request_id: RequestId,
    /// The id of the execution.
    pub execution_id: ExecutionId,
}

/// A piece of output. Exactly one of `data` and `data_base64` is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputPiece {
    /// How many bytes of output came before it, of standard output and standard error together.
    pub offset: u64,
    /// The piece as text; no character is cut in two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The piece in base64, where its bytes are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
}

/// Output that is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputGap {
    /// The offset of the first byte of it.
    pub from: u64,
    /// The offset after the last.
    pub to: u64,
}

/// How a command ended: the members of an [`ExecuteResponse`] but its output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecutionExit {
    /// The id of the request.
    pub request_id: RequestId,
    /// The id of the execution.
    pub execution_id: ExecutionId,
    /// The exit code; 128 + n when signal n ended it.
    pub exit_code: i32,
    /// The name of the signal that ended it, or null.
    pub signal: Option<String>,
    /// Whether standard output went on after `max_output_bytes`.
    pub stdout_truncated: bool,
    /// Whether standard error went on after `max_output_bytes`.
    pub stderr_truncated: bool,
    /// Wall time of the command in milliseconds: whole, rounded up, at least 1.
    pub duration_ms: u64,
    /// Where the time went.
    pub timings: Timings,
    /// The runtime that ran it.
    pub runtime: Runtime,
    /// The image it ran in.
    pub image: String,
    /// Whether the kernel killed a process of the sandbox for want of memory.
    pub oom_killed: bool,
    /// What the sandbox used.
    #[serde(default)]
    pub usage: Usage,
    /// Null, or `process exited with code N`.
    pub error: Option<String>,
}

impl From<ExecuteResponse> for ExecutionExit {
    fn from(response: ExecuteResponse) -> Self {
        Self {
            request_id: response.request_id,
            execution_id: response.execution_id,
            exit_code: response.exit_code,
            signal: response.signal,
            stdout_truncated: response.stdout_truncated,
            stderr_truncated: response.stderr_truncated,
            duration_ms: response.duration_ms,
            timings: response.timings,
            runtime: response.runtime,
            image: response.image,
            oom_killed: response.oom_killed,
            usage: response.usage,
            error: response.error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CommandLine, EnvVars, ExecuteRequest};

    fn env(json: &str) -> Result<EnvVars, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn env_vars_are_taken_in_three_forms() {
        let expected = EnvVars(vec![("A".into(), "1".into()), ("B".into(), "x=y".into())]);
        assert_eq!(env(r#"{"A":"1","B":"x=y"}"#).unwrap(), expected);
        assert_eq!(env(r#"[["A","1"],["B","x=y"]]"#).unwrap(), expected);
        assert_eq!(env(r#"["A=1","B=x=y"]"#).unwrap(), expected);
    }

    #[test]
    fn env_vars_of_other_forms_are_refused() {
        assert!(env(r#"["A"]"#).unwrap_err().contains("no '='"));
        assert!(env(r#"[["A"]]"#).unwrap_err().contains("neither"));
        assert!(env("3").unwrap_err().contains("an object"));
        assert!(env(r#"{"A":1}"#).is_err());
    }

    #[test]
    fn command_is_a_string_or_an_array() {
        let shell: ExecuteRequest = serde_json::from_str(r#"{"command":"echo hi"}"#).unwrap();
        assert_eq!(shell.command, Some(CommandLine::Shell("echo hi".into())));
        let argv: ExecuteRequest = serde_json::from_str(r#"{"command":["echo","hi"]}"#).unwrap();
        assert_eq!(argv.command, Some(CommandLine::Argv(vec!["echo".into(), "hi".into()])));
    }

    #[test]
    fn an_unknown_member_is_refused_by_name() {
        let error = serde_json::from_str::<ExecuteRequest>(r#"{"command":"x","comand":"y"}"#).unwrap_err();
        assert!(error.to_string().contains("`comand`"), "{error}");
    }
}
