//! What an agent says of one execution, checked frame by frame. No I/O.

use std::time::Instant;

use faas_guest_protocol::{AgentError, ExitReport, Frame, FrameKind, Hello, OutputStream, Started, VERSION};
use serde::de::DeserializeOwned;

use super::{GuestError, OutputSink};

/// The longest message of an agent's error that is passed on.
const MAX_MESSAGE_CHARS: usize = 1024;

/// One execution as it is told.
pub(super) struct Reply<'a> {
    exec_id: u64,
    max_output_bytes: usize,
    asked: Instant,
    greeted: bool,
    started: bool,
    /// How much came of stdout and of stderr.
    taken: [usize; 2],
    sink: &'a mut dyn OutputSink,
    unknown: Unknown,
}

/// Frames of a newer agent that mean nothing here: some, since each costs this side more than whoever sends it.
#[derive(Debug, Default)]
pub(super) struct Unknown(u32);

impl Unknown {
    const MOST: u32 = 1024;

    pub(super) fn one_more(&mut self) -> Result<(), GuestError> {
        self.0 += 1;
        match self.0 {
            0..=Self::MOST => Ok(()),
            _ => Err(GuestError::Protocol("too many frames that mean nothing")),
        }
    }
}

pub(super) fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, GuestError> {
    serde_json::from_slice(payload).map_err(|_| GuestError::Protocol("a message cannot be read"))
}

/// A report that can be true: one of code and signal, in their ranges.
pub(super) fn believable(report: ExitReport) -> Result<ExitReport, GuestError> {
    match (report.code, report.signal) {
        (Some(0..=255), None) | (None, Some(1..=64)) => Ok(report),
        _ => Err(GuestError::Protocol("an end that no process has")),
    }
}

/// An error whose message may go to clients, and to the log, whose lines are the gateway's own.
pub(super) fn plain(mut error: AgentError) -> AgentError {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    error.message = error.message.chars().take(MAX_MESSAGE_CHARS).map(plain).collect();
    error
}

/// Whose greeting it is, where it is one of this version.
pub(super) fn greeting(frame: &Frame) -> Result<Hello, GuestError> {
    let hello: Hello = match FrameKind::from_byte(frame.kind) {
        Some(FrameKind::Hello) => parse(&frame.payload)?,
        _ => return Err(GuestError::Protocol("the first frame is no greeting")),
    };
    if hello.version != VERSION {
        return Err(GuestError::Protocol("it speaks another version"));
    }
    Ok(hello)
}

impl<'a> Reply<'a> {
    /// `greeted`: whether the agent's `Hello` was seen on this connection before.
    pub(super) fn new(
        exec_id: u64,
        max_output_bytes: u64,
        greeted: bool,
        sink: &'a mut dyn OutputSink,
    ) -> Self {
        Self {
            exec_id,
            max_output_bytes: usize::try_from(max_output_bytes).unwrap_or(usize::MAX),
            asked: Instant::now(),
            greeted,
            started: false,
            taken: [0; 2],
            sink,
            unknown: Unknown::default(),
        }
    }

    /// Takes in one frame; gives the report when it is the last.
    pub(super) fn take(&mut self, frame: &Frame) -> Result<Option<ExitReport>, GuestError> {
        let kind = FrameKind::from_byte(frame.kind);
        if !self.greeted {
            greeting(frame)?;
            self.greeted = true;
            return Ok(None);
        }
        if kind.is_none() {
            return self.unknown.one_more().map(|()| None);
        }
        if frame.exec_id != self.exec_id {
            return Err(GuestError::Protocol("a frame of an execution that was not asked for"));
        }
        match kind {
            Some(FrameKind::Started) if !self.started => {
                let _started: Started = parse(&frame.payload)?;
                self.started = true;
                self.sink.started();
                Ok(None)
            }
            Some(FrameKind::Stdout) => self.output(OutputStream::Stdout, &frame.payload),
            Some(FrameKind::Stderr) => self.output(OutputStream::Stderr, &frame.payload),
            Some(FrameKind::Exit) => self.report(parse(&frame.payload)?).map(Some),
            Some(FrameKind::Error) => Err(GuestError::Agent(plain(parse(&frame.payload)?))),
            _ => Err(GuestError::Protocol("a frame out of order")),
        }
    }

    fn output(&mut self, stream: OutputStream, bytes: &[u8]) -> Result<Option<ExitReport>, GuestError> {
        let taken = &mut self.taken[stream as usize];
        if bytes.len() > self.max_output_bytes - *taken {
            return Err(GuestError::Protocol("more output than was asked for"));
        }
        *taken += bytes.len();
        self.sink.output(stream, bytes);
        Ok(None)
    }

    /// A report that can be true, and no longer than it took.
    fn report(&self, report: ExitReport) -> Result<ExitReport, GuestError> {
        let mut report = believable(report)?;
        let elapsed = u64::try_from(self.asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        report.duration_us = report.duration_us.min(elapsed);
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use faas_guest_protocol::{ExitReport, Frame, FrameKind, Hello, VERSION};
    use proptest::prelude::*;

    use super::{GuestError, Reply};
    use crate::guest::Collected;

    fn frame(kind: FrameKind, exec_id: u64, payload: &[u8]) -> Frame {
        Frame { kind: kind as u8, exec_id, payload: payload.to_vec() }
    }

    fn exit(report: &ExitReport) -> Frame {
        frame(FrameKind::Exit, 1, &serde_json::to_vec(report).unwrap())
    }

    fn broken(result: Result<Option<ExitReport>, GuestError>) -> bool {
        matches!(result, Err(GuestError::Protocol(_)))
    }

    #[test]
    fn more_output_than_asked_for_is_refused() {
        let mut collected = Collected::default();
        let mut reply = Reply::new(1, 10, true, &mut collected);
        assert!(reply.take(&frame(FrameKind::Stdout, 1, &[0; 10])).unwrap().is_none());
        assert!(broken(reply.take(&frame(FrameKind::Stdout, 1, &[0]))));
        assert!(reply.take(&frame(FrameKind::Stderr, 1, &[0; 10])).unwrap().is_none());
    }

    #[test]
    fn another_execution_and_a_missing_greeting_are_refused() {
        assert!(broken(Reply::new(1, 10, true, &mut Collected::default()).take(&frame(
            FrameKind::Stdout,
            2,
            b"x"
        ))));
        assert!(broken(Reply::new(1, 10, false, &mut Collected::default()).take(&frame(
            FrameKind::Stdout,
            1,
            b"x"
        ))));
        let hello = |version| {
            frame(FrameKind::Hello, 0, &serde_json::to_vec(&Hello { version, pid: 3, boot_id: 7 }).unwrap())
        };
        assert!(broken(Reply::new(1, 10, false, &mut Collected::default()).take(&hello(VERSION + 1))));
        assert!(Reply::new(1, 10, false, &mut Collected::default()).take(&hello(VERSION)).unwrap().is_none());
    }

    #[test]
    fn an_end_must_be_one_that_a_process_can_have() {
        for (code, signal) in
            [(None, None), (Some(0), Some(9)), (Some(256), None), (Some(-1), None), (None, Some(65))]
        {
            let report = ExitReport { code, signal, ..ExitReport::default() };
            assert!(
                broken(Reply::new(1, 10, true, &mut Collected::default()).take(&exit(&report))),
                "{report:?}"
            );
        }
    }

    #[test]
    fn a_duration_longer_than_the_wait_is_not_believed() {
        let report = ExitReport { code: Some(0), duration_us: u64::MAX, ..ExitReport::default() };
        let report =
            Reply::new(1, 10, true, &mut Collected::default()).take(&exit(&report)).unwrap().unwrap();
        assert!(report.duration_us < 60_000_000);
    }

    proptest! {
        #[test]
        fn no_frames_make_it_panic_or_hold_more_than_asked(
            frames in proptest::collection::vec((any::<u8>(), 0u64..3, proptest::collection::vec(any::<u8>(), 0..64)), 0..40),
        ) {
            let mut collected = Collected::default();
            let mut reply = Reply::new(1, 100, true, &mut collected);
            for (kind, exec_id, payload) in frames {
                if reply.take(&Frame { kind, exec_id, payload }).is_err() {
                    break;
                }
            }
            prop_assert!(collected.stdout.len() <= 100 && collected.stderr.len() <= 100);
        }
    }
}
