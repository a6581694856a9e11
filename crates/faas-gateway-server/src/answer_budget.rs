//! How much of the server's memory answers may take that their clients have not read yet.
//!
//! An answer is as long as its command's output, twice, with everything escaped that JSON escapes; a client that reads
//! slowly keeps it. So large ones are counted, from before they are written as JSON until they are sent, and wait for one
//! another.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// An answer up to this length is not counted: as many of them as there are connections do no harm.
const SMALL_BYTES: usize = 64 << 10;

/// The unit of the count.
const UNIT_BYTES: usize = 1 << 10;

/// The rules.
#[derive(Debug)]
pub(crate) struct AnswerBudget {
    units: usize,
    places: Arc<Semaphore>,
}

/// The room of one answer, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct AnswerRoom {
    _places: Option<OwnedSemaphorePermit>,
}

impl AnswerBudget {
    /// `total_bytes` for all large answers together.
    pub(crate) fn new(total_bytes: u64) -> Self {
        let units = usize::try_from(total_bytes).unwrap_or(usize::MAX) / UNIT_BYTES;
        let units = units.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { units, places: Arc::new(Semaphore::new(units)) }
    }

    /// Waits until there is room for an answer of about `bytes`; one that is larger than all there is has it alone.
    pub(crate) async fn room(&self, bytes: usize) -> AnswerRoom {
        if bytes <= SMALL_BYTES {
            return AnswerRoom { _places: None };
        }
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES).min(self.units)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        AnswerRoom { _places: Arc::clone(&self.places).acquire_many_owned(units).await.ok() }
    }
}

impl AnswerBudget {
    /// The same, where there is room just now.
    pub(crate) fn room_now(&self, bytes: usize) -> Option<AnswerRoom> {
        if bytes <= SMALL_BYTES {
            return Some(AnswerRoom { _places: None });
        }
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES).min(self.units)).unwrap_or(u32::MAX);
        let places = Arc::clone(&self.places).try_acquire_many_owned(units).ok()?;
        Some(AnswerRoom { _places: Some(places) })
    }
}

/// A body that keeps its room until it is sent, or its connection is gone.
struct Roomy {
    bytes: Option<Bytes>,
    _room: AnswerRoom,
}

impl HttpBody for Roomy {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        // In pieces: what has been taken of it is let go while the rest waits.
        const PIECE: usize = 256 << 10;
        let Some(bytes) = &mut self.bytes else { return Poll::Ready(None) };
        let piece = bytes.split_to(bytes.len().min(PIECE));
        if bytes.is_empty() {
            self.bytes = None;
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }
}

/// A body of `bytes` in `room`.
pub(crate) fn body(bytes: Vec<u8>, room: AnswerRoom) -> Body {
    if room._places.is_none() {
        return Body::from(bytes);
    }
    Body::new(Roomy { bytes: Some(Bytes::from(bytes)).filter(|bytes| !bytes.is_empty()), _room: room })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;

    use super::{AnswerBudget, body};

    #[tokio::test]
    async fn a_large_answer_keeps_its_room_until_it_is_read() {
        let budget = AnswerBudget::new(1 << 20);
        let answer = body(vec![b'x'; 700 << 10], budget.room(700 << 10).await);
        assert!(budget.room(700 << 10).now_or_never().is_none());
        assert!(budget.room(1 << 10).now_or_never().is_some());
        assert!(budget.room_now(700 << 10).is_none() && budget.room_now(100 << 10).is_some());
        assert_eq!(answer.collect().await.unwrap().to_bytes().len(), 700 << 10);
        assert!(budget.room(5 << 20).now_or_never().is_some(), "larger than all there is");
    }
}
