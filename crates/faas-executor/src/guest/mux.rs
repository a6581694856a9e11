//! What an agent says on a connection that carries many lasting executions, checked frame by frame. No I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use faas_guest_protocol::lasting::{
    Attached, Done, Gap, LISTED_AT_ONCE, Listed, STDIN_WINDOW_BYTES, StdinTaken, cost,
};
use faas_guest_protocol::{
    AgentError, ExitReport, Frame, FrameKind, Hello, LastingId, OutputStream, Started,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::GuestError;
use super::reply::{Unknown, believable, greeting, parse, plain};

/// Pieces of one stream that wait one after the other are put together up to this length.
const MERGED_BYTES: usize = 64 << 10;

/// One event of a lasting execution's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastingEvent {
    /// Bytes of one stream.
    Output {
        /// Which.
        stream: OutputStream,
        /// The offset of the first of them.
        offset: u64,
        /// They.
        bytes: Vec<u8>,
    },
    /// Bytes that are not there any more.
    Gap {
        /// The offset of the first of them.
        from: u64,
        /// The offset after the last of them.
        to: u64,
    },
    /// The execution has ended: the last event.
    Exit(ExitReport),
}

/// Who waits for an answer.
pub(super) type Waiting<T> = oneshot::Sender<Result<T, GuestError>>;

fn answer<T>(waiting: Waiting<T>, result: Result<T, GuestError>) {
    // Who asked may have gone away.
    match waiting.send(result) {
        Ok(()) | Err(_) => {}
    }
}

/// What is answered in the order in which it was asked.
#[derive(Debug)]
pub(super) enum Request {
    Done(LastingId, Waiting<()>),
    List { after: u64, waiting: Waiting<Listed> },
}

/// Bytes of standard input on their way.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) bytes: u64,
    pub(super) waiting: Waiting<bool>,
    pub(super) _room: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Stdin {
    room: Arc<Semaphore>,
    parts: VecDeque<Part>,
}

/// One attachment.
#[derive(Debug)]
struct Incoming {
    /// Who asked for it, until that is answered.
    asked: Option<Waiting<Attached>>,
    /// The offset of what comes next.
    offset: u64,
    /// What the agent may have sent that nobody has taken yet.
    window: u64,
    /// What the agent may still send.
    credit: u64,
    /// Whether a gap came last.
    after_gap: bool,
    /// Whether the agent has been asked.
    is_sent: bool,
    /// Nobody wants it any more; its last frame is waited for.
    detaching: bool,
    queue: VecDeque<LastingEvent>,
    /// What the queue takes of the window.
    queued: u64,
    /// Why nothing comes after the queue.
    end: Option<GuestError>,
    is_over: bool,
    more: Arc<Notify>,
}

/// The state of one connection.
#[derive(Debug, Default)]
pub(super) struct Mux {
    greeted: bool,
    greeting: Option<Waiting<Hello>>,
    starts: HashMap<LastingId, Waiting<Started>>,
    requests: VecDeque<Request>,
    stdin: HashMap<LastingId, Stdin>,
    attachments: HashMap<u64, Incoming>,
    last_id: u64,
    unknown: Unknown,
    failed: Option<Arc<GuestError>>,
}

/// What an attachment has to say.
#[derive(Debug)]
pub(super) enum Next {
    /// An event, and what the agent is to be granted by now, if anything.
    Event(LastingEvent, Option<u64>),
    /// It has ended, and why, where that was not an event.
    End(Option<GuestError>),
    /// Nothing yet.
    Nothing,
}

/// What an event takes of an attachment's window: no less than what it holds.
fn weight(event: &LastingEvent) -> u64 {
    match event {
        LastingEvent::Output { bytes, .. } => cost(bytes.len()),
        LastingEvent::Gap { .. } | LastingEvent::Exit(_) => cost(0),
    }
}

const OUT_OF_ORDER: GuestError = GuestError::Protocol("a frame out of order");
const NOT_ASKED: GuestError = GuestError::Protocol("a frame of an execution that was not asked for");

impl Mux {
    /// Who waits for the greeting.
    pub(super) fn new(greeting: Waiting<Hello>) -> Self {
        Self { greeting: Some(greeting), ..Self::default() }
    }

    /// Why nothing can be asked any more.
    pub(super) fn check(&self) -> Result<(), GuestError> {
        self.failed.as_ref().map_or(Ok(()), |failed| Err(GuestError::Connection(Arc::clone(failed))))
    }

    /// An execution is about to be started. False: one of its id is being started already.
    pub(super) fn start(&mut self, id: LastingId, waiting: Waiting<Started>) -> bool {
        if self.starts.contains_key(&id) {
            return false;
        }
        self.starts.insert(id, waiting);
        true
    }

    pub(super) fn request(&mut self, request: Request) {
        self.requests.push_back(request);
    }

    /// The room for an execution's standard input.
    pub(super) fn stdin_room(&mut self, id: LastingId) -> Arc<Semaphore> {
        const WINDOW: usize = STDIN_WINDOW_BYTES as usize;
        let stdin = self
            .stdin
            .entry(id)
            .or_insert_with(|| Stdin { room: Arc::new(Semaphore::new(WINDOW)), parts: VecDeque::new() });
        Arc::clone(&stdin.room)
    }

    pub(super) fn stdin_sent(&mut self, id: LastingId, part: Part) {
        if let Some(stdin) = self.stdin.get_mut(&id) {
            stdin.parts.push_back(part);
        }
    }

    /// Nobody writes to an execution's standard input just now.
    pub(super) fn stdin_done(&mut self, id: LastingId) {
        if self.stdin.get(&id).is_some_and(|s| s.parts.is_empty() && Arc::strong_count(&s.room) == 1) {
            self.stdin.remove(&id);
        }
    }

    /// A new attachment: its id, and what tells that it has something to say.
    pub(super) fn attach(
        &mut self,
        offset: u64,
        window: u64,
        waiting: Waiting<Attached>,
    ) -> (u64, Arc<Notify>) {
        self.last_id += 1;
        let more = Arc::new(Notify::new());
        self.attachments.insert(
            self.last_id,
            Incoming {
                asked: Some(waiting),
                offset,
                window,
                credit: window,
                after_gap: false,
                is_sent: false,
                detaching: false,
                queue: VecDeque::new(),
                queued: 0,
                end: None,
                is_over: false,
                more: Arc::clone(&more),
            },
        );
        (self.last_id, more)
    }

    /// The agent is about to be asked for an attachment. False: nobody wants it any more.
    pub(super) fn attach_sent(&mut self, id: u64) -> bool {
        self.attachments.get_mut(&id).is_some_and(|incoming| {
            incoming.is_sent = true;
            true
        })
    }

    /// Nobody wants an attachment any more. Whether the agent has to be told.
    pub(super) fn detach(&mut self, id: u64) -> bool {
        let Some(incoming) = self.attachments.get_mut(&id) else { return false };
        if incoming.is_over || !incoming.is_sent || self.failed.is_some() {
            self.attachments.remove(&id);
            return false;
        }
        incoming.detaching = true;
        incoming.queue = VecDeque::new();
        true
    }

    /// The next event of an attachment.
    pub(super) fn next(&mut self, id: u64) -> Next {
        let Some(incoming) = self.attachments.get_mut(&id) else { return Next::End(None) };
        match incoming.queue.pop_front() {
            Some(event) => {
                incoming.queued -= weight(&event);
                let due =
                    incoming.window - incoming.credit.saturating_add(incoming.queued).min(incoming.window);
                let granted = (due >= incoming.window / 2 && !incoming.is_over).then_some(due);
                incoming.credit += granted.unwrap_or(0);
                Next::Event(event, granted)
            }
            None if incoming.is_over => Next::End(incoming.end.take()),
            None => match &self.failed {
                Some(failed) => Next::End(Some(GuestError::Connection(Arc::clone(failed)))),
                None => Next::Nothing,
            },
        }
    }

    /// Nothing comes any more: everybody who waits is told.
    pub(super) fn fail(&mut self, error: GuestError) {
        if self.failed.is_some() {
            return;
        }
        let error = Arc::new(error);
        let of = || GuestError::Connection(Arc::clone(&error));
        self.greeting.take().into_iter().for_each(|waiting| answer(waiting, Err(of())));
        self.starts.drain().for_each(|(_, waiting)| answer(waiting, Err(of())));
        for request in self.requests.drain(..) {
            match request {
                Request::Done(_, waiting) => answer(waiting, Err(of())),
                Request::List { waiting, .. } => answer(waiting, Err(of())),
            }
        }
        for (_, stdin) in self.stdin.drain() {
            stdin.room.close();
            stdin.parts.into_iter().for_each(|part| answer(part.waiting, Err(of())));
        }
        self.attachments.retain(|_, incoming| !incoming.detaching);
        for incoming in self.attachments.values_mut() {
            incoming.asked.take().into_iter().for_each(|waiting| answer(waiting, Err(of())));
            incoming.more.notify_one();
        }
        self.failed = Some(error);
    }

    /// Takes in one frame. An error ends the connection.
    pub(super) fn take(&mut self, frame: &Frame) -> Result<(), GuestError> {
        if !self.greeted {
            let hello = greeting(frame)?;
            if hello.boot_id == 0 {
                return Err(GuestError::Protocol("it is too old for lasting executions"));
            }
            self.greeted = true;
            self.greeting.take().into_iter().for_each(|waiting| answer(waiting, Ok(hello.clone())));
            return Ok(());
        }
        let Some(kind) = FrameKind::from_byte(frame.kind) else {
            return self.unknown.one_more();
        };
        match (LastingId::from_wire(frame.exec_id), kind) {
            (Some(id), FrameKind::Started | FrameKind::Error) => self.take_start(id, kind, frame),
            (Some(id), FrameKind::Done) => self.take_done(id, parse(&frame.payload)?),
            (Some(id), FrameKind::StdinTaken) => self.take_stdin_taken(id, parse(&frame.payload)?),
            (None, FrameKind::Listed) if frame.exec_id == 0 => self.take_listed(parse(&frame.payload)?),
            (None, _) => {
                let incoming = self.attachments.get_mut(&frame.exec_id).ok_or(NOT_ASKED)?;
                if incoming.take(kind, frame)? && incoming.detaching {
                    self.attachments.remove(&frame.exec_id);
                }
                Ok(())
            }
            (Some(_), _) => Err(OUT_OF_ORDER),
        }
    }

    fn take_start(&mut self, id: LastingId, kind: FrameKind, frame: &Frame) -> Result<(), GuestError> {
        let result = match kind {
            FrameKind::Started => Ok(parse::<Started>(&frame.payload)?),
            _ => Err(GuestError::Agent(plain(parse::<AgentError>(&frame.payload)?))),
        };
        answer(self.starts.remove(&id).ok_or(NOT_ASKED)?, result);
        Ok(())
    }

    fn take_done(&mut self, id: LastingId, done: Done) -> Result<(), GuestError> {
        match self.requests.pop_front() {
            Some(Request::Done(asked, waiting)) if asked == id => {
                answer(waiting, done.error.map_or(Ok(()), |error| Err(GuestError::Agent(plain(error)))));
                Ok(())
            }
            _ => Err(OUT_OF_ORDER),
        }
    }

    fn take_listed(&mut self, listed: Listed) -> Result<(), GuestError> {
        let Some(Request::List { after, waiting }) = self.requests.pop_front() else {
            return Err(OUT_OF_ORDER);
        };
        let mut last = after;
        for execution in &listed.executions {
            let is_one = LastingId::new(execution.id).is_some()
                && execution.id > last
                && execution.first_offset <= execution.next_offset;
            if !is_one {
                return Err(GuestError::Protocol("a list that cannot be"));
            }
            if let Some(exit) = &execution.exit {
                believable(exit.clone())?;
            }
            last = execution.id;
        }
        if listed.executions.len() > LISTED_AT_ONCE || (listed.more && listed.executions.is_empty()) {
            return Err(GuestError::Protocol("a list that cannot be"));
        }
        answer(waiting, Ok(listed));
        Ok(())
    }

    fn take_stdin_taken(&mut self, id: LastingId, taken: StdinTaken) -> Result<(), GuestError> {
        let part = self.stdin.get_mut(&id).and_then(|stdin| stdin.parts.pop_front()).ok_or(NOT_ASKED)?;
        if part.bytes != taken.bytes {
            return Err(GuestError::Protocol("input that was not sent"));
        }
        answer(part.waiting, Ok(taken.taken));
        self.stdin_done(id);
        Ok(())
    }
}

impl Incoming {
    /// Whether it is the last frame.
    fn take(&mut self, kind: FrameKind, frame: &Frame) -> Result<bool, GuestError> {
        match (kind, self.asked.take()) {
            _ if self.is_over => return Err(OUT_OF_ORDER),
            (FrameKind::Attached, Some(waiting)) => {
                let attached: Attached = parse(&frame.payload)?;
                if attached.first_offset > attached.next_offset || attached.next_offset < self.offset {
                    return Err(GuestError::Protocol("output that cannot be"));
                }
                answer(waiting, Ok(attached));
                return Ok(false);
            }
            (FrameKind::Error, asked) => {
                let error = GuestError::Agent(plain(parse(&frame.payload)?));
                match asked {
                    Some(waiting) => answer(waiting, Err(error)),
                    None => self.end = Some(error),
                }
                return Ok(self.is_over());
            }
            (FrameKind::Detached, _) if self.detaching => return Ok(self.is_over()),
            (_, Some(_)) => return Err(OUT_OF_ORDER),
            (FrameKind::Stdout, None) => self.output(OutputStream::Stdout, &frame.payload)?,
            (FrameKind::Stderr, None) => self.output(OutputStream::Stderr, &frame.payload)?,
            (FrameKind::Gap, None) => {
                self.pay(frame.payload.len())?;
                let gap: Gap = parse(&frame.payload)?;
                if self.after_gap || gap.from != self.offset || gap.to <= gap.from {
                    return Err(GuestError::Protocol("a gap that cannot be"));
                }
                self.offset = gap.to;
                self.after_gap = true;
                self.push(LastingEvent::Gap { from: gap.from, to: gap.to });
            }
            (FrameKind::Exit, None) => {
                let report = believable(parse(&frame.payload)?)?;
                self.push(LastingEvent::Exit(report));
                return Ok(self.is_over());
            }
            (_, None) => return Err(OUT_OF_ORDER),
        }
        Ok(false)
    }

    fn is_over(&mut self) -> bool {
        self.is_over = true;
        self.more.notify_one();
        true
    }

    fn pay(&mut self, payload: usize) -> Result<(), GuestError> {
        let left = self.credit.checked_sub(cost(payload));
        self.credit = left.ok_or(GuestError::Protocol("more output than was asked for"))?;
        Ok(())
    }

    fn output(&mut self, stream: OutputStream, said: &[u8]) -> Result<(), GuestError> {
        self.pay(said.len())?;
        let end = self.offset.checked_add(said.len() as u64);
        let (false, Some(end)) = (said.is_empty(), end) else {
            return Err(GuestError::Protocol("output that cannot be"));
        };
        let offset = std::mem::replace(&mut self.offset, end);
        self.after_gap = false;
        if self.detaching {
            return Ok(());
        }
        match self.queue.back_mut() {
            Some(LastingEvent::Output { stream: last, bytes, .. })
                if *last == stream && bytes.len() + said.len() <= MERGED_BYTES =>
            {
                bytes.extend_from_slice(said);
                self.queued += said.len() as u64;
            }
            _ => self.push(LastingEvent::Output { stream, offset, bytes: said.to_vec() }),
        }
        Ok(())
    }

    fn push(&mut self, event: LastingEvent) {
        if !self.detaching {
            self.queued += weight(&event);
            self.queue.push_back(event);
            self.more.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use faas_guest_protocol::lasting::{Attached, Done, Gap, Listed, ListedExecution, StdinTaken};
    use faas_guest_protocol::{
        ExitReport, Frame, FrameKind, Hello, LastingId, OutputStream, Started, VERSION,
    };
    use proptest::prelude::*;
    use serde::Serialize;
    use tokio::sync::oneshot;

    use super::{GuestError, LastingEvent, Mux, Next, Part, Request, cost};

    const WINDOW: u64 = 1000;

    fn raw(kind: FrameKind, exec_id: u64, payload: &[u8]) -> Frame {
        Frame { kind: kind as u8, exec_id, payload: payload.to_vec() }
    }

    fn frame(kind: FrameKind, exec_id: u64, message: &impl Serialize) -> Frame {
        raw(kind, exec_id, &serde_json::to_vec(message).unwrap())
    }

    fn id(number: u64) -> LastingId {
        LastingId::new(number).unwrap()
    }

    fn greeted() -> Mux {
        let mut mux = Mux::new(oneshot::channel().0);
        let hello = Hello { version: VERSION, pid: 3, boot_id: 9 };
        mux.take(&frame(FrameKind::Hello, 0, &hello)).unwrap();
        mux
    }

    /// One that is attached from offset 10 on.
    fn attached() -> (Mux, u64) {
        let mut mux = greeted();
        let (id, _more) = mux.attach(10, WINDOW, oneshot::channel().0);
        assert!(mux.attach_sent(id));
        let attached = Attached { pid: 5, first_offset: 0, next_offset: 10 };
        mux.take(&frame(FrameKind::Attached, id, &attached)).unwrap();
        (mux, id)
    }

    fn broken(result: Result<(), GuestError>) -> bool {
        matches!(result, Err(GuestError::Protocol(_)))
    }

    fn event(mux: &mut Mux, id: u64) -> LastingEvent {
        match mux.next(id) {
            Next::Event(event, _) => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn output_has_offsets_and_pieces_of_one_stream_come_together() {
        let (mut mux, at) = attached();
        for (kind, said) in [(FrameKind::Stdout, "ab"), (FrameKind::Stdout, "c"), (FrameKind::Stderr, "d")] {
            mux.take(&raw(kind, at, said.as_bytes())).unwrap();
        }
        mux.take(&frame(FrameKind::Gap, at, &Gap { from: 14, to: 20 })).unwrap();
        mux.take(&raw(FrameKind::Stdout, at, b"e")).unwrap();
        let exit = ExitReport { code: Some(3), ..ExitReport::default() };
        mux.take(&frame(FrameKind::Exit, at, &exit)).unwrap();
        let output = |stream, offset, said: &str| LastingEvent::Output { stream, offset, bytes: said.into() };
        assert_eq!(event(&mut mux, at), output(OutputStream::Stdout, 10, "abc"));
        assert_eq!(event(&mut mux, at), output(OutputStream::Stderr, 13, "d"));
        assert_eq!(event(&mut mux, at), LastingEvent::Gap { from: 14, to: 20 });
        assert_eq!(event(&mut mux, at), output(OutputStream::Stdout, 20, "e"));
        assert_eq!(event(&mut mux, at), LastingEvent::Exit(exit));
        assert!(matches!(mux.next(at), Next::End(None)));
    }

    #[test]
    fn more_output_than_was_granted_is_refused() {
        let (mut mux, at) = attached();
        let piece = [0; 484];
        for _ in 0..2 {
            mux.take(&raw(FrameKind::Stdout, at, &piece)).unwrap();
        }
        assert!(broken(mux.take(&raw(FrameKind::Stdout, at, b""))));
        let Next::Event(_, granted) = mux.next(at) else { panic!() };
        // All of it: the two were put together, and are taken.
        assert_eq!(granted, Some(WINDOW));
        mux.take(&raw(FrameKind::Stdout, at, &[0; 984])).unwrap();
        assert!(broken(mux.take(&raw(FrameKind::Stdout, at, b"x"))));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (from, to) in [(9, 12), (11, 12), (10, 10), (10, 5)] {
            let (mut mux, at) = attached();
            assert!(broken(mux.take(&frame(FrameKind::Gap, at, &Gap { from, to }))), "{from} {to}");
        }
        let (mut mux, at) = attached();
        assert!(broken(mux.take(&raw(FrameKind::Stdout, at, b""))), "nothing, and again and again");
        let (mut mux, at) = attached();
        assert!(broken(mux.take(&raw(FrameKind::Stdout, at + 1, b"x"))), "another attachment");
        let (mut mux, at) = attached();
        assert!(broken(mux.take(&raw(FrameKind::Detached, at, b""))), "nobody detached it");
        let (mut mux, at) = attached();
        let exit = ExitReport { code: Some(300), ..ExitReport::default() };
        assert!(broken(mux.take(&frame(FrameKind::Exit, at, &exit))));
        assert!(broken(greeted().take(&frame(FrameKind::Started, id(1).to_wire(), &Started { pid: 1 }))));
        assert!(broken(greeted().take(&frame(FrameKind::Done, id(1).to_wire(), &Done { error: None }))));
        let mut mux = greeted();
        mux.request(Request::List { after: 5, waiting: oneshot::channel().0 });
        let listed = |id| ListedExecution { id, pid: 1, first_offset: 0, next_offset: 0, exit: None };
        let list = Listed { executions: vec![listed(5)], more: false };
        assert!(broken(mux.take(&frame(FrameKind::Listed, 0, &list))), "not after what was asked");
        let mut old = Mux::new(oneshot::channel().0);
        let hello = Hello { version: VERSION, pid: 3, boot_id: 0 };
        assert!(broken(old.take(&frame(FrameKind::Hello, 0, &hello))));
    }

    #[test]
    fn answers_come_in_the_order_of_the_questions() {
        let mut mux = greeted();
        let ((first, mut is_first), (second, mut is_second)) = (oneshot::channel(), oneshot::channel());
        mux.request(Request::Done(id(1), first));
        mux.request(Request::Done(id(2), second));
        mux.take(&frame(FrameKind::Done, id(1).to_wire(), &Done { error: None })).unwrap();
        assert!(is_first.try_recv().unwrap().is_ok() && is_second.try_recv().is_err());
        assert!(broken(mux.take(&frame(FrameKind::Done, id(1).to_wire(), &Done { error: None }))));
    }

    #[test]
    fn everybody_who_waits_learns_that_the_connection_ended() {
        let (mut mux, at) = attached();
        let (start, mut started) = oneshot::channel();
        assert!(mux.start(id(1), start));
        let (done, mut is_done) = oneshot::channel();
        mux.request(Request::Done(id(1), done));
        let room = mux.stdin_room(id(1));
        let (part, mut taken) = oneshot::channel();
        let _room = std::sync::Arc::clone(&room).try_acquire_many_owned(3).unwrap();
        mux.stdin_sent(id(1), Part { bytes: 3, waiting: part, _room });
        mux.take(&raw(FrameKind::Stdout, at, b"last")).unwrap();
        mux.fail(GuestError::Lost);
        let lost = |error: &GuestError| matches!(error, GuestError::Connection(why) if matches!(**why, GuestError::Lost));
        assert!(lost(&started.try_recv().unwrap().unwrap_err()));
        assert!(lost(&is_done.try_recv().unwrap().unwrap_err()));
        assert!(lost(&taken.try_recv().unwrap().unwrap_err()));
        assert!(room.is_closed());
        assert!(matches!(event(&mut mux, at), LastingEvent::Output { .. }), "what came before is there");
        assert!(matches!(mux.next(at), Next::End(Some(error)) if lost(&error)));
        assert!(mux.check().is_err());
    }

    #[test]
    fn a_detached_one_is_over_with_its_last_frame_and_holds_nothing() {
        let (mut mux, at) = attached();
        mux.take(&raw(FrameKind::Stdout, at, b"x")).unwrap();
        assert!(mux.detach(at));
        mux.take(&raw(FrameKind::Stdout, at, b"y")).unwrap();
        mux.take(&raw(FrameKind::Detached, at, b"")).unwrap();
        assert!(broken(mux.take(&raw(FrameKind::Stdout, at, b"z"))));
        assert!(mux.attachments.is_empty());
        let (at, _more) = mux.attach(0, WINDOW, oneshot::channel().0);
        assert!(!mux.detach(at) && !mux.attach_sent(at), "the agent was never asked");
        assert!(mux.attachments.is_empty());
    }

    proptest! {
        #[test]
        fn no_frames_make_it_panic_or_hold_more_than_the_window(
            frames in proptest::collection::vec(
                (prop_oneof![Just(66u8), Just(67), Just(72), any::<u8>()], 0u64..3, any::<bool>(),
                 proptest::collection::vec(any::<u8>(), 0..64), any::<bool>()),
                0..400,
            ),
        ) {
            let (mut mux, at) = attached();
            mux.start(id(1), oneshot::channel().0);
            mux.request(Request::Done(id(1), oneshot::channel().0));
            let _room = mux.stdin_room(id(1));
            for (kind, exec_id, is_lasting, payload, takes) in frames {
                let exec_id = if is_lasting { exec_id | 1 << 63 } else { exec_id };
                if mux.take(&Frame { kind, exec_id, payload }).is_err() {
                    break;
                }
                if takes {
                    mux.next(at);
                }
                let incoming = &mux.attachments[&at];
                let held: u64 = incoming.queue.iter().map(super::weight).sum();
                prop_assert_eq!(held, incoming.queued);
                prop_assert!(held <= WINDOW);
            }
        }
    }

    #[test]
    fn input_is_done_with_as_it_was_sent() {
        let mut mux = greeted();
        let room = mux.stdin_room(id(1));
        let (part, mut taken) = oneshot::channel();
        let _room = std::sync::Arc::clone(&room).try_acquire_many_owned(3).unwrap();
        drop(room);
        mux.stdin_sent(id(1), Part { bytes: 3, waiting: part, _room });
        mux.take(&frame(FrameKind::StdinTaken, id(1).to_wire(), &StdinTaken { bytes: 3, taken: true }))
            .unwrap();
        assert!(taken.try_recv().unwrap().unwrap());
        assert!(broken(mux.take(&frame(
            FrameKind::StdinTaken,
            id(1).to_wire(),
            &StdinTaken { bytes: 3, taken: true }
        ))));
        assert_eq!(cost(0), 16);
    }
}
