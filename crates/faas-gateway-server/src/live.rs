//! The output of one execution between the engine, which waits for nobody, and a client, who may be slow.
//!
//! What the client has not taken is kept up to a fixed size; beyond that the oldest goes, and the client is told of the
//! gap. What it has taken is let go. A character whose bytes come in two reads is put together first, so that a piece is text wherever the output is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use faas_executor::LiveOutput;
use faas_guest_protocol::{Found, Log, OutputStream};
use faas_types::{ExecuteEvent, ExecutionId, OutputGap, OutputPiece};
use tokio::sync::Notify;

/// The most output that waits for one client, however much is allowed.
const MOST_KEPT_BYTES: u64 = 4 << 20;

/// The least, whose bookkeeping is worth the name.
const LEAST_KEPT_BYTES: u64 = 64 << 10;

/// What waits for the client of an execution that has ended, where there is no room for more.
const KEPT_WITHOUT_ROOM: u64 = 64 << 10;

/// The most output in one event.
const PIECE_BYTES: usize = 32 << 10;

#[derive(Debug)]
struct Waiting {
    started: Option<ExecutionId>,
    log: Log,
    /// The first bytes of a character of each stream whose others have not come.
    cut: [Vec<u8>; 2],
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    more: Notify,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change is whole before anything could panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine's end.
#[derive(Debug)]
pub(crate) struct Writer(Arc<Shared>);

/// The client's end.
#[derive(Debug)]
pub(crate) struct Reader {
    shared: Arc<Shared>,
    offset: u64,
}

/// Both ends, for an execution with so much output of each stream.
pub(crate) fn channel(max_output_bytes: u64) -> (Writer, Reader) {
    // All of it, where that is not too much: both streams, and something for their changes.
    let all = max_output_bytes.saturating_mul(2).saturating_add(LEAST_KEPT_BYTES);
    let capacity = usize::try_from(all.min(MOST_KEPT_BYTES)).unwrap_or(usize::MAX);
    let waiting = Waiting { started: None, log: Log::new(capacity), cut: [Vec::new(), Vec::new()] };
    let shared = Arc::new(Shared { waiting: Mutex::new(waiting), more: Notify::new() });
    (Writer(Arc::clone(&shared)), Reader { shared, offset: 0 })
}

impl LiveOutput for Writer {
    fn started(&mut self, id: &ExecutionId) {
        self.0.waiting().started = Some(id.clone());
        self.0.more.notify_one();
    }

    fn output(&mut self, stream: OutputStream, bytes: &[u8]) {
        let mut waiting = self.0.waiting();
        let Waiting { log, cut, .. } = &mut *waiting;
        let cut = &mut cut[stream as usize];
        if cut.is_empty() {
            let whole = bytes.len() - cut_character(bytes);
            log.append(stream, &bytes[..whole]);
            cut.extend_from_slice(&bytes[whole..]);
        } else {
            cut.extend_from_slice(bytes);
            let whole = cut.len() - cut_character(cut);
            log.append(stream, &cut[..whole]);
            cut.drain(..whole);
            // It may have been a large piece.
            cut.shrink_to(4);
        }
        drop(waiting);
        self.0.more.notify_one();
    }
}

impl Drop for Writer {
    /// Nothing comes any more: what is cut stays so.
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        let Waiting { log, cut, .. } = &mut *waiting;
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            log.append(stream, &std::mem::take(&mut cut[stream as usize]));
        }
        drop(waiting);
        self.0.more.notify_one();
    }
}

impl Reader {
    /// The id of the execution, once it runs.
    pub(crate) fn started(&self) -> Option<ExecutionId> {
        self.shared.waiting().started.clone()
    }

    /// The offset after what was taken.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next output that is there.
    pub(crate) fn take(&mut self) -> Option<ExecuteEvent> {
        let shared = Arc::clone(&self.shared);
        let mut waiting = shared.waiting();
        let log = &mut waiting.log;
        if let Found::Dropped { first } = log.at(self.offset, 1) {
            // The gap ends where a character begins.
            let rest = log.copy_at(first, 3).map_or(Vec::new(), |(_, bytes)| bytes);
            let of_a_character = rest.iter().take_while(|byte| is_continuation(**byte)).count();
            let gap = OutputGap { from: self.offset, to: first + of_a_character as u64 };
            self.offset = gap.to;
            return Some(ExecuteEvent::Gap(gap));
        }
        let (stream, mut bytes) = log.copy_at(self.offset, PIECE_BYTES)?;
        let cut = cut_character(&bytes);
        if cut < bytes.len() {
            // The rest of it comes with the next piece.
            bytes.truncate(bytes.len() - cut);
        }
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        log.drop_before(self.offset);
        drop(waiting);
        let piece = match String::from_utf8(bytes) {
            Ok(text) => OutputPiece { offset, data: Some(text), data_base64: None },
            Err(error) => {
                OutputPiece { offset, data: None, data_base64: Some(STANDARD.encode(error.as_bytes())) }
            }
        };
        Some(match stream {
            OutputStream::Stdout => ExecuteEvent::Stdout(piece),
            OutputStream::Stderr => ExecuteEvent::Stderr(piece),
        })
    }

    /// How many bytes wait to be taken.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.shared.waiting().log.held_bytes()
    }

    /// Lets go of what waits but for a little.
    pub(crate) fn let_go(&self) {
        let log = &mut self.shared.waiting().log;
        log.drop_before(log.next().saturating_sub(KEPT_WITHOUT_ROOM).max(log.first()));
    }

    /// Resolves when there may be more.
    pub(crate) async fn more(&self) {
        self.shared.more.notified().await;
    }
}

/// Whether a byte is one of a character's after its first.
pub(crate) fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// How many bytes at the end are the beginning of a character whose other bytes are missing: 0 to 3.
pub(crate) fn cut_character(bytes: &[u8]) -> usize {
    let last = &bytes[bytes.len().saturating_sub(3)..];
    let Some(begins) = last.iter().rposition(|byte| !is_continuation(*byte)) else { return 0 };
    match std::str::from_utf8(&last[begins..]) {
        Err(error) if error.error_len().is_none() => last.len() - begins,
        Ok(_) | Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use faas_executor::LiveOutput as _;
    use faas_guest_protocol::OutputStream::{Stderr, Stdout};
    use faas_types::{ExecuteEvent, OutputGap, OutputPiece};

    use super::{PIECE_BYTES, Reader, Writer, cut_character};

    const KEPT_BYTES: usize = 256 << 10;

    fn channel() -> (Writer, Reader) {
        super::channel((KEPT_BYTES - (64 << 10)) as u64 / 2)
    }

    fn all(reader: &mut Reader) -> Vec<ExecuteEvent> {
        std::iter::from_fn(|| reader.take()).collect()
    }

    /// A piece: its stream, its offset, its text or its bytes.
    type Piece<'a> = (&'static str, u64, Result<&'a str, Vec<u8>>);

    fn piece(event: &ExecuteEvent) -> Piece<'_> {
        let (name, OutputPiece { offset, data, data_base64 }) = match event {
            ExecuteEvent::Stdout(said) => ("out", said),
            ExecuteEvent::Stderr(said) => ("err", said),
            other => panic!("{other:?}"),
        };
        assert!(data.is_some() != data_base64.is_some());
        let bytes = || STANDARD.decode(data_base64.as_ref().unwrap()).unwrap();
        (name, *offset, data.as_deref().ok_or_else(bytes))
    }

    fn told(events: &[ExecuteEvent]) -> Vec<Piece<'_>> {
        events.iter().map(piece).collect()
    }

    #[test]
    fn a_character_that_comes_in_two_reads_is_text() {
        let (mut writer, mut reader) = channel();
        writer.output(Stdout, b"a\xe2\x82");
        writer.output(Stderr, b"x");
        assert_eq!(told(&all(&mut reader)), [("out", 0, Ok("a")), ("err", 1, Ok("x"))]);
        writer.output(Stdout, b"\xacb");
        assert_eq!(told(&all(&mut reader)), [("out", 2, Ok("\u{20ac}b"))]);
    }

    #[test]
    fn bytes_that_are_no_text_come_exactly_and_none_is_kept_back_at_the_end() {
        let (mut writer, mut reader) = channel();
        writer.output(Stdout, b"a\xff\x00b");
        writer.output(Stdout, b"\xf0\x9f");
        assert_eq!(told(&all(&mut reader)), [("out", 0, Err(b"a\xff\x00b".to_vec()))]);
        drop(writer);
        assert_eq!(told(&all(&mut reader)), [("out", 4, Err(b"\xf0\x9f".to_vec()))]);
        assert_eq!(reader.offset(), 6);
    }

    #[test]
    fn large_text_comes_in_pieces_that_cut_no_character() {
        let (mut writer, mut reader) = channel();
        let text = "x\u{20ac}".repeat(KEPT_BYTES / 8);
        for piece in text.as_bytes().chunks(1000) {
            writer.output(Stdout, piece);
        }
        let events = all(&mut reader);
        let pieces: Vec<&str> = told(&events).into_iter().map(|(_, _, text)| text.unwrap()).collect();
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES) && pieces.len() < 10);
        assert_eq!(pieces.concat(), text);
    }

    #[test]
    fn who_is_too_slow_is_told_of_a_gap_that_ends_with_a_character() {
        let (mut writer, mut reader) = channel();
        let text = "\u{20ac}".repeat(KEPT_BYTES);
        writer.output(Stdout, text.as_bytes());
        let events = all(&mut reader);
        let ExecuteEvent::Gap(OutputGap { from: 0, to }) = events[0] else { panic!("{:?}", events[0]) };
        let pieces: Vec<&str> = told(&events[1..]).into_iter().map(|(_, _, text)| text.unwrap()).collect();
        assert_eq!(pieces.concat(), text[usize::try_from(to).unwrap()..]);
        assert!(pieces.concat().len() > KEPT_BYTES - 100);
    }

    #[test]
    fn what_was_taken_is_let_go_and_without_room_the_oldest_that_waits_too() {
        let (mut writer, mut reader) = channel();
        for _ in 0..10 {
            writer.output(Stdout, &[b'x'; 100_000]);
            assert!(all(&mut reader).iter().all(|event| matches!(event, ExecuteEvent::Stdout(_))));
            assert_eq!(reader.waiting_bytes(), 0);
        }
        writer.output(Stdout, &[b'x'; 200_000]);
        reader.let_go();
        assert!(matches!(reader.take(), Some(ExecuteEvent::Gap(OutputGap { from: 1_000_000, .. }))));
        assert_eq!(reader.waiting_bytes(), 64 << 10);
    }

    #[test]
    fn only_the_beginning_of_a_character_is_kept_back() {
        for (bytes, cut) in [
            (&b""[..], 0),
            (b"abc", 0),
            (b"a\xc3", 1),
            (b"a\xc3\xa9", 0),
            (b"\xe2\x82", 2),
            (b"a\xf0\x9f\x98", 3),
            (b"\xf0\x9f\x98\x80", 0),
            (b"\x80\x80\x80\x80", 0),
            (b"\xff", 0),
            (b"\xc3x", 0),
            (b"\xed\xa0", 0),
        ] {
            assert_eq!(cut_character(bytes), cut, "{bytes:?}");
        }
    }
}
