//! What the fuzz targets share: a stream of bytes goes through the decoder, and the rules of the codec are checked.
//!
//! The first byte of the input chooses the pieces in which the rest arrives.

use faas_guest_protocol::{Decoder, Frame, FrameError, HEADER_LEN, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Decodes `input` twice, in pieces and whole, and returns the frames.
///
/// # Panics
/// When a rule is broken: both ways give the same frames and the same error, a frame is never longer than allowed, an
/// error stays, and frames encode to the bytes they came from.
pub fn decode(input: &[u8], max_payload: usize) -> Vec<Frame> {
    let Some((&first, stream)) = input.split_first() else { return Vec::new() };
    let piece = usize::from(first) + 1;
    let whole = read(std::iter::once(stream), max_payload);
    let pieces = read(stream.chunks(piece), max_payload);
    assert_eq!(whole, pieces, "pieces of {piece}");
    let mut at = 0;
    for frame in &whole.0 {
        assert!(frame.payload.len() <= max_payload);
        let mut bytes = encode(frame.kind, frame.exec_id, &frame.payload);
        let original = &stream[at..at + bytes.len()];
        // Bytes 6 and 7 of a header are ignored when read.
        bytes[6..8].copy_from_slice(&original[6..8]);
        assert_eq!(bytes, original);
        at += bytes.len();
    }
    assert!(whole.1.is_some() || stream.len() - at < HEADER_LEN + max_payload);
    whole.0
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>, max_payload: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = Decoder::new(max_payload);
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next_frame(), Err(error), "an error stays");
                    return (frames, Some(error));
                }
            }
        }
    }
    (frames, None)
}

/// Parses a control payload; what can be read can be written and read again.
///
/// # Panics
/// When it cannot.
pub fn control<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(payload: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(payload) {
        let text = serde_json::to_vec(&value).expect("a control payload can be written");
        assert_eq!(serde_json::from_slice::<T>(&text).expect("and read again"), value);
    }
}
