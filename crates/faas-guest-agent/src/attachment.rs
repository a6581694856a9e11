//! A connection that is sent the output of a lasting execution.
//!
//! It has no buffer of its own but the log: what it has not been sent is there, or was dropped.

use std::time::{Duration, Instant};

use faas_guest_protocol::lasting::{Attach, Gap, HOLD_PATIENCE_MS, cost};
use faas_guest_protocol::{ExitReport, Found, FrameKind, HEADER_LEN, Log};

use crate::connection::Connection;

/// The most output in one frame.
const PIECE_BYTES: usize = 32 << 10;

/// A frame is not made smaller than this for want of credit.
const SMALLEST_PIECE_BYTES: usize = 1 << 10;

/// Nothing more is put into a connection that has so much to be sent.
const FULL_BYTES: usize = 128 << 10;

const PATIENCE: Duration = Duration::from_millis(HOLD_PATIENCE_MS);

/// One attachment.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) client: u64,
    /// The client's number for it.
    pub(crate) id: u64,
    /// The execution, as in a header.
    pub(crate) execution: u64,
    /// The offset of what comes next.
    pub(crate) cursor: u64,
    credit: u64,
    hold: bool,
    /// Since when there has been something that could not be sent.
    stalled_since: Option<Instant>,
}

/// What became of one step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A frame was queued: there may be more.
    Queued,
    /// Nothing can be sent now.
    Waiting,
    /// The last frame was queued.
    Over,
}

impl Attachment {
    pub(crate) fn new(client: u64, id: u64, execution: u64, asked: &Attach) -> Self {
        Self {
            client,
            id,
            execution,
            cursor: asked.offset,
            credit: asked.credit,
            hold: asked.hold,
            stalled_since: None,
        }
    }

    pub(crate) fn grant(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_add(bytes);
    }

    /// Until when the program is held up for it.
    pub(crate) fn holds_until(&self, now: Instant) -> Option<Instant> {
        let until = self.stalled_since.unwrap_or(now) + PATIENCE;
        (self.hold && now < until).then_some(until)
    }

    /// Whether there is something that could not be sent.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled_since.is_some()
    }

    /// Queues the next frame, where there is one.
    pub(crate) fn step(
        &mut self,
        log: &Log,
        exit: Option<&ExitReport>,
        client: &mut Connection,
        now: Instant,
    ) -> Step {
        let found = log.at(self.cursor, PIECE_BYTES);
        if found == Found::End {
            self.stalled_since = None;
            return match exit {
                None => Step::Waiting,
                Some(report) => {
                    client.queue(FrameKind::Exit, self.id, report);
                    Step::Over
                }
            };
        }
        if client.pending_bytes() < FULL_BYTES && self.send(&found, client) {
            self.stalled_since = None;
            return Step::Queued;
        }
        self.stalled_since.get_or_insert(now);
        Step::Waiting
    }

    fn send(&mut self, found: &Found<'_>, client: &mut Connection) -> bool {
        let room = usize::try_from(self.credit).unwrap_or(usize::MAX).saturating_sub(HEADER_LEN);
        match found {
            Found::Bytes(stream, bytes) => {
                if room < bytes.len().min(SMALLEST_PIECE_BYTES) {
                    return false;
                }
                let piece = &bytes[..bytes.len().min(room)];
                client.queue_bytes(stream.frame_kind(), self.id, piece);
                self.cursor += u64::try_from(piece.len()).unwrap_or(0);
                self.credit -= cost(piece.len());
            }
            Found::Dropped { first } => {
                let Ok(json) = serde_json::to_vec(&Gap { from: self.cursor, to: *first }) else {
                    return false;
                };
                if room < json.len() {
                    return false;
                }
                client.queue_bytes(FrameKind::Gap, self.id, &json);
                self.cursor = *first;
                self.credit -= cost(json.len());
            }
            Found::End => {}
        }
        true
    }
}
