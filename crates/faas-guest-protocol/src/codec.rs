//! Frames to bytes and back.

use crate::message::VERSION;

/// The length of a frame's header.
pub const HEADER_LEN: usize = 16;

/// The largest payload of a frame. Larger content is sent in several.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// One frame as it was read: its kind still a byte, since a newer peer may send kinds that this one does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// A [`crate::FrameKind`], or something newer.
    pub kind: u8,
    /// The execution it belongs to; 0 for the connection itself.
    pub exec_id: u64,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Bytes that are no frame. The connection cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The payload is longer than a frame may hold.
    #[error("frame of {len} bytes is larger than the {MAX_PAYLOAD} allowed")]
    TooLarge {
        /// The length in its header.
        len: usize,
    },
    /// The peer speaks another version.
    #[error("peer speaks protocol version {version}, this side {VERSION}")]
    Version {
        /// The version in its header.
        version: u8,
    },
}

/// Appends one frame to `out`.
///
/// # Panics
/// When `payload` is longer than [`MAX_PAYLOAD`]: the caller splits larger content.
pub fn encode_into(out: &mut Vec<u8>, kind: u8, exec_id: u64, payload: &[u8]) {
    assert!(payload.len() <= MAX_PAYLOAD, "payload of {} bytes in one frame", payload.len());
    let len = u32::try_from(payload.len()).expect("MAX_PAYLOAD fits in 32 bits");
    out.reserve(HEADER_LEN + payload.len());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&[VERSION, kind, 0, 0]);
    out.extend_from_slice(&exec_id.to_le_bytes());
    out.extend_from_slice(payload);
}

/// One frame as bytes. See [`encode_into`].
#[must_use]
pub fn encode(kind: u8, exec_id: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(&mut out, kind, exec_id, payload);
    out
}

/// Reads frames out of a stream of bytes, whatever the pieces in which they arrive.
///
/// It holds at most one unfinished frame plus what was fed since the last call of [`Decoder::next_frame`].
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// An empty decoder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in bytes that were read.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > MAX_PAYLOAD {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more bytes are fed.
    ///
    /// # Errors
    /// [`FrameError`] when the bytes are no frame; every later call fails too.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let pending = &self.buffer[self.start..];
        let Some((header, rest)) = pending.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let (version, kind) = (header[4], header[5]);
        if version != VERSION {
            return Err(FrameError::Version { version });
        }
        if len > MAX_PAYLOAD {
            return Err(FrameError::TooLarge { len });
        }
        let Some(payload) = rest.get(..len) else { return Ok(None) };
        let exec_id = u64::from_le_bytes(header[8..16].try_into().expect("eight bytes"));
        let frame = Frame { kind, exec_id, payload: payload.to_vec() };
        self.start += HEADER_LEN + len;
        Ok(Some(frame))
    }
}
