//! A connection to an agent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Waker};

use faas_guest_protocol::{
    Decoder, ExecRequest, ExitReport, FrameKind, Frozen, MAX_REPLY_PAYLOAD, MAX_REQUEST_PAYLOAD,
    OutputStream, encode_into,
};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf};

use super::reply::Reply;
use super::{AgentStream, GuestError};

/// The most bytes of content in one frame.
const CHUNK_BYTES: usize = 1 << 20;

/// The most that is read at once.
const READ_BYTES: usize = 64 * 1024;

/// A program to be run.
#[derive(Debug)]
pub struct ExecCall {
    /// What to run, and how.
    pub request: ExecRequest,
    /// The contents of `request.files`, in their order.
    pub files: Vec<Vec<u8>>,
    /// Its standard input; `request.stdin` says whether there is any.
    pub stdin: Option<Vec<u8>>,
    /// Dropped when all of it has been sent.
    pub held: Option<Held>,
}

/// Something that its owner wants to keep as long as a call's content is held.
pub struct Held {
    _thing: Box<dyn std::any::Any + Send + Sync>,
}

impl Held {
    /// Keeps `thing`.
    pub fn new(thing: impl std::any::Any + Send + Sync) -> Self {
        Self { _thing: Box::new(thing) }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

/// Takes what a program says, as it comes. The connection waits for it, so it must not wait for anything.
pub trait OutputSink: Send {
    /// The program runs. One that could not be executed never does.
    fn started(&mut self) {}

    /// It has said something.
    fn output(&mut self, stream: OutputStream, bytes: &[u8]);
}

/// What a program has said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The first bytes of its standard output.
    pub stdout: Vec<u8>,
    /// The first bytes of its standard error.
    pub stderr: Vec<u8>,
}

impl OutputSink for Collected {
    fn output(&mut self, stream: OutputStream, bytes: &[u8]) {
        match stream {
            OutputStream::Stdout => self.stdout.extend_from_slice(bytes),
            OutputStream::Stderr => self.stderr.extend_from_slice(bytes),
        }
    }
}

/// A connection, for one execution after the other. Dropping it, or the future of an execution, ends what runs.
#[derive(Debug)]
pub struct AgentConnection {
    reader: ReadHalf<AgentStream>,
    writer: WriteHalf<AgentStream>,
    decoder: Decoder,
    greeted: bool,
    next_id: u64,
}

impl AgentConnection {
    /// Takes over a connection.
    #[must_use]
    pub fn new(stream: AgentStream) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self { reader, writer, decoder: Decoder::new(MAX_REPLY_PAYLOAD), greeted: false, next_id: 1 }
    }

    /// Whether it is open and the agent has said nothing that nobody asked for: good for another program.
    pub fn is_idle(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let mut space = [0u8; 64];
        let mut buffer = ReadBuf::new(&mut space);
        Pin::new(&mut self.reader).poll_read(&mut context, &mut buffer).is_pending()
    }

    /// Tells the agent that nothing of the sandbox has run for `ms` milliseconds. To be called while that is so still.
    ///
    /// # Errors
    /// [`GuestError::Io`].
    pub async fn was_frozen(mut self, ms: u64) -> Result<(), GuestError> {
        let json = serde_json::to_vec(&Frozen { ms }).map_err(io::Error::from)?;
        let mut bytes = Vec::new();
        encode_into(&mut bytes, FrameKind::Frozen as u8, 0, &json);
        self.writer.write_all(&bytes).await?;
        Ok(self.writer.flush().await?)
    }

    /// Runs one program and gives what it says to `sink` until it ends. The order is sent before the agent has
    /// greeted: it may still be starting.
    ///
    /// The connection takes further calls only after an `Ok` or a [`GuestError::Agent`]. When the future is dropped
    /// `sink` has what came until then.
    ///
    /// # Errors
    /// [`GuestError`]. Waits as long as the agent keeps the connection open: the caller sets a deadline.
    pub async fn exec(
        &mut self,
        call: ExecCall,
        sink: &mut dyn OutputSink,
    ) -> Result<ExitReport, GuestError> {
        let exec_id = self.next_id;
        self.next_id += 1;
        let mut reply = Reply::new(exec_id, call.request.max_output_bytes, self.greeted, sink);
        let order = order(exec_id, &call)?;
        let exit = self.converse(exec_id, order, call, &mut reply).await?;
        self.greeted = true;
        Ok(exit)
    }

    async fn converse(
        &mut self,
        exec_id: u64,
        order: Vec<u8>,
        call: ExecCall,
        reply: &mut Reply<'_>,
    ) -> Result<ExitReport, GuestError> {
        let sent = send(&mut self.writer, exec_id, order, call);
        let received = receive(&mut self.reader, &mut self.decoder, reply);
        tokio::pin!(sent, received);
        // Both at once: an agent that cannot be rid of output does not take more input.
        tokio::select! {
            biased;
            result = &mut sent => match result {
                // The agent may be gone for a reason that it has told.
                Ok(()) | Err(_) => received.await,
            },
            // It may end without having read all of its input.
            result = &mut received => result,
        }
    }
}

fn order(exec_id: u64, call: &ExecCall) -> Result<Vec<u8>, GuestError> {
    let json = serde_json::to_vec(&call.request).map_err(io::Error::from)?;
    if json.len() > MAX_REQUEST_PAYLOAD {
        return Err(GuestError::TooLarge);
    }
    let mut bytes = Vec::new();
    encode_into(&mut bytes, FrameKind::Exec as u8, exec_id, &json);
    Ok(bytes)
}

async fn send(
    writer: &mut WriteHalf<AgentStream>,
    exec_id: u64,
    order: Vec<u8>,
    call: ExecCall,
) -> io::Result<()> {
    let mut pending = order;
    let mut contents = Vec::new();
    contents.extend(call.files.iter().map(|content| (FrameKind::FileData, content.as_slice())));
    contents.extend(call.stdin.as_deref().map(|content| (FrameKind::Stdin, content)));
    for (kind, content) in contents {
        for chunk in content.chunks(CHUNK_BYTES) {
            encode_into(&mut pending, kind as u8, exec_id, chunk);
            if pending.len() >= CHUNK_BYTES {
                writer.write_all(&pending).await?;
                pending.clear();
            }
        }
    }
    if call.request.stdin {
        encode_into(&mut pending, FrameKind::StdinEof as u8, exec_id, &[]);
    }
    writer.write_all(&pending).await?;
    writer.flush().await?;
    drop(call.held);
    Ok(())
}

async fn receive(
    reader: &mut ReadHalf<AgentStream>,
    decoder: &mut Decoder,
    reply: &mut Reply<'_>,
) -> Result<ExitReport, GuestError> {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        while let Some(frame) = decoder.next_frame()? {
            if let Some(report) = reply.take(&frame)? {
                return Ok(report);
            }
        }
        buffer.clear();
        if reader.read_buf(&mut buffer).await? == 0 {
            return Err(GuestError::Lost);
        }
        decoder.feed(&buffer);
    }
}
