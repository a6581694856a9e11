//! One client of the agent: bytes in, frames out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use faas_guest_protocol::{Decoder, Frame, FrameKind, Hello, MAX_REQUEST_PAYLOAD, VERSION, encode_into};
use rustix::net::{RecvFlags, SendFlags};
use serde::Serialize;

/// The most bytes taken in at once.
const READ_BYTES: usize = 64 * 1024;

/// How much memory an idle connection keeps for what it sends.
const KEPT_OUTPUT_BYTES: usize = 16 * 1024;

/// A client.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    /// A socket, or a pipe to read from where there is an `output`.
    input: OwnedFd,
    /// The pipe to write to, where it is not the same.
    output: Option<OwnedFd>,
    decoder: Decoder,
    out: Vec<u8>,
    sent: usize,
}

/// The connection is over: the client is gone, or said something that is no frame.
#[derive(Debug)]
pub(crate) struct Closed;

impl Connection {
    /// Greets a client.
    pub(crate) fn new(id: u64, input: OwnedFd, output: Option<OwnedFd>, boot_id: u64) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&input, true)?;
        if let Some(output) = &output {
            rustix::io::ioctl_fionbio(output, true)?;
        }
        let decoder = Decoder::new(MAX_REQUEST_PAYLOAD);
        let mut connection = Self { id, input, output, decoder, out: Vec::new(), sent: 0 };
        let pid = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
        connection.queue(FrameKind::Hello, 0, &Hello { version: VERSION, pid, boot_id });
        Ok(connection)
    }

    /// Reads what there is, as frames.
    pub(crate) fn read(&mut self, buffer: &mut Vec<u8>) -> Result<Vec<Frame>, Closed> {
        buffer.clear();
        buffer.reserve(READ_BYTES);
        let read = match &self.output {
            None => {
                let room = rustix::buffer::spare_capacity(buffer);
                rustix::net::recv(&self.input, room, RecvFlags::DONTWAIT).map(|(read, _)| read)
            }
            Some(_) => rustix::io::read(&self.input, rustix::buffer::spare_capacity(buffer)),
        };
        let received = match read {
            Ok(0) => return Err(Closed),
            Ok(_) => buffer,
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(_) => return Err(Closed),
        };
        self.decoder.feed(received);
        let mut frames = Vec::new();
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return Ok(frames),
                Err(_) => return Err(Closed),
            }
        }
    }

    /// Queues a control frame.
    pub(crate) fn queue(&mut self, kind: FrameKind, exec_id: u64, message: &impl Serialize) {
        // The protocol's own types always serialize.
        if let Ok(json) = serde_json::to_vec(message) {
            self.queue_bytes(kind, exec_id, &json);
        }
    }

    /// Queues a frame of raw bytes; its length is the caller's to bound.
    pub(crate) fn queue_bytes(&mut self, kind: FrameKind, exec_id: u64, payload: &[u8]) {
        encode_into(&mut self.out, kind as u8, exec_id, payload);
    }

    /// How much is to be sent.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Whether there is something to be sent.
    pub(crate) fn has_output(&self) -> bool {
        self.sent < self.out.len()
    }

    /// The pipe to write to, where it is not the same descriptor as the one to read from.
    pub(crate) fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(AsFd::as_fd)
    }

    /// Sends what the other side takes.
    pub(crate) fn flush(&mut self) -> Result<(), Closed> {
        while self.has_output() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let rest = &self.out[self.sent..];
            let written = match &self.output {
                None => rustix::net::send(&self.input, rest, flags),
                Some(output) => rustix::io::write(output, rest),
            };
            match written {
                Ok(n) => self.sent += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    // What was sent is let go, once it is worth the move of the rest.
                    if self.sent > self.out.len() / 2 {
                        self.out.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(());
                }
                Err(_) => return Err(Closed),
            }
        }
        self.out.clear();
        self.sent = 0;
        if self.out.capacity() > KEPT_OUTPUT_BYTES {
            self.out = Vec::new();
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }
}
