//! A connection to an agent for many lasting executions at once.
//!
//! Two tasks serve it: one reads and gives each frame to whom it is for, one writes what everybody has to say. Neither
//! waits for anybody: what a reader has not taken is bounded by what its attachment was granted, and what is written
//! by room that the large writers wait for.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use faas_guest_protocol::lasting::{Attach, Attached, Credit, List, ListedExecution};
use faas_guest_protocol::{
    Decoder, ExecRequest, ExecSignal, FrameKind, Lasting, LastingId, MAX_REPLY_PAYLOAD, MAX_REQUEST_PAYLOAD,
    Started, TtySize, encode,
};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connection::Held;
use super::mux::{LastingEvent, Mux, Next, Part, Request, Waiting};
use super::{AgentStream, GuestError};

/// What one attachment may have on the way and unread.
const WINDOW_BYTES: u64 = 128 << 10;

/// The most that is read at once, and that an idle connection keeps for reading.
const READ_BYTES: usize = 16 << 10;

/// The most bytes of content in one frame.
const CHUNK_BYTES: usize = 64 << 10;

/// How much content waits to be written.
const WRITE_BYTES: usize = 512 << 10;

/// How much may wait to be written beyond that: orders, and much that is small. An agent that takes nothing while more
/// is asked of it is given up.
const WAITING_BYTES: usize = 2 * MAX_REQUEST_PAYLOAD;

/// What a frame that waits takes beside its bytes, about: those who wait for its answer, too.
const WAITING_OVERHEAD: usize = 512;

/// The most executions that are listed: more than an agent has.
const MAX_LISTED: usize = 16 << 10;

/// A lasting execution to be started.
#[derive(Debug)]
pub struct LastingCall {
    /// What to run, and how. [`ExecRequest::lasting`] may be absent, which means a log of the usual size and no terminal.
    pub request: ExecRequest,
    /// The contents of `request.files`, in their order.
    pub files: Vec<Vec<u8>>,
    /// Dropped when all of it has been sent.
    pub held: Option<Held>,
}

/// Bytes to be written, and what they take until then.
struct Outgoing {
    bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
    _held: Option<Held>,
}

impl Outgoing {
    /// What it takes of [`WAITING_BYTES`].
    fn waiting(&self) -> usize {
        if self.room.is_some() { 0 } else { self.bytes.len() + WAITING_OVERHEAD }
    }
}

/// The order for an attachment, to be sent as long as somebody wants it.
struct AttachFrame {
    id: u64,
    bytes: Vec<u8>,
}

/// An attachment that the agent is to be asked for, and its answer.
struct Prepared {
    attachment: Attachment,
    frame: AttachFrame,
    attached: oneshot::Receiver<Result<Attached, GuestError>>,
}

struct Shared {
    mux: Mutex<Mux>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    room: Arc<Semaphore>,
    /// How much waits to be written that has no room.
    waiting: AtomicUsize,
    /// Ends the connection.
    stop: CancellationToken,
}

impl Shared {
    fn mux(&self) -> MutexGuard<'_, Mux> {
        // Nothing panics with the lock held; if it did, frames are still checked one by one.
        self.mux.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame. Where that is no use any more, everybody has been told by [`Mux::fail`].
    fn send(&self, bytes: Vec<u8>, room: Option<OwnedSemaphorePermit>) {
        self.queue(Outgoing { bytes, room, _held: None });
    }

    fn queue(&self, outgoing: Outgoing) {
        let more = outgoing.waiting();
        if self.waiting.fetch_add(more, Ordering::Relaxed) + more > WAITING_BYTES {
            tracing::warn!("an agent takes nothing of what it is sent; the connection is given up");
            self.stop.cancel();
        }
        match self.outgoing.send(outgoing) {
            Ok(()) | Err(_) => {}
        }
    }

    fn send_attach(&self, mux: &mut Mux, frame: AttachFrame) {
        if mux.attach_sent(frame.id) {
            self.send(frame.bytes, None);
        }
    }

    fn fail(&self, error: GuestError) {
        self.mux().fail(error);
        self.room.close();
    }

    /// Room for a chunk of content. None when the connection has ended.
    async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Arc::clone(&self.room).acquire_many_owned(bytes).await.ok()
    }
}

/// Ends the connection when nobody has it any more.
struct Handle {
    shared: Arc<Shared>,
    boot_id: u64,
    _stop: DropGuard,
}

/// A connection to an agent. Cheap to clone; it ends when all clones and their attachments are dropped, which ends no
/// lasting execution.
#[derive(Clone)]
pub struct AgentClient {
    handle: Arc<Handle>,
}

impl std::fmt::Debug for AgentClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentClient").field("boot_id", &self.handle.boot_id).finish_non_exhaustive()
    }
}

fn json(kind: FrameKind, id: u64, message: &impl Serialize) -> Result<Vec<u8>, GuestError> {
    let payload = serde_json::to_vec(message).map_err(io::Error::from)?;
    if payload.len() > MAX_REQUEST_PAYLOAD {
        return Err(GuestError::TooLarge);
    }
    Ok(encode(kind as u8, id, &payload))
}

async fn answered<T>(receiver: oneshot::Receiver<Result<T, GuestError>>) -> Result<T, GuestError> {
    // Every question is answered, by the agent or by the end of the connection.
    receiver.await.unwrap_or(Err(GuestError::Lost))
}

impl AgentClient {
    /// Takes over a connection and waits for the agent's greeting. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`GuestError`], also for an agent without lasting executions. Waits as long as the agent keeps the connection open:
    /// the caller sets a deadline.
    pub async fn connect(stream: AgentStream) -> Result<Self, GuestError> {
        let (reader, writer) = tokio::io::split(stream);
        let (greeting, greeted) = oneshot::channel();
        let (outgoing, queue) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            mux: Mutex::new(Mux::new(greeting)),
            outgoing,
            room: Arc::new(Semaphore::new(WRITE_BYTES)),
            waiting: AtomicUsize::new(0),
            stop: stop.clone(),
        });
        let guard = stop.clone().drop_guard();
        tokio::spawn(read_all(reader, Arc::clone(&shared), stop.clone()));
        tokio::spawn(write_all(writer, queue, Arc::clone(&shared), stop));
        let hello = answered(greeted).await?;
        Ok(Self { handle: Arc::new(Handle { shared, boot_id: hello.boot_id, _stop: guard }) })
    }

    /// Whether it is good for further calls, as far as is known.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.handle.shared.mux().check().is_ok()
    }

    /// The number of the agent's run. Another one than before: the agent that knew the executions until then has died,
    /// and they are lost (`agent_lost`).
    #[must_use]
    pub fn boot_id(&self) -> u64 {
        self.handle.boot_id
    }

    /// Starts a lasting execution. It is started whether the caller waits for that or not.
    ///
    /// # Errors
    /// [`GuestError::Agent`] where it was refused. A program that is not there is no error: its execution has ended, and
    /// its [`Started::pid`] is 0.
    pub async fn start(&self, id: LastingId, call: LastingCall) -> Result<Started, GuestError> {
        answered(self.order(id, call, None)?).await
    }

    /// The same, and attaches from its first byte on, in one step.
    ///
    /// # Errors
    /// As [`AgentClient::start`].
    pub async fn start_attached(
        &self,
        id: LastingId,
        call: LastingCall,
        hold: bool,
    ) -> Result<(Started, Attachment), GuestError> {
        let Prepared { attachment, frame, attached } = self.prepare(id, 0, hold)?;
        let started = answered(self.order(id, call, Some(frame))?).await?;
        attachment.begun(attached).await.map(|attachment| (started, attachment))
    }

    fn order(
        &self,
        id: LastingId,
        mut call: LastingCall,
        then: Option<AttachFrame>,
    ) -> Result<oneshot::Receiver<Result<Started, GuestError>>, GuestError> {
        call.request.lasting.get_or_insert(Lasting::default());
        let order = json(FrameKind::Exec, id.to_wire(), &call.request)?;
        let shared = &self.handle.shared;
        let (sender, receiver) = oneshot::channel();
        {
            let mut mux = shared.mux();
            mux.check()?;
            if !mux.start(id, sender) {
                return Err(GuestError::Protocol("an execution of this id is being started"));
            }
            let has_files = !call.files.iter().all(Vec::is_empty);
            let held = if has_files { None } else { call.held.take() };
            shared.queue(Outgoing { bytes: order, room: None, _held: held });
            if !has_files {
                then.into_iter().for_each(|frame| shared.send_attach(&mut mux, frame));
                return Ok(receiver);
            }
        }
        let shared = Arc::clone(shared);
        // Not the caller's: an execution of which half has been told could never begin, nor end.
        tokio::spawn(async move {
            for chunk in call.files.iter().flat_map(|content| content.chunks(CHUNK_BYTES)) {
                let Some(room) = shared.room(chunk.len()).await else { return };
                shared.send(encode(FrameKind::FileData as u8, id.to_wire(), chunk), Some(room));
            }
            drop(call.held);
            then.into_iter().for_each(|frame| shared.send_attach(&mut shared.mux(), frame));
        });
        Ok(receiver)
    }

    /// Attaches to a lasting execution from `offset` on. `hold`: the program may be held up for this attachment, whose
    /// owner promises to read as fast as it can.
    ///
    /// # Errors
    /// [`GuestError::Agent`] where there is no such execution, or its output ends before the offset.
    pub async fn attach(&self, id: LastingId, offset: u64, hold: bool) -> Result<Attachment, GuestError> {
        let Prepared { attachment, frame, attached } = self.prepare(id, offset, hold)?;
        let shared = &self.handle.shared;
        shared.send_attach(&mut shared.mux(), frame);
        attachment.begun(attached).await
    }

    fn prepare(&self, id: LastingId, offset: u64, hold: bool) -> Result<Prepared, GuestError> {
        let (sender, attached) = oneshot::channel();
        let mut mux = self.handle.shared.mux();
        mux.check()?;
        let (own, more) = mux.attach(offset, WINDOW_BYTES, sender);
        drop(mux);
        let attachment = Attachment { handle: Arc::clone(&self.handle), id: own, more, attached: None };
        let asked = Attach { execution: id.get(), offset, credit: WINDOW_BYTES, hold };
        let frame = AttachFrame { id: own, bytes: json(FrameKind::Attach, own, &asked)? };
        Ok(Prepared { attachment, frame, attached })
    }

    /// Writes to the standard input of a lasting execution; returns when the program's pipe or terminal has taken all of
    /// it. Whether it has: otherwise the program does not read any more. When the future is dropped, what has been sent
    /// until then stays sent.
    ///
    /// # Errors
    /// [`GuestError`] when the connection ends.
    pub async fn stdin(&self, id: LastingId, bytes: &[u8]) -> Result<bool, GuestError> {
        let shared = &self.handle.shared;
        let room = {
            let mut mux = shared.mux();
            mux.check()?;
            mux.stdin_room(id)
        };
        let mut waiting = Vec::new();
        for chunk in bytes.chunks(CHUNK_BYTES) {
            let size = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            let own = Arc::clone(&room).acquire_many_owned(size).await;
            let (Ok(own), Some(to_write)) = (own, shared.room(chunk.len()).await) else { break };
            let (sender, receiver) = oneshot::channel();
            let mut mux = shared.mux();
            if mux.check().is_err() {
                break;
            }
            mux.stdin_sent(id, Part { bytes: u64::from(size), waiting: sender, _room: own });
            shared.send(encode(FrameKind::Stdin as u8, id.to_wire(), chunk), Some(to_write));
            drop(mux);
            waiting.push(receiver);
        }
        let mut all = true;
        for receiver in waiting {
            all &= answered(receiver).await?;
        }
        drop(room);
        let mut mux = shared.mux();
        mux.stdin_done(id);
        mux.check().map(|()| all)
    }

    /// Ends its standard input; a terminal gets its end-of-file character.
    ///
    /// # Errors
    /// [`GuestError::Agent`] where there is no such execution, or it has ended.
    pub async fn stdin_eof(&self, id: LastingId) -> Result<(), GuestError> {
        self.ask(id, encode(FrameKind::StdinEof as u8, id.to_wire(), &[])).await
    }

    /// Sends a signal to the process group that its program began with.
    ///
    /// # Errors
    /// [`GuestError::Agent`] where there is no such execution, it has ended, or it is no signal.
    pub async fn signal(&self, id: LastingId, signal: i32) -> Result<(), GuestError> {
        self.ask(id, json(FrameKind::Signal, id.to_wire(), &ExecSignal { signal })?).await
    }

    /// Kills everything that it started. Its end comes as an event.
    ///
    /// # Errors
    /// [`GuestError::Agent`] where there is no such execution, or it has ended.
    pub async fn cancel(&self, id: LastingId) -> Result<(), GuestError> {
        self.ask(id, encode(FrameKind::Cancel as u8, id.to_wire(), &[])).await
    }

    /// Changes the size of its terminal.
    ///
    /// # Errors
    /// [`GuestError::Agent`] where there is no such execution, it has ended, or it has no terminal.
    pub async fn resize(&self, id: LastingId, size: TtySize) -> Result<(), GuestError> {
        self.ask(id, json(FrameKind::Resize, id.to_wire(), &size)?).await
    }

    /// Has it forgotten, with its output.
    ///
    /// # Errors
    /// [`GuestError::Agent`] where there is no such execution, or it still runs.
    pub async fn forget(&self, id: LastingId) -> Result<(), GuestError> {
        self.ask(id, encode(FrameKind::Forget as u8, id.to_wire(), &[])).await
    }

    /// All lasting executions that the agent knows, by their ids.
    ///
    /// # Errors
    /// [`GuestError`] when the connection ends, or the agent tells of more than there can be.
    pub async fn list(&self) -> Result<Vec<ListedExecution>, GuestError> {
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let (waiting, listed) = oneshot::channel();
            let frame = json(FrameKind::List, 0, &List { after })?;
            self.send_request(Request::List { after, waiting }, frame)?;
            let listed = answered(listed).await?;
            all.extend(listed.executions);
            after = all.last().map_or(0, |last: &ListedExecution| last.id);
            if !listed.more {
                return Ok(all);
            }
            if all.len() > MAX_LISTED {
                let error = GuestError::Protocol("more executions than there can be");
                self.handle.shared.fail(error);
                return Err(GuestError::Protocol("more executions than there can be"));
            }
        }
    }

    async fn ask(&self, id: LastingId, frame: Vec<u8>) -> Result<(), GuestError> {
        let (waiting, done): (Waiting<()>, _) = oneshot::channel();
        self.send_request(Request::Done(id, waiting), frame)?;
        answered(done).await
    }

    /// Answers come in the order of the frames, so both are queued in one step.
    fn send_request(&self, request: Request, frame: Vec<u8>) -> Result<(), GuestError> {
        let mut mux = self.handle.shared.mux();
        mux.check()?;
        mux.request(request);
        self.handle.shared.send(frame, None);
        Ok(())
    }
}

/// The output of a lasting execution from an offset on. Dropping it detaches; the execution goes on.
pub struct Attachment {
    handle: Arc<Handle>,
    id: u64,
    more: Arc<Notify>,
    attached: Option<Attached>,
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachment").field("attached", &self.attached).finish_non_exhaustive()
    }
}

impl Attachment {
    async fn begun(
        mut self,
        attached: oneshot::Receiver<Result<Attached, GuestError>>,
    ) -> Result<Self, GuestError> {
        self.attached = Some(answered(attached).await?);
        Ok(self)
    }

    /// Where the execution's output stood when this began.
    #[must_use]
    pub fn attached(&self) -> Option<&Attached> {
        self.attached.as_ref()
    }

    /// The next event. None after the last: [`LastingEvent::Exit`] or an error. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`GuestError::Connection`] as soon as the connection has ended; [`GuestError::Agent`] where the execution was
    /// forgotten.
    pub async fn next(&mut self) -> Option<Result<LastingEvent, GuestError>> {
        loop {
            {
                let mut mux = self.handle.shared.mux();
                match mux.next(self.id) {
                    Next::Event(event, granted) => {
                        if let Some(bytes) = granted {
                            match json(FrameKind::Credit, self.id, &Credit { bytes }) {
                                Ok(frame) => self.handle.shared.send(frame, None),
                                Err(error) => return Some(Err(error)),
                            }
                        }
                        return Some(Ok(event));
                    }
                    Next::End(None) => return None,
                    Next::End(Some(error)) => {
                        mux.detach(self.id);
                        return Some(Err(error));
                    }
                    Next::Nothing => {}
                }
            }
            self.more.notified().await;
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mut mux = self.handle.shared.mux();
        if mux.detach(self.id) {
            self.handle.shared.send(encode(FrameKind::Detach as u8, self.id, &[]), None);
        }
    }
}

async fn read_all(mut reader: ReadHalf<AgentStream>, shared: Arc<Shared>, stop: CancellationToken) {
    let error = tokio::select! {
        () = stop.cancelled() => GuestError::Lost,
        error = read_frames(&mut reader, &shared) => error,
    };
    shared.fail(error);
    stop.cancel();
}

async fn read_frames(reader: &mut ReadHalf<AgentStream>, shared: &Shared) -> GuestError {
    let mut decoder = Decoder::new(MAX_REPLY_PAYLOAD);
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        buffer.clear();
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return GuestError::Lost,
            Ok(_) => {}
            Err(error) => return error.into(),
        }
        decoder.feed(&buffer);
        loop {
            match decoder.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    if let Err(error) = shared.mux().take(&frame) {
                        return error;
                    }
                }
                Err(error) => return error.into(),
            }
        }
        decoder.shrink_to(READ_BYTES);
    }
}

async fn write_all(
    mut writer: WriteHalf<AgentStream>,
    mut queue: mpsc::UnboundedReceiver<Outgoing>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let written = async {
        // The queue is never closed: this task holds it open.
        while let Some(outgoing) = queue.recv().await {
            shared.waiting.fetch_sub(outgoing.waiting(), Ordering::Relaxed);
            writer.write_all(&outgoing.bytes).await?;
            if queue.is_empty() {
                writer.flush().await?;
            }
        }
        io::Result::Ok(())
    };
    let failed = tokio::select! {
        () = stop.cancelled() => None,
        written = written => written.err(),
    };
    if let Some(error) = failed {
        // What the agent has said before it went away is still to be read: the reader tells of the end, unless it
        // cannot.
        tracing::debug!(%error, "an agent takes nothing any more");
        shared.room.close();
    }
}

#[cfg(test)]
mod tests {
    use faas_guest_protocol::{FrameKind, Hello, LastingId, VERSION};
    use tokio::io::AsyncWriteExt as _;

    use super::{AgentClient, AgentStream, json};

    /// An agent that has greeted.
    async fn greeted() -> (AgentClient, tokio::io::DuplexStream) {
        let (here, mut there) = tokio::io::duplex(4096);
        let hello = Hello { version: VERSION, pid: 1, boot_id: 1 };
        there.write_all(&json(FrameKind::Hello, 0, &hello).unwrap()).await.unwrap();
        (AgentClient::connect(AgentStream::new(here)).await.unwrap(), there)
    }

    #[tokio::test]
    async fn an_agent_that_takes_nothing_is_given_up() {
        let (client, _silent) = greeted().await;
        let id = LastingId::new(1).unwrap();
        // Whoever asks goes away each time.
        let mut asked = 0;
        while client.is_open() {
            let signalled = client.signal(id, 10);
            tokio::pin!(signalled);
            assert!(matches!(futures_util::poll!(&mut signalled), std::task::Poll::Pending));
            tokio::task::yield_now().await;
            asked += 1;
            assert!(asked < 1_000_000, "it is asked without end");
        }
        assert!(client.signal(id, 10).await.is_err());
    }

    #[tokio::test]
    async fn frames_that_mean_nothing_end_the_connection() {
        for (kind, most) in [(FrameKind::Pong as u8, 1), (0xfe, 1025)] {
            let (client, mut there) = greeted().await;
            let frame = faas_guest_protocol::encode(kind, 0, &[]);
            for _ in 0..most {
                there.write_all(&frame).await.unwrap();
            }
            let error = client.list().await.unwrap_err();
            assert!(error.to_string().contains("protocol"), "{error}");
        }
    }
}
