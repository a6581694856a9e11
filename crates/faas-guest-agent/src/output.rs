//! One of a program's output streams, and where it goes.

use std::os::fd::OwnedFd;

use faas_guest_protocol::{Log, OutputStream};

use crate::connection::Connection;

/// Where output goes.
pub(crate) enum Sink<'a> {
    /// To the connection that the execution belongs to, under this id.
    Client(&'a mut Connection, u64),
    /// To the log of a lasting execution.
    Log(&'a mut Log),
    /// Nowhere: the connection is gone.
    Nowhere,
}

impl Sink<'_> {
    fn take(&mut self, stream: OutputStream, bytes: &[u8]) {
        match self {
            Self::Client(client, id) => client.queue_bytes(stream.frame_kind(), *id, bytes),
            Self::Log(log) => log.append(stream, bytes),
            Self::Nowhere => {}
        }
    }
}

/// One of a program's output streams.
#[derive(Debug)]
pub(crate) struct Output {
    stream: OutputStream,
    /// A pipe, or a terminal. None at its end.
    pipe: Option<OwnedFd>,
    /// How many bytes may still be passed on.
    left: u64,
    pub(crate) truncated: bool,
}

impl Output {
    pub(crate) fn new(stream: OutputStream, pipe: Option<OwnedFd>, limit: u64) -> Self {
        Self { stream, pipe, left: limit, truncated: false }
    }

    pub(crate) fn pipe(&self) -> Option<&OwnedFd> {
        self.pipe.as_ref()
    }

    /// Takes in what was read: the first bytes are passed on, the rest is dropped.
    pub(crate) fn pass_on(&mut self, bytes: &[u8], sink: &mut Sink<'_>) {
        let keep = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.truncated |= keep < bytes.len();
        self.left -= u64::try_from(keep).unwrap_or(0);
        if keep > 0 {
            sink.take(self.stream, &bytes[..keep]);
        }
    }

    /// Reads once. Whether there may be more.
    pub(crate) fn read(&mut self, buffer: &mut Vec<u8>, sink: &mut Sink<'_>) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        buffer.clear();
        match rustix::io::read(pipe, rustix::buffer::spare_capacity(buffer)) {
            Ok(0) => {
                self.pipe = None;
                false
            }
            Ok(_) => {
                self.pass_on(buffer, sink);
                true
            }
            Err(rustix::io::Errno::INTR) => true,
            Err(rustix::io::Errno::WOULDBLOCK) => false,
            // A terminal says so when nobody has it open any more (EIO).
            Err(_) => {
                self.pipe = None;
                false
            }
        }
    }
}
