//! What the frames say.

use serde::{Deserialize, Serialize};

use crate::lasting::Lasting;

/// The version of the protocol. A peer of another version is refused by the gateway, not guessed at.
pub const VERSION: u8 = 1;

/// What a frame is. Values are fixed for ever; gateway to agent below 64, agent to gateway from 64 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// [`ExecRequest`] as JSON: run this. Its files' contents follow as [`Self::FileData`], in order.
    Exec = 1,
    /// Raw bytes: the next bytes of the files of an [`ExecRequest`], one file after the other, each of its `size`.
    FileData = 2,
    /// Raw bytes for the execution's standard input. For a lasting execution at most [`crate::lasting::STDIN_WINDOW_BYTES`] of one
    /// connection may be without their [`Self::StdinTaken`]; who sends more is disconnected.
    Stdin = 3,
    /// Empty: the end of the execution's standard input. A terminal gets its end-of-file character in its place.
    StdinEof = 4,
    /// [`ExecSignal`] as JSON: send a signal to the execution's session leader; of a lasting execution to its whole
    /// process group.
    Signal = 5,
    /// Empty: kill everything that the execution started; it ends with an [`ExitReport`].
    Cancel = 6,
    /// Raw bytes, at most 64: answered by [`Self::Pong`] with the same bytes.
    Ping = 7,
    /// [`crate::lasting::Attach`] as JSON, under an id of the connection's own: send the output of a lasting execution under that id.
    Attach = 8,
    /// Empty, under an attachment's id: end it. Answered by [`Self::Detached`], unless it has ended by itself.
    Detach = 9,
    /// [`crate::lasting::Credit`] as JSON, under an attachment's id: so much more may be sent.
    Credit = 10,
    /// [`crate::lasting::List`] as JSON: which lasting executions there are. Answered by [`Self::Listed`].
    List = 11,
    /// Empty: forget a lasting execution that has ended.
    Forget = 12,
    /// [`crate::TtySize`] as JSON: the size of a lasting execution's terminal.
    Resize = 13,

    /// [`Frozen`] as JSON: nothing of the sandbox has run for a while; no execution's time did either.
    Frozen = 33,

    /// [`Hello`] as JSON: the first frame of every connection.
    Hello = 64,
    /// [`Started`] as JSON: the process runs.
    Started = 65,
    /// Raw bytes of the execution's standard output.
    Stdout = 66,
    /// Raw bytes of the execution's standard error.
    Stderr = 67,
    /// [`ExitReport`] as JSON: the execution is over; the last frame of its id.
    Exit = 68,
    /// [`AgentError`] as JSON: the execution could not be started; the last frame of its id.
    Error = 69,
    /// The answer to [`Self::Ping`].
    Pong = 70,
    /// [`crate::lasting::Attached`] as JSON: the answer to [`Self::Attach`] where it is not [`Self::Error`].
    Attached = 71,
    /// [`crate::lasting::Gap`] as JSON: what an attachment does not get, in the place where it would have been.
    Gap = 72,
    /// Empty: the last frame of an attachment that was detached.
    Detached = 73,
    /// [`crate::lasting::Listed`] as JSON.
    Listed = 74,
    /// [`crate::lasting::Done`] as JSON: the answer to `StdinEof`, `Signal`, `Cancel`, `Forget` and `Resize` of a lasting execution.
    Done = 75,
    /// [`crate::lasting::StdinTaken`] as JSON: bytes of a lasting execution's standard input are done with, in the order in which the
    /// connection sent them.
    StdinTaken = 76,
}

impl FrameKind {
    /// The kind that a byte stands for, or `None` for one of a newer peer.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Exec,
            2 => Self::FileData,
            3 => Self::Stdin,
            4 => Self::StdinEof,
            5 => Self::Signal,
            6 => Self::Cancel,
            7 => Self::Ping,
            8 => Self::Attach,
            9 => Self::Detach,
            10 => Self::Credit,
            11 => Self::List,
            12 => Self::Forget,
            13 => Self::Resize,
            33 => Self::Frozen,
            64 => Self::Hello,
            65 => Self::Started,
            66 => Self::Stdout,
            67 => Self::Stderr,
            68 => Self::Exit,
            69 => Self::Error,
            70 => Self::Pong,
            71 => Self::Attached,
            72 => Self::Gap,
            73 => Self::Detached,
            74 => Self::Listed,
            75 => Self::Done,
            76 => Self::StdinTaken,
            _ => return None,
        })
    }
}

/// The sandbox was stopped as a whole and goes on now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// For how many milliseconds it was.
    pub ms: u64,
}

/// The agent's first words on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the agent.
    pub version: u8,
    /// The agent's PID inside the sandbox.
    pub pid: u32,
    /// A random number of this run of the agent: another one than before means that the agent before this one died, and
    /// with it all that was known of its executions. 0: an older agent, which has no lasting executions.
    #[serde(default)]
    pub boot_id: u64,
}

/// What to execute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// Given to `/bin/sh -c`.
    Shell(String),
    /// Executed as it is; the first entry is looked up in the `PATH` of [`ExecRequest::env`] unless it holds a `/`.
    Argv(Vec<String>),
}

/// One file to put into the sandbox before the program starts. Its bytes follow as `FileData` frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecFile {
    /// Absolute, or relative to the working directory; missing parents are made. Resolved inside the sandbox.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// How many bytes of content follow.
    pub size: u64,
    /// Whether it is a secret: written beneath `/run/secrets`, whatever its mode only for its owner.
    #[serde(default)]
    pub secret: bool,
}

/// Run one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// What to run.
    pub program: Program,
    /// The whole environment. The agent adds `HOME`, `USER`, `LOGNAME` of the user and `PATH` where they are missing.
    pub env: Vec<(String, String)>,
    /// The working directory; `/` when not given. It must exist.
    #[serde(default)]
    pub cwd: Option<String>,
    /// A name, `uid`, `name:group`, `uid:gid`; uid 0 when not given. Names come from `/etc/passwd` and `/etc/group`,
    /// a user's supplementary groups from `/etc/group`.
    #[serde(default)]
    pub user: Option<String>,
    /// Files to put in place first, owned by the user.
    #[serde(default)]
    pub files: Vec<ExecFile>,
    /// Whether `Stdin` frames follow until `StdinEof`; otherwise standard input is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// Wall time in milliseconds from the start of the process; no limit when not given.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// How many bytes of each of stdout and stderr are kept and sent; the rest is read and dropped.
    pub max_output_bytes: u64,
    /// `RLIMIT_NOFILE`, `RLIMIT_CORE` and the like are the sandbox's; this one is the execution's: the CPU time after
    /// which the kernel sends SIGXCPU. Not set when not given.
    #[serde(default)]
    pub cpu_time_limit_s: Option<u64>,
    /// For how many milliseconds it may go on when its connection is gone: its standard input ends then, and it comes to
    /// its end by itself. When not given it is killed at once. Not for a lasting execution, nor before its files are there.
    #[serde(default)]
    pub finish_ms: Option<u64>,
    /// Makes it a lasting execution, where its id is a [`crate::LastingId`]'s. Without this it belongs to its connection
    /// and ends with it.
    #[serde(default)]
    pub lasting: Option<Lasting>,
}

/// Send a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSignal {
    /// Its number on this architecture.
    pub signal: i32,
}

/// The process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its PID inside the sandbox; also its session and process group. 0 for a lasting execution whose program was not
    /// found or could not be executed: it has ended already, and an attachment tells how.
    pub pid: u32,
}

/// How an execution ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// The exit code, where the process exited by itself. 127: the program was not found; 126: it could not be
    /// executed.
    pub code: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
    /// Whether it was still running at its timeout and was killed for that.
    #[serde(default)]
    pub timed_out: bool,
    /// Whether it was killed by a `Cancel`.
    #[serde(default)]
    pub cancelled: bool,
    /// Whether stdout went on after `max_output_bytes`.
    #[serde(default)]
    pub stdout_truncated: bool,
    /// Whether stderr went on after `max_output_bytes`.
    #[serde(default)]
    pub stderr_truncated: bool,
    /// Wall time in microseconds from the start of the process until its end.
    pub duration_us: u64,
    /// How many processes the kernel has killed for want of memory since the sandbox was made, where the agent can see
    /// that. A gateway that can see it from outside does not ask.
    #[serde(default)]
    pub oom_kills: Option<u64>,
}

/// Why an execution could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentErrorKind {
    /// The request is not one this agent can read, or breaks the protocol.
    BadRequest,
    /// The working directory is not there or is no directory.
    WorkingDir,
    /// No such user or group.
    User,
    /// A file could not be put in place.
    File,
    /// The arguments and environment are too large for the kernel (E2BIG).
    TooLarge,
    /// A limit of the sandbox (memory, PIDs, descriptors, disk) stopped the start.
    Limit,
    /// There is no such lasting execution: it never was, its start failed, it was forgotten, or its agent died.
    NoExecution,
    /// The lasting execution has not ended.
    StillRunning,
    /// The lasting execution has ended.
    Ended,
    /// The offset lies beyond the end of the output.
    Offset,
    /// Anything else.
    Internal,
}

/// An execution that did not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct AgentError {
    /// What a program decides by.
    pub kind: AgentErrorKind,
    /// What happened, for a person.
    pub message: String,
    /// The errno behind it, or 0.
    #[serde(default)]
    pub errno: i32,
}
