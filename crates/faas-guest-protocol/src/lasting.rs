//! Lasting executions: those that do not end with the connection that started them.
//!
//! The gateway chooses a [`LastingId`] and sends an [`crate::ExecRequest`] with [`Lasting`] under it; `Started` or
//! `Error` comes back under the same id. From then on any connection may attach to the execution, as often as it likes,
//! write to its standard input, signal it, cancel it, and have it forgotten when it has ended.
//!
//! **Three kinds of ids** share the header's field. A [`LastingId`] has the highest bit and means the same on every
//! connection. An id without that bit is the connection's own: of an execution that belongs to it, or of an attachment.
//! 0 is the connection itself.
//!
//! **The log.** The first `max_output_bytes` of each of stdout and stderr go into one log in the order in which they
//! were read; the rest is read and dropped, and the [`crate::ExitReport`] says so. Offsets count the bytes of the log
//! from 0, both streams together. The agent keeps the newest [`Lasting::log_bytes`] of it, whether somebody is attached
//! or not, and drops the oldest for them. Who attaches at an offset that was dropped, or falls so far behind, gets a
//! [`Gap`] first. The program is never held up by that, with one exception: an attachment with [`Attach::hold`] says of
//! itself that it reads as fast as it can. As long as it does, the program waits for it as for any reader of a pipe;
//! after [`HOLD_PATIENCE_MS`] without progress it is treated as any other, until it has caught up. A gateway attaches so
//! to write a log of its own; while there is none, nothing holds.
//!
//! **Flow.** The frames of an attachment (`Stdout`, `Stderr`, `Gap`) each cost their payload and a header; the agent
//! sends no more than was granted by [`Attach::credit`] and [`Credit`]. So one slow reader holds up neither the other
//! attachments of its connection nor the agent. Standard input likewise, by `StdinTaken`.
//!
//! **The end.** After its last byte an attachment gets the [`crate::ExitReport`], which is its last frame. An execution
//! ends when its process has and what its pipes held then has been read; what goes on writing to them gets EPIPE. It is
//! kept until it is forgotten; of more than [`MAX_ENDED`] the one that ended first is, and the logs of all ended ones
//! together keep [`MAX_ENDED_LOG_BYTES`], those that ended first losing theirs. A signal goes to the process group that
//! the program began with; what left it is reached by `Cancel` alone.

use serde::{Deserialize, Serialize};

use crate::{AgentError, ExitReport};

/// How many bytes of a lasting execution's standard input one connection may have on the way.
pub const STDIN_WINDOW_BYTES: u64 = 256 << 10;

/// How large a log is where nobody says otherwise.
pub const DEFAULT_LOG_BYTES: u64 = 256 << 10;

/// The smallest log: two pieces as they are read from a pipe.
pub const MIN_LOG_BYTES: u64 = 160 << 10;

/// The largest log.
pub const MAX_LOG_BYTES: u64 = 4 << 20;

/// How long a program is held up for an attachment with [`Attach::hold`] that makes no progress, in milliseconds.
pub const HOLD_PATIENCE_MS: u64 = 5000;

/// How many lasting executions that have ended are kept.
pub const MAX_ENDED: usize = 256;

/// How many bytes the logs of those keep, all together.
pub const MAX_ENDED_LOG_BYTES: u64 = 4 << 20;

/// The most entries of one [`Listed`].
pub const LISTED_AT_ONCE: usize = 128;

/// The smallest credit that an attachment may begin with.
pub const MIN_CREDIT_BYTES: u64 = 64 << 10;

/// What one frame of an attachment takes of its credit.
#[must_use]
pub const fn cost(payload_len: usize) -> u64 {
    (payload_len + crate::HEADER_LEN) as u64
}

/// The id of a lasting execution: chosen by the gateway, unique in its sandbox, 1 to 2^63 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LastingId(u64);

impl LastingId {
    const MARK: u64 = 1 << 63;

    /// The id of this number, where it is one.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number == 0 || number >= Self::MARK { None } else { Some(Self(number)) }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// As it stands in a frame's header.
    #[must_use]
    pub const fn to_wire(self) -> u64 {
        self.0 | Self::MARK
    }

    /// The id in a frame's header, where it is a lasting execution's.
    #[must_use]
    pub const fn from_wire(id: u64) -> Option<Self> {
        if id & Self::MARK == 0 { None } else { Self::new(id & !Self::MARK) }
    }
}

/// What makes an execution a lasting one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lasting {
    /// How much of its output the agent keeps, from [`MIN_LOG_BYTES`] to [`MAX_LOG_BYTES`]; [`DEFAULT_LOG_BYTES`] when
    /// not given.
    #[serde(default)]
    pub log_bytes: Option<u64>,
    /// A terminal for it, of the sandbox's own devpts, as its controlling terminal, standard input, output and error.
    /// Its output is stdout; `Stdin` feeds it, whatever [`crate::ExecRequest::stdin`] says.
    #[serde(default)]
    pub tty: Option<TtySize>,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtySize {
    /// Its height.
    pub rows: u16,
    /// Its width.
    pub cols: u16,
}

/// Send me the output of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The number of its [`LastingId`].
    pub execution: u64,
    /// From which offset on.
    pub offset: u64,
    /// What may be sent at first, at least [`MIN_CREDIT_BYTES`].
    pub credit: u64,
    /// Whether the program may be held up for this attachment.
    #[serde(default)]
    pub hold: bool,
}

/// So much more may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// In bytes, headers included.
    pub bytes: u64,
}

/// An attachment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The execution's [`crate::Started::pid`].
    pub pid: u32,
    /// The offset of the first byte that is still there.
    pub first_offset: u64,
    /// The offset after the last byte so far.
    pub next_offset: u64,
}

/// Bytes that an attachment does not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The offset of the first of them.
    pub from: u64,
    /// The offset after the last of them.
    pub to: u64,
}

/// Which lasting executions are there?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Only those whose number is greater.
    pub after: u64,
}

/// Lasting executions, in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// At most [`LISTED_AT_ONCE`].
    pub executions: Vec<ListedExecution>,
    /// Whether there are more after the last.
    pub more: bool,
}

/// One lasting execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedExecution {
    /// The number of its [`LastingId`].
    pub id: u64,
    /// Its [`crate::Started::pid`].
    pub pid: u32,
    /// The offset of the first byte that is still there.
    pub first_offset: u64,
    /// The offset after the last byte so far.
    pub next_offset: u64,
    /// How it ended; none while it runs.
    #[serde(default)]
    pub exit: Option<ExitReport>,
}

/// Something that was asked of a lasting execution is done, or is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Why it is not.
    #[serde(default)]
    pub error: Option<AgentError>,
}

/// Bytes of standard input are done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StdinTaken {
    /// How many.
    pub bytes: u64,
    /// Whether the program took them; otherwise it does not read any more, and they were dropped.
    pub taken: bool,
}
