//! The gateway's side of the guest protocol: runs programs through the agent of a sandbox, the same on every backend.
//!
//! Everything that an agent sends is hostile: the sandbox's root can put words in its mouth. Sizes, numbers and order
//! are checked against what was asked; what is not believable ends the connection. It can never make this side wait
//! for ever or hold more than was asked for: the caller sets the deadline, and `max_output_bytes` bounds the rest.

mod client;
#[cfg(all(target_os = "linux", any(feature = "native", feature = "docker")))]
pub(crate) mod connect;
mod connection;
mod lines;
mod mux;
mod program;
mod reply;
mod stream;

pub use client::{AgentClient, Attachment, LastingCall};
pub use connection::{AgentConnection, Collected, ExecCall, Held, OutputSink};
pub(crate) use lines::{Lines, TooLong};
pub use mux::LastingEvent;
pub(crate) use program::RunningProgram;
pub use stream::AgentStream;

use std::sync::Arc;

use faas_guest_protocol::{AgentError, FrameError};

/// Why a program's end is not known, or something was not done.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The agent could not start it.
    #[error(transparent)]
    Agent(AgentError),
    /// Arguments, environment and paths together are larger than an order can be.
    #[error("command, environment and file names together are too large")]
    TooLarge,
    /// The connection ended before the program did.
    #[error("the connection to its agent ended")]
    Lost,
    /// The connection failed.
    #[error("the connection to its agent failed: {0}")]
    Io(#[from] std::io::Error),
    /// What the agent sent is no frame.
    #[error("its agent sent rubbish: {0}")]
    Frame(#[from] FrameError),
    /// What the agent sent cannot be true.
    #[error("its agent broke the protocol: {0}")]
    Protocol(&'static str),
    /// The connection that this and others shared has ended, for the reason that is in it.
    #[error(transparent)]
    Connection(Arc<GuestError>),
}
