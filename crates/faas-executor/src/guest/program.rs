//! One program on a connection of its own, whose output is taken as its caller wants it.
//!
//! Nothing is read from the connection before somebody asks for more, so that a caller who is slow holds up its own program
//! and nobody else, and nothing of the output is kept here. Its standard input goes out as far as the program takes it.

use std::io::{self, Cursor};

use faas_guest_protocol::{
    Decoder, ExecRequest, ExitReport, Frame, FrameKind, MAX_REPLY_PAYLOAD, MAX_REQUEST_PAYLOAD, Started,
    encode_into,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};

use super::reply::{Unknown, believable, greeting, parse, plain};
use super::{AgentStream, GuestError};

/// The most that is read at once.
const READ_BYTES: usize = 64 << 10;

/// How much of standard error is kept: for the log, when the program ends otherwise than it should.
const STDERR_BYTES: usize = 4 << 10;

/// The number of the one execution of the connection.
const EXEC_ID: u64 = 1;

/// A program that runs. Dropping it kills the program.
#[derive(Debug)]
pub(crate) struct RunningProgram {
    /// What it says.
    pub(crate) output: ProgramOutput,
    /// What it is told.
    pub(crate) input: ProgramInput,
}

/// What a program says.
#[derive(Debug)]
pub(crate) struct ProgramOutput {
    reader: ReadHalf<AgentStream>,
    decoder: Decoder,
    buffer: Vec<u8>,
    unknown: Unknown,
    greeted: bool,
    started: bool,
    stderr: Vec<u8>,
    exit: Option<ExitReport>,
}

/// What a program is told.
#[derive(Debug)]
pub(crate) struct ProgramInput {
    writer: WriteHalf<AgentStream>,
    /// What is still to be written: a call that is given up leaves it to the next one, so that no frame is cut.
    pending: Cursor<Vec<u8>>,
}

impl RunningProgram {
    /// Starts a program. The order is sent before the agent has greeted: it may still be starting.
    ///
    /// # Errors
    /// [`GuestError::TooLarge`]. What else may go wrong the output tells.
    pub(crate) fn start(stream: AgentStream, request: &ExecRequest) -> Result<Self, GuestError> {
        let json = serde_json::to_vec(request).map_err(io::Error::from)?;
        if json.len() > MAX_REQUEST_PAYLOAD {
            return Err(GuestError::TooLarge);
        }
        let (reader, writer) = tokio::io::split(stream);
        let mut order = Vec::new();
        encode_into(&mut order, FrameKind::Exec as u8, EXEC_ID, &json);
        let output = ProgramOutput {
            reader,
            decoder: Decoder::new(MAX_REPLY_PAYLOAD),
            buffer: Vec::with_capacity(READ_BYTES),
            greeted: false,
            started: false,
            stderr: Vec::new(),
            exit: None,
            unknown: Unknown::default(),
        };
        Ok(Self { output, input: ProgramInput { writer, pending: Cursor::new(order) } })
    }
}

impl ProgramInput {
    /// Sends all that there is to be sent. When the future is dropped nothing is lost: the next call goes on.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.writer.write_all_buf(&mut self.pending).await?;
        self.writer.flush().await
    }

    /// Writes to its standard input, and returns when the connection has taken all. A program that does not read, or has
    /// ended, is no error: its end is told by the output.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.flush().await?;
        let pending = self.pending.get_mut();
        pending.clear();
        encode_into(pending, FrameKind::Stdin as u8, EXEC_ID, bytes);
        self.pending.set_position(0);
        self.flush().await
    }

    /// Ends its standard input.
    pub(crate) async fn end(&mut self) -> io::Result<()> {
        self.flush().await?;
        let pending = self.pending.get_mut();
        pending.clear();
        encode_into(pending, FrameKind::StdinEof as u8, EXEC_ID, &[]);
        self.pending.set_position(0);
        self.flush().await
    }
}

impl ProgramOutput {
    /// The next bytes of its standard output; none when it has ended. When the future is dropped nothing is lost.
    ///
    /// # Errors
    /// [`GuestError`]. Waits as long as the agent keeps the connection open.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, GuestError> {
        loop {
            while let Some(frame) = self.decoder.next_frame()? {
                if let Some(bytes) = self.take(frame)? {
                    return Ok(Some(bytes));
                }
            }
            if self.exit.is_some() {
                return Ok(None);
            }
            self.buffer.clear();
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Err(GuestError::Lost);
            }
            self.decoder.feed(&self.buffer);
        }
    }

    /// How it ended, when it has.
    pub(crate) const fn exit(&self) -> Option<&ExitReport> {
        self.exit.as_ref()
    }

    /// The first bytes of its standard error, for the log.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Takes in one frame; gives what it has of standard output.
    fn take(&mut self, frame: Frame) -> Result<Option<Vec<u8>>, GuestError> {
        if !self.greeted {
            greeting(&frame)?;
            self.greeted = true;
            return Ok(None);
        }
        let kind = FrameKind::from_byte(frame.kind);
        if kind.is_none() {
            return self.unknown.one_more().map(|()| None);
        }
        if frame.exec_id != EXEC_ID || self.exit.is_some() {
            return Err(GuestError::Protocol("a frame of an execution that was not asked for"));
        }
        match kind {
            Some(FrameKind::Started) if !self.started => {
                let _started: Started = parse(&frame.payload)?;
                self.started = true;
                Ok(None)
            }
            Some(FrameKind::Stdout) if !frame.payload.is_empty() => Ok(Some(frame.payload)),
            Some(FrameKind::Stderr) if !frame.payload.is_empty() => {
                let room = STDERR_BYTES - self.stderr.len();
                self.stderr.extend(frame.payload.iter().take(room));
                Ok(None)
            }
            Some(FrameKind::Exit) => {
                self.exit = Some(believable(parse(&frame.payload)?)?);
                Ok(None)
            }
            Some(FrameKind::Error) => Err(GuestError::Agent(plain(parse(&frame.payload)?))),
            _ => Err(GuestError::Protocol("a frame out of order")),
        }
    }
}

#[cfg(test)]
mod tests {
    use faas_guest_protocol::{
        Decoder, ExecRequest, ExitReport, FrameKind, Hello, MAX_REQUEST_PAYLOAD, Program, Started, VERSION,
        encode,
    };
    use futures_util::FutureExt as _;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::{EXEC_ID, RunningProgram};
    use crate::guest::{AgentStream, GuestError};

    fn request() -> ExecRequest {
        ExecRequest {
            program: Program::Argv(vec!["x".to_owned()]),
            env: Vec::new(),
            cwd: None,
            user: None,
            files: Vec::new(),
            stdin: true,
            timeout_ms: None,
            max_output_bytes: u64::MAX,
            cpu_time_limit_s: None,
            finish_ms: None,
            lasting: None,
        }
    }

    fn running(room: usize) -> (RunningProgram, DuplexStream) {
        let (ours, agents) = tokio::io::duplex(room);
        (RunningProgram::start(AgentStream::new(ours), &request()).unwrap(), agents)
    }

    fn json(kind: FrameKind, message: &impl serde::Serialize) -> Vec<u8> {
        encode(kind as u8, EXEC_ID, &serde_json::to_vec(message).unwrap())
    }

    fn hello() -> Vec<u8> {
        let hello = Hello { version: VERSION, pid: 3, boot_id: 7 };
        encode(FrameKind::Hello as u8, 0, &serde_json::to_vec(&hello).unwrap())
    }

    fn exit(code: i32) -> Vec<u8> {
        json(FrameKind::Exit, &ExitReport { code: Some(code), ..ExitReport::default() })
    }

    #[tokio::test]
    async fn output_is_read_when_it_is_wanted_and_not_before() {
        let (mut program, mut agent) = running(64 << 10);
        let piece = encode(FrameKind::Stdout as u8, EXEC_ID, &[b'x'; 1000]);
        agent.write_all(&[hello(), json(FrameKind::Started, &Started { pid: 5 })].concat()).await.unwrap();
        let mut sent = 0;
        while agent.write_all(&piece).now_or_never().is_some() {
            sent += 1;
            assert!(sent <= 65, "somebody takes it");
        }
        assert_eq!(program.output.next().await.unwrap().unwrap().len(), 1000);
        assert!(program.output.exit().is_none());
    }

    #[tokio::test]
    async fn a_write_that_is_given_up_leaves_no_half_a_frame() {
        let (mut program, mut agent) = running(1 << 10);
        assert!(program.input.write(&[1; 5000]).now_or_never().is_none());
        let rest = async {
            program.input.write(&[2; 10]).await.unwrap();
            program.input.end().await.unwrap();
            drop(program);
        };
        let mut bytes = Vec::new();
        let (_, read) = tokio::join!(rest, agent.read_to_end(&mut bytes));
        read.unwrap();
        let mut decoder = Decoder::new(MAX_REQUEST_PAYLOAD);
        decoder.feed(&bytes);
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next_frame().unwrap() {
            frames.push((frame.kind, frame.payload.len()));
        }
        let (stdin, end) = (FrameKind::Stdin as u8, FrameKind::StdinEof as u8);
        assert_eq!(frames[0].0, FrameKind::Exec as u8);
        // The first one had not begun: the order was still to be sent. What was begun is sent whole.
        assert!(
            frames[1..] == [(stdin, 10), (end, 0)] || frames[1..] == [(stdin, 5000), (stdin, 10), (end, 0)]
        );
    }

    #[tokio::test]
    async fn its_end_is_told_after_all_that_it_said() {
        let (mut program, mut agent) = running(64 << 10);
        let said = encode(FrameKind::Stdout as u8, EXEC_ID, b"last");
        let complaint = encode(FrameKind::Stderr as u8, EXEC_ID, &[b'e'; 9000]);
        agent.write_all(&[hello(), said, complaint, exit(3)].concat()).await.unwrap();
        assert_eq!(program.output.next().await.unwrap().unwrap(), b"last");
        assert_eq!(program.output.next().await.unwrap(), None);
        assert_eq!(program.output.next().await.unwrap(), None);
        assert_eq!(program.output.exit().unwrap().code, Some(3));
        assert_eq!(program.output.stderr().len(), super::STDERR_BYTES);
        let (mut program, agent) = running(64 << 10);
        drop(agent);
        assert!(matches!(program.output.next().await, Err(GuestError::Lost)));
    }

    #[tokio::test]
    async fn what_cannot_be_is_refused() {
        for frame in [
            encode(FrameKind::Stdout as u8, EXEC_ID + 1, b"x"),
            encode(FrameKind::Stdout as u8, EXEC_ID, b""),
            exit(300),
            [exit(0), encode(FrameKind::Stdout as u8, EXEC_ID, b"x")].concat(),
            encode(FrameKind::Gap as u8, EXEC_ID, b"{}"),
        ] {
            let (mut program, mut agent) = running(64 << 10);
            agent.write_all(&[hello(), frame].concat()).await.unwrap();
            assert!(matches!(program.output.next().await, Err(GuestError::Protocol(_))));
        }
        let (mut program, mut agent) = running(64 << 10);
        agent.write_all(&exit(0)).await.unwrap();
        assert!(program.output.next().await.is_err(), "no greeting");
    }

    proptest! {
        #[test]
        fn no_frames_make_it_panic_or_keep_much(
            frames in prop::collection::vec(
                (prop_oneof![Just(66u8), Just(67), any::<u8>()], 0u64..3, prop::collection::vec(any::<u8>(), 0..600)),
                0..20,
            ),
        ) {
            let (program, _agent) = running(64);
            let mut output = program.output;
            output.greeted = true;
            for (kind, exec_id, payload) in frames {
                if output.take(faas_guest_protocol::Frame { kind, exec_id, payload }).is_err() {
                    break;
                }
                prop_assert!(output.stderr.len() <= super::STDERR_BYTES);
            }
        }
    }
}
