//! The frames between the gateway and the guest agent, and their codec.
//!
//! A frame is a 16-byte header and a payload, all integers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | length of the payload, at most [`MAX_REQUEST_PAYLOAD`] or [`MAX_REPLY_PAYLOAD`] |
//! | 4 | protocol version, [`VERSION`] |
//! | 5 | kind, [`FrameKind`] |
//! | 6..8 | zero; ignored when read |
//! | 8..16 | the execution or attachment the frame belongs to; 0 for the connection itself |
//!
//! Control payloads are JSON, so that an older peer reads what it knows and passes over the rest; bulk payloads
//! (output, stdin, file content) are raw bytes. A frame of an unknown kind is passed over by its length. Both sides
//! treat what they read as hostile: lengths are checked before anything is allocated.
//!
//! An execution belongs to the connection that started it and ends with it, unless it was started as a lasting one:
//! [`lasting`] says how those are. [`files`] says what the agent's own program does with files when it is executed itself.
//!
//! No I/O here: [`Decoder`] is fed bytes and gives frames, [`encode`] gives bytes, a [`Log`] holds output.
#![forbid(unsafe_code)]

mod codec;
pub mod files;
pub mod lasting;
mod log;
mod message;

pub use codec::{
    Decoder, Frame, FrameError, HEADER_LEN, MAX_REPLY_PAYLOAD, MAX_REQUEST_PAYLOAD, encode, encode_into,
};
pub use lasting::{Lasting, LastingId, TtySize};
pub use log::{Found, Log, OutputStream};
pub use message::{
    AgentError, AgentErrorKind, ExecFile, ExecRequest, ExecSignal, ExitReport, FrameKind, Frozen, Hello,
    Program, Started, VERSION,
};
