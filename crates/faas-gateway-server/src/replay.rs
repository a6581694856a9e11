//! The output of a lasting execution as events: from any offset, at its reader's pace.

use std::collections::VecDeque;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use faas_executor::{EngineError, ExecutionOutput, OutputEvent};
use faas_guest_protocol::OutputStream;
use faas_types::{ExecuteEvent, ExecutionStarted, OutputGap, OutputPiece, RequestId};
use futures_util::stream;
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::events::{self, EventFormat, Named};
use crate::live::{cut_character, is_continuation};
use crate::response;
use crate::state::State;

/// The most output in one event.
const PIECE_BYTES: usize = 32 << 10;

/// A run of one stream, from an offset on.
#[derive(Debug)]
struct Piece {
    stream: OutputStream,
    offset: u64,
    bytes: Vec<u8>,
}

/// Puts what was read together so that a piece is text wherever the output is: a character that was read in two parts is
/// put together first.
#[derive(Debug, Default)]
struct Pieces {
    /// The first bytes of a character whose others have not come.
    cut: Option<Piece>,
    ready: VecDeque<Piece>,
}

impl Pieces {
    fn push(&mut self, stream: OutputStream, offset: u64, mut bytes: Vec<u8>) {
        let mut start = offset;
        match self.cut.take() {
            Some(cut) if cut.stream == stream && cut.offset + cut.bytes.len() as u64 == offset => {
                start = cut.offset;
                bytes.splice(0..0, cut.bytes);
            }
            // The others never came.
            Some(cut) => self.ready.push_back(cut),
            None => {}
        }
        let whole = bytes.len() - cut_character(&bytes);
        let cut = bytes.split_off(whole);
        if !cut.is_empty() {
            self.cut = Some(Piece { stream, offset: start + whole as u64, bytes: cut });
        }
        // Whoever begins in the middle of a character has its last bytes by themselves, and text after them.
        let of_a_character = bytes.iter().take(3).take_while(|byte| is_continuation(**byte)).count();
        if of_a_character > 0 {
            let rest = bytes.split_off(of_a_character);
            self.ready.push_back(Piece { stream, offset: start, bytes: std::mem::replace(&mut bytes, rest) });
            start += of_a_character as u64;
        }
        while !bytes.is_empty() {
            let mut most = bytes.len().min(PIECE_BYTES);
            if most < bytes.len() {
                most -= cut_character(&bytes[..most]);
            }
            let rest = bytes.split_off(most);
            self.ready.push_back(Piece { stream, offset: start, bytes: std::mem::replace(&mut bytes, rest) });
            start += most as u64;
        }
    }

    /// Nothing comes after what is cut.
    fn end(&mut self) {
        self.ready.extend(self.cut.take());
    }
}

fn event(piece: Piece) -> Named<ExecuteEvent> {
    let Piece { stream, offset, bytes } = piece;
    let id = Some(offset + bytes.len() as u64);
    let piece = match String::from_utf8(bytes) {
        Ok(text) => OutputPiece { offset, data: Some(text), data_base64: None },
        Err(error) => {
            OutputPiece { offset, data: None, data_base64: Some(STANDARD.encode(error.as_bytes())) }
        }
    };
    match stream {
        OutputStream::Stdout => Named { name: "stdout".into(), id, said: ExecuteEvent::Stdout(piece) },
        OutputStream::Stderr => Named { name: "stderr".into(), id, said: ExecuteEvent::Stderr(piece) },
    }
}

struct Replay {
    output: ExecutionOutput,
    draining: CancellationToken,
    request_id: RequestId,
    pieces: Pieces,
    /// Comes after what is ready.
    then: Option<(Named<ExecuteEvent>, bool)>,
    is_begun: bool,
}

/// Answers with the output of an execution, from where `output` stands, and then with its end.
pub(crate) fn answer(
    state: &State,
    format: EventFormat,
    output: ExecutionOutput,
    request_id: RequestId,
) -> Response {
    let pieces = Pieces::default();
    let replay =
        Replay { output, draining: state.draining.clone(), request_id, pieces, then: None, is_begun: false };
    let events = stream::unfold(Some(replay), |replay| async {
        let mut replay = replay?;
        let (event, is_last) = replay.next().await;
        Some((event, (!is_last).then_some(replay)))
    });
    events::response(format, events)
}

impl Replay {
    /// The next event, and whether it is the last.
    async fn next(&mut self) -> (Named<ExecuteEvent>, bool) {
        if !self.is_begun {
            self.is_begun = true;
            let execution_id = self.output.info().id;
            let started = ExecutionStarted { request_id: self.request_id.clone(), execution_id };
            let id = Some(self.output.offset());
            return (Named { name: "started".into(), id, said: ExecuteEvent::Started(started) }, false);
        }
        loop {
            if let Some(piece) = self.pieces.ready.pop_front() {
                return (event(piece), false);
            }
            if let Some(then) = self.then.take() {
                return then;
            }
            let next = tokio::select! {
                next = self.output.next() => next,
                // It goes on, and can be come back to.
                () = self.draining.cancelled() => Err(EngineError::ShuttingDown),
            };
            match next {
                Ok(OutputEvent::Output { stream, offset, bytes, .. }) => {
                    self.pieces.push(stream, offset, bytes);
                }
                Ok(OutputEvent::Gap { from, to }) => {
                    self.pieces.end();
                    let gap = ExecuteEvent::Gap(OutputGap { from, to });
                    self.then = Some((Named { name: "gap".into(), id: Some(to), said: gap }, false));
                }
                Ok(OutputEvent::End(_)) => {
                    self.pieces.end();
                    self.then = Some((self.ended(), true));
                }
                Err(error) => {
                    self.pieces.end();
                    self.then = Some((self.failed(ApiError::from_engine(error, &self.request_id)), true));
                }
            }
        }
    }

    fn ended(&self) -> Named<ExecuteEvent> {
        let outcome = self.output.info().outcome(Vec::new(), Vec::new());
        let outcome = outcome.map_err(|error| ApiError::from_engine(error, &self.request_id));
        match outcome.and_then(|outcome| response::execute_response(outcome, self.request_id.clone())) {
            Ok(response) => {
                let id = Some(self.output.offset());
                Named { name: "exit".into(), id, said: ExecuteEvent::Exit(response.into()) }
            }
            Err(error) => self.failed(error),
        }
    }

    fn failed(&self, error: ApiError) -> Named<ExecuteEvent> {
        let problem = error.problem(&self.request_id);
        Named { name: "error".into(), id: Some(self.output.offset()), said: ExecuteEvent::Error(problem) }
    }
}

#[cfg(test)]
mod tests {
    use faas_guest_protocol::OutputStream::{self, Stderr, Stdout};
    use proptest::prelude::*;

    use super::{PIECE_BYTES, Pieces};

    fn all(said: &[(OutputStream, &[u8])]) -> Vec<(OutputStream, u64, Vec<u8>)> {
        let (mut pieces, mut offset) = (Pieces::default(), 0);
        for (stream, bytes) in said {
            pieces.push(*stream, offset, bytes.to_vec());
            offset += bytes.len() as u64;
        }
        pieces.end();
        pieces.ready.into_iter().map(|piece| (piece.stream, piece.offset, piece.bytes)).collect()
    }

    #[test]
    fn a_character_that_was_read_in_two_parts_is_text() {
        let told = all(&[(Stdout, b"a\xe2\x82"), (Stdout, b"\xacb")]);
        assert_eq!(told, [(Stdout, 0, b"a".to_vec()), (Stdout, 1, "\u{20ac}b".into())]);
        let told = all(&[(Stdout, b"a\xe2\x82"), (Stderr, b"x"), (Stdout, b"\xac")]);
        let bytes: Vec<_> = told.iter().map(|(_, offset, bytes)| (*offset, bytes.as_slice())).collect();
        assert_eq!(bytes, [(0, &b"a"[..]), (1, b"\xe2\x82"), (3, b"x"), (4, b"\xac")]);
    }

    #[test]
    fn who_begins_within_a_character_has_text_after_it() {
        let told = all(&[(Stdout, b"\x82\xacabc")]);
        assert_eq!(told, [(Stdout, 0, b"\x82\xac".to_vec()), (Stdout, 2, b"abc".to_vec())]);
    }

    #[test]
    fn what_is_long_comes_in_pieces_that_cut_no_character() {
        let text = "x\u{20ac}".repeat(PIECE_BYTES);
        let told = all(&[(Stdout, text.as_bytes())]);
        assert!(
            told.iter().all(|(_, _, bytes)| bytes.len() <= PIECE_BYTES && std::str::from_utf8(bytes).is_ok())
        );
        assert_eq!(told.iter().map(|(_, _, bytes)| bytes.len()).sum::<usize>(), text.len());
    }

    proptest! {
        #[test]
        fn all_bytes_come_once_and_in_order(
            said in proptest::collection::vec((any::<bool>(), proptest::collection::vec(prop_oneof![Just(0xe2u8), Just(0x82), Just(0xac), any::<u8>()], 1..9)), 0..9),
        ) {
            let said: Vec<_> = said.iter().map(|(err, bytes)| (if *err { Stderr } else { Stdout }, bytes.as_slice())).collect();
            let told = all(&said);
            let mut offset = 0;
            for (_, at, bytes) in &told {
                prop_assert_eq!(*at, offset);
                prop_assert!(!bytes.is_empty() && bytes.len() <= PIECE_BYTES + 3);
                offset += bytes.len() as u64;
            }
            let of = |stream| told.iter().filter(|(of, _, _)| *of == stream).flat_map(|(_, _, bytes)| bytes.clone()).collect::<Vec<_>>();
            let was = |stream| said.iter().filter(|(of, _)| *of == stream).flat_map(|(_, bytes)| bytes.to_vec()).collect::<Vec<_>>();
            prop_assert_eq!(of(Stdout), was(Stdout));
            prop_assert_eq!(of(Stderr), was(Stderr));
        }
    }
}
