//! The agent's loop: one thread, many clients, many executions.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use faas_guest_protocol::{AgentError, AgentErrorKind, ExecRequest, ExecSignal, Frame, FrameKind, Frozen};
use faas_guest_protocol::{LastingId, lasting};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Resource, WaitOptions};

use crate::agent_lasting::Held;
use crate::attachment::Attachment;
use crate::connection::{Closed, Connection};
use crate::execution::{Execution, State};
use crate::keeper::Link;
use crate::lasting::LastingExecution;
use crate::output::Sink;
use crate::receiving::error;
use crate::running::Taken;
use crate::sys;

/// Where the gateway finds the agent.
const SOCKET: &str = "/.faas/run/agent.sock";

/// The most executions at once, whatever the limit of descriptors.
const MAX_EXECUTIONS: u64 = 4096;

/// Descriptors of one execution: three pipes, and both ends of each while it starts.
const FDS_PER_EXECUTION: u64 = 3;

/// Descriptors kept free for clients, files and the start of an execution.
const FDS_KEPT: u64 = 64;

/// How long no client is accepted after one could not be, for want of descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// How much may wait for a client before no more is read of what its own programs say: they wait in its place, and
/// nobody else does.
const CLIENT_OUTPUT_BYTES: usize = 256 * 1024;

/// The most that is read of a pipe or a socket at once; also the largest output frame.
const BUFFER_BYTES: usize = 64 * 1024;

pub(crate) struct Agent {
    listener: Option<OwnedFd>,
    /// Until when the listener is left alone.
    accept_after: Option<Instant>,
    max_executions: usize,
    children: OwnedFd,
    pub(crate) clients: BTreeMap<u64, Connection>,
    next_client: u64,
    executions: Vec<Execution>,
    /// By their ids as they stand in a header.
    pub(crate) lasting: BTreeMap<u64, LastingExecution>,
    /// Those of them that have ended, the first one first.
    pub(crate) ended: VecDeque<u64>,
    pub(crate) attachments: Vec<Attachment>,
    boot_id: u64,
    pub(crate) buffer: Vec<u8>,
}

/// What a descriptor that is polled belongs to.
#[derive(Clone, Copy)]
enum Source {
    Listener,
    Children,
    Client(u64),
    /// An execution by its place, and which of its outputs.
    Output(usize, usize),
    Stdin(usize),
    /// The same of a lasting execution, by its id.
    LastingOutput(u64, usize),
    LastingStdin(u64),
}

/// Serves until the process ends. `first` is a connection that is there already: a socket, or two ends of pipes.
pub(crate) fn run(first: Option<(OwnedFd, Option<OwnedFd>)>, link: Link) -> ! {
    let (Ok(children), Ok(boot_id)) = (sys::child_events(), sys::random()) else { sys::exit(1) };
    let mut agent = Agent {
        listener: None,
        accept_after: None,
        max_executions: max_executions(),
        children,
        clients: BTreeMap::new(),
        next_client: 1,
        executions: Vec::new(),
        lasting: BTreeMap::new(),
        ended: VecDeque::new(),
        attachments: Vec::new(),
        boot_id,
        buffer: Vec::with_capacity(BUFFER_BYTES),
    };
    if let Some((input, output)) = first {
        // The first order is usually there already: the gateway does not wait for the greeting.
        agent.greet(input, output);
    }
    if link == Link::Socket {
        agent.listener = listen();
    }
    loop {
        if agent.listener.is_none() && agent.clients.is_empty() {
            // Nobody can reach it: perhaps the next one can.
            sys::exit(1);
        }
        agent.turn();
    }
}

/// How many executions the limit of descriptors leaves room for.
fn max_executions() -> usize {
    let fds = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let fit = (fds.saturating_sub(FDS_KEPT) / FDS_PER_EXECUTION).clamp(1, MAX_EXECUTIONS);
    usize::try_from(fit).unwrap_or(1)
}

/// Binds the agent's socket. Without one the agent serves the connections that it has.
fn listen() -> Option<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    // One that an agent before this one left.
    match std::fs::remove_file(SOCKET) {
        Ok(()) | Err(_) => {}
    }
    // The gateway of an ordinary user is none of the sandbox's users. Who comes to it is up to its directory, and who is
    // served to `accept`. It is everybody's from the start, so that nobody is turned away in the moment before a chmod.
    let address = SocketAddrUnix::new(SOCKET).ok()?;
    let before = rustix::process::umask(rustix::fs::Mode::empty());
    let bound = rustix::net::bind(&socket, &address);
    rustix::process::umask(before);
    bound.ok()?;
    rustix::net::listen(&socket, 64).ok()?;
    Some(socket)
}

pub(crate) fn bad_request(message: impl Into<String>) -> AgentError {
    error(AgentErrorKind::BadRequest, 0, message)
}

impl Agent {
    fn turn(&mut self) {
        let mut sources = Vec::new();
        let held = self.held(Instant::now());
        let ready: Vec<(Source, PollFlags)> = {
            let mut fds = Vec::new();
            let mut add = |source, fd, flags| {
                sources.push(source);
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            };
            add(Source::Children, self.children.as_fd(), PollFlags::IN);
            if let (Some(listener), None) = (&self.listener, self.accept_after) {
                add(Source::Listener, listener.as_fd(), PollFlags::IN);
            }
            for client in self.clients.values() {
                let mut flags = PollFlags::RDHUP;
                if !self.is_held_back(client.id) {
                    flags |= PollFlags::IN;
                }
                match client.output() {
                    Some(output) if client.has_output() => {
                        add(Source::Client(client.id), output, PollFlags::OUT);
                    }
                    None if client.has_output() => flags |= PollFlags::OUT,
                    _ => {}
                }
                add(Source::Client(client.id), client.as_fd(), flags);
            }
            for (place, execution) in self.executions.iter().enumerate() {
                let State::Running(running) = &execution.state else { continue };
                for (which, output) in running.outputs.iter().enumerate() {
                    if let (Some(pipe), false) = (output.pipe(), self.is_behind(execution.client)) {
                        add(Source::Output(place, which), pipe.as_fd(), PollFlags::IN);
                    }
                }
                if let (Some(pipe), true) = (&running.stdin, running.has_pending_stdin()) {
                    add(Source::Stdin(place), pipe.as_fd(), PollFlags::OUT);
                }
            }
            for (id, execution) in &self.lasting {
                let State::Running(running) = &execution.state else { continue };
                let is_held =
                    held.get(id).is_some_and(|held| held.is_full(execution, self.buffer.capacity()));
                // What one that has ended has left is read by `finish_lasting`.
                if !is_held && !running.has_ended() {
                    for (which, output) in running.outputs.iter().enumerate() {
                        if let Some(pipe) = output.pipe() {
                            add(Source::LastingOutput(*id, which), pipe.as_fd(), PollFlags::IN);
                        }
                    }
                }
                if let (Some(pipe), true) = (&running.stdin, running.has_pending_stdin()) {
                    add(Source::LastingStdin(*id), pipe.as_fd(), PollFlags::OUT);
                }
            }
            match rustix::event::poll(&mut fds, self.next_deadline(&held).as_ref()) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => return,
                // Out of memory, at most: there may be some in a moment.
                Err(_) => sys::sleep_ms(5),
            }
            let events: Vec<_> = fds.iter().map(PollFd::revents).collect();
            sources.into_iter().zip(events).filter(|(_, flags)| !flags.is_empty()).collect()
        };
        // Output before ends and before new orders, so that what a program wrote is passed on in order.
        for (source, _) in &ready {
            match *source {
                Source::Output(place, which) => self.read_output(place, which),
                Source::Stdin(place) => {
                    if let Some(Execution { state: State::Running(running), .. }) =
                        self.executions.get_mut(place)
                    {
                        running.write_stdin();
                    }
                }
                Source::LastingOutput(id, which) => {
                    // The other stream may have taken the room just now.
                    let most = self.buffer.capacity();
                    if let Some(execution) = self.lasting.get_mut(&id)
                        && !held.get(&id).is_some_and(|held| held.is_full(execution, most))
                    {
                        execution.read_output(which, &mut self.buffer);
                    }
                }
                Source::LastingStdin(id) => {
                    let running = self.lasting.get_mut(&id).and_then(LastingExecution::running);
                    let taken = running.map(|running| running.write_stdin()).unwrap_or_default();
                    self.tell_taken(id, taken);
                }
                Source::Children | Source::Listener | Source::Client(_) => {}
            }
        }
        for (source, flags) in &ready {
            match *source {
                Source::Children => self.reap(),
                Source::Listener => self.accept(),
                Source::Client(id) => {
                    if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR | PollFlags::RDHUP) {
                        self.serve_client(id);
                    }
                }
                Source::Output(..)
                | Source::Stdin(_)
                | Source::LastingOutput(..)
                | Source::LastingStdin(_) => {}
            }
        }
        let now = Instant::now();
        self.accept_after = self.accept_after.filter(|after| now < *after);
        for execution in &mut self.executions {
            if let State::Running(running) = &mut execution.state {
                running.check_deadline(now);
            }
        }
        for execution in self.lasting.values_mut() {
            match execution.running() {
                Some(running) if !running.has_ended() => running.check_deadline(now),
                _ => {}
            }
        }
        let mut has_ended = self.finish_and_send(now);
        let before = self.executions.len();
        self.executions.retain(|execution| !matches!(execution.state, State::Over));
        has_ended |= before > 0;
        if has_ended && self.executions.is_empty() {
            sys::trim_heap();
        }
    }

    /// Whether a client's next bytes must wait: one of its programs does not read its standard input.
    fn is_held_back(&self, client: u64) -> bool {
        self.executions.iter().any(|execution| {
            execution.client == client
                && matches!(&execution.state, State::Running(running) if running.stdin_is_full())
        })
    }

    /// Whether a client has so much to read still that it gets no more.
    fn is_behind(&self, client: u64) -> bool {
        self.clients.get(&client).is_some_and(|client| client.pending_bytes() >= CLIENT_OUTPUT_BYTES)
    }

    fn next_deadline(&self, held: &BTreeMap<u64, Held>) -> Option<Timespec> {
        let bound = self.executions.iter().map(|execution| &execution.state);
        let lasting = self.lasting.values().map(|execution| &execution.state);
        let deadline = bound.chain(lasting).filter_map(|state| match state {
            State::Running(running) => running.deadline,
            State::Receiving(_) | State::Over => None,
        });
        let patience = held.values().filter_map(|held| held.until);
        let earliest = deadline.chain(self.accept_after).chain(patience).min()?;
        let left = earliest.saturating_duration_since(Instant::now());
        Timespec::try_from(left).ok()
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let socket = match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(socket) => socket,
            // The client was gone before it was served.
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {
                return;
            }
            // The client stays in the queue, so the listener stays readable.
            Err(_) => {
                self.accept_after = Some(Instant::now() + ACCEPT_REST);
                return;
            }
        };
        // A peer outside of this PID namespace has no PID in it. Everybody inside is refused.
        if sys::peer_pid(&socket).is_ok_and(|pid| pid == 0) {
            self.greet(socket, None);
        }
    }

    fn greet(&mut self, input: OwnedFd, output: Option<OwnedFd>) {
        let id = self.next_client;
        self.next_client += 1;
        let Ok(mut client) = Connection::new(id, input, output, self.boot_id) else { return };
        let greeted = client.flush();
        self.clients.insert(id, client);
        // What is there already is heard before any deadline is looked at: where the sandbox was frozen it says so. Who
        // said it may have gone since, without waiting for the greeting.
        self.serve_client(id);
        if greeted.is_err() {
            self.forget_client(id);
        }
    }

    fn serve_client(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        match client.read(&mut self.buffer) {
            Ok(frames) => frames.into_iter().for_each(|frame| self.handle(id, frame)),
            Err(Closed) => self.forget_client(id),
        }
    }

    /// Ends what a client that is gone had started, but lasting executions and what may come to its end by itself.
    pub(crate) fn forget_client(&mut self, id: u64) {
        self.clients.remove(&id);
        self.attachments.retain(|attachment| attachment.client != id);
        self.lasting.retain(|_, execution| !execution.is_abandoned_by(id));
        for execution in self.executions.iter_mut().filter(|execution| execution.client == id) {
            execution.abandon();
        }
    }

    fn handle(&mut self, client_id: u64, frame: Frame) {
        if LastingId::from_wire(frame.exec_id).is_some() {
            return self.handle_lasting(client_id, &frame);
        }
        let is_attachment = self.attachment(client_id, frame.exec_id).is_some();
        let Some(client) = self.clients.get_mut(&client_id) else { return };
        let own = |execution: &&mut Execution| execution.client == client_id && execution.id == frame.exec_id;
        let execution = self.executions.iter_mut().find(own);
        let id = frame.exec_id;
        match (FrameKind::from_byte(frame.kind), execution) {
            (Some(FrameKind::Exec), None) if !is_attachment => {
                match serde_json::from_slice::<ExecRequest>(&frame.payload) {
                    Ok(request) if request.lasting.is_some() => {
                        let failed = bad_request("the id is no lasting execution's");
                        client.queue(FrameKind::Error, id, &failed);
                    }
                    Ok(request) => match self.refuse_more() {
                        None => self.begin(id, request, client_id),
                        Some(failed) => self.queue(client_id, FrameKind::Error, id, &failed),
                    },
                    Err(error) => client.queue(FrameKind::Error, id, &bad_request(error.to_string())),
                }
            }
            (Some(FrameKind::Attach), None) if !is_attachment => {
                match serde_json::from_slice::<lasting::Attach>(&frame.payload) {
                    Ok(asked) => self.attach(client_id, id, &asked),
                    Err(error) => client.queue(FrameKind::Error, id, &bad_request(error.to_string())),
                }
            }
            (Some(FrameKind::Detach), None) if is_attachment => {
                let is_it = |other: &Attachment| other.client == client_id && other.id == id;
                self.attachments.retain(|attachment| !is_it(attachment));
                client.queue_bytes(FrameKind::Detached, id, &[]);
            }
            (Some(FrameKind::Credit), None) if is_attachment => {
                let credit = serde_json::from_slice::<lasting::Credit>(&frame.payload);
                if let (Ok(credit), Some(attachment)) = (credit, self.attachment(client_id, id)) {
                    attachment.grant(credit.bytes);
                }
            }
            (Some(FrameKind::List), None) => match serde_json::from_slice::<lasting::List>(&frame.payload) {
                Ok(asked) => self.list(client_id, id, asked),
                Err(error) => client.queue(FrameKind::Error, id, &bad_request(error.to_string())),
            },
            (Some(FrameKind::FileData), Some(execution)) => execution.take_file_bytes(&frame.payload, client),
            (Some(FrameKind::Stdin), Some(execution)) => execution.take_stdin(&frame.payload),
            (Some(FrameKind::StdinEof), Some(execution)) => execution.end_stdin(),
            (Some(FrameKind::Cancel), Some(execution)) => execution.cancel(Some(client)),
            (Some(FrameKind::Signal), Some(execution)) => {
                if let (Ok(order), State::Running(running)) =
                    (serde_json::from_slice::<ExecSignal>(&frame.payload), &execution.state)
                {
                    sys::send_signal(running.pid, order.signal);
                }
            }
            (Some(FrameKind::Frozen), _) => {
                if let Ok(frozen) = serde_json::from_slice::<Frozen>(&frame.payload) {
                    let bound = self.executions.iter_mut().map(|execution| &mut execution.state);
                    let lasting = self.lasting.values_mut().map(|execution| &mut execution.state);
                    for state in bound.chain(lasting) {
                        if let State::Running(running) = state {
                            running.add_time(Duration::from_millis(frozen.ms));
                        }
                    }
                }
            }
            (Some(FrameKind::Ping), _) => {
                let payload = &frame.payload[..frame.payload.len().min(64)];
                client.queue_bytes(FrameKind::Pong, id, payload);
            }
            // Of a newer gateway, for an execution that is over, or an id that is in use: passed over.
            _ => {}
        }
    }

    fn begin(&mut self, id: u64, request: ExecRequest, client: u64) {
        if let Some(client) = self.clients.get_mut(&client) {
            self.executions.push(Execution::begin(id, request, client));
        }
    }

    /// Why there can be no further execution.
    pub(crate) fn refuse_more(&self) -> Option<AgentError> {
        let run = self.executions.len() + self.lasting.len() - self.ended.len();
        (run >= self.max_executions).then(|| AgentError {
            kind: AgentErrorKind::Limit,
            message: format!("{run} executions run already"),
            errno: 0,
        })
    }

    pub(crate) fn queue(&mut self, client: u64, kind: FrameKind, id: u64, message: &impl serde::Serialize) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.queue(kind, id, message);
        }
    }

    fn read_output(&mut self, place: usize, which: usize) {
        let Self { executions, clients, buffer, .. } = self;
        let Some(Execution { id, client, state: State::Running(running), .. }) = executions.get_mut(place)
        else {
            return;
        };
        let mut sink = clients.get_mut(client).map_or(Sink::Nowhere, |client| Sink::Client(client, *id));
        running.outputs[which].read(buffer, &mut sink);
    }

    fn reap(&mut self) {
        // What it says does not matter, only that it is read.
        let mut events = [0u8; size_of::<libc::signalfd_siginfo>() * 8];
        while let Ok(1..) = rustix::io::read(&self.children, &mut events) {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let Self { executions, clients, buffer, .. } = self;
            let is_it = |state: &State| match state {
                State::Running(running) => running.pid == pid && !running.has_ended(),
                State::Receiving(_) | State::Over => false,
            };
            if let Some(execution) = executions.iter_mut().find(|execution| is_it(&execution.state)) {
                execution.finish(status, buffer, clients.get_mut(&execution.client));
            } else if let Some((id, execution)) =
                self.lasting.iter_mut().find(|(_, execution)| is_it(&execution.state))
            {
                let (id, taken) = (*id, execution.end(status));
                self.tell_taken(id, taken);
            }
        }
    }

    /// Reads what those that have ended have left, and sends what there is, as far as there is room: each makes room for
    /// the other, and nothing would tell of that later. Whether a lasting execution is over by that.
    fn finish_and_send(&mut self, now: Instant) -> bool {
        let mut has_ended = false;
        loop {
            has_ended |= self.finish_lasting(now);
            let queued = self.feed_attachments(now);
            let sent = self.flush_all();
            if !queued && !sent {
                return has_ended;
            }
        }
    }

    pub(crate) fn tell_taken(&mut self, id: u64, taken: Vec<Taken>) {
        for Taken { client, bytes, taken } in taken {
            self.queue(client, FrameKind::StdinTaken, id, &lasting::StdinTaken { bytes, taken });
        }
    }

    fn attachment(&mut self, client: u64, id: u64) -> Option<&mut Attachment> {
        self.attachments.iter_mut().find(|attachment| attachment.client == client && attachment.id == id)
    }

    /// Whether something was sent.
    fn flush_all(&mut self) -> bool {
        let mut sent = false;
        let mut closed = Vec::new();
        for client in self.clients.values_mut() {
            let before = client.pending_bytes();
            if client.flush().is_err() {
                closed.push(client.id);
            }
            sent |= client.pending_bytes() < before;
        }
        closed.into_iter().for_each(|id| self.forget_client(id));
        sent
    }
}
