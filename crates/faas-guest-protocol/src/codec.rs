//! Frames to bytes and back.

use crate::message::VERSION;

/// The length of a frame's header.
pub const HEADER_LEN: usize = 16;

/// The largest payload that the gateway sends: an `Exec` holds up to 1 MiB of arguments and environment, which JSON can
/// make longer.
pub const MAX_REQUEST_PAYLOAD: usize = 8 << 20;

/// The largest payload that an agent sends. Output is sent in pieces.
pub const MAX_REPLY_PAYLOAD: usize = 128 << 10;

/// The largest payload of any frame.
const MAX_PAYLOAD: usize = MAX_REQUEST_PAYLOAD;

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
    #[error("frame of {len} bytes is larger than the {max} allowed")]
    TooLarge {
        /// The length in its header.
        len: usize,
        /// The most that the reader takes.
        max: usize,
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
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    max_payload: usize,
}

impl Decoder {
    /// An empty decoder for a peer whose payloads are at most `max_payload` bytes long.
    #[must_use]
    pub fn new(max_payload: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, max_payload: max_payload.min(MAX_PAYLOAD) }
    }

    /// Takes in bytes that were read.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 {
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
        let Some((header, rest)) = pending.split_first_chunk::<HEADER_LEN>() else {
            self.shrink();
            return Ok(None);
        };
        let [l0, l1, l2, l3, version, kind, _, _, id @ ..] = *header;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if version != VERSION {
            return Err(FrameError::Version { version });
        }
        if len > self.max_payload {
            return Err(FrameError::TooLarge { len, max: self.max_payload });
        }
        let Some(payload) = rest.get(..len) else { return Ok(None) };
        let frame = Frame { kind, exec_id: u64::from_le_bytes(id), payload: payload.to_vec() };
        self.start += HEADER_LEN + len;
        Ok(Some(frame))
    }

    /// Gives back the memory beyond `bytes`, where nothing unfinished is in it. For a connection that may now be silent
    /// for long.
    pub fn shrink_to(&mut self, bytes: usize) {
        if self.start == self.buffer.len() && self.buffer.capacity() > bytes {
            self.buffer = Vec::new();
            self.start = 0;
        }
    }

    /// Gives back the memory that one large frame took, once it is empty.
    fn shrink(&mut self) {
        if self.start == self.buffer.len() && self.buffer.capacity() > MAX_REPLY_PAYLOAD {
            self.buffer = Vec::new();
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Decoder, FrameError, HEADER_LEN, MAX_REPLY_PAYLOAD, encode, encode_into};

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            frames in proptest::collection::vec((any::<u8>(), any::<u64>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..20),
            piece in 1usize..97,
        ) {
            let mut bytes = Vec::new();
            for (kind, id, payload) in &frames {
                encode_into(&mut bytes, *kind, *id, payload);
            }
            let mut decoder = Decoder::new(MAX_REPLY_PAYLOAD);
            let mut decoded = Vec::new();
            for piece in bytes.chunks(piece) {
                decoder.feed(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    decoded.push((frame.kind, frame.exec_id, frame.payload));
                }
            }
            prop_assert_eq!(decoded, frames);
        }

        #[test]
        fn rubbish_neither_panics_nor_grows(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let mut decoder = Decoder::new(1024);
            decoder.feed(&bytes);
            while let Ok(Some(frame)) = decoder.next_frame() {
                prop_assert!(frame.payload.len() <= 1024);
            }
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_believed() {
        let mut decoder = Decoder::new(1024);
        let mut header = encode(1, 1, &[]);
        header[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        decoder.feed(&header);
        assert!(matches!(decoder.next_frame(), Err(FrameError::TooLarge { max: 1024, .. })));
    }

    #[test]
    fn another_version_is_refused() {
        let mut decoder = Decoder::new(1024);
        let mut header = encode(1, 1, &[]);
        header[4] = 200;
        decoder.feed(&header[..HEADER_LEN]);
        assert_eq!(decoder.next_frame(), Err(FrameError::Version { version: 200 }));
    }
}
