//! An execution that belongs to the connection that started it. Everything is driven by the agent's loop; nothing here
//! blocks.

use std::time::Duration;

use faas_guest_protocol::{AgentError, ExecRequest, ExitReport, FrameKind, Started};
use rustix::process::WaitStatus;

use crate::connection::Connection;
use crate::output::Sink;
use crate::receiving::Receiving;
use crate::running::Running;

/// Where an execution stands.
#[derive(Debug)]
pub(crate) enum State {
    /// Its files are arriving.
    Receiving(Box<Receiving>),
    /// Its process runs.
    Running(Box<Running>),
    /// It ended or failed; frames for it are passed over until it is forgotten.
    Over,
}

/// One execution.
#[derive(Debug)]
pub(crate) struct Execution {
    /// The client's number for it.
    pub(crate) id: u64,
    /// The connection that started it.
    pub(crate) client: u64,
    /// How long it may go on without its connection.
    finish_within: Option<Duration>,
    pub(crate) state: State,
}

impl Execution {
    /// Begins an execution; without files its program starts at once.
    pub(crate) fn begin(id: u64, request: ExecRequest, client: &mut Connection) -> Self {
        let finish_within = request.finish_ms.map(Duration::from_millis);
        let mut execution = Self { id, client: client.id, finish_within, state: State::Over };
        match Receiving::new(request) {
            Err(failed) => client.queue(FrameKind::Error, id, &failed),
            Ok(receiving) => {
                execution.state = State::Receiving(Box::new(receiving));
                execution.take_file_bytes(&[], client);
            }
        }
        execution
    }

    /// Takes in bytes of its files. When the last is whole the program starts.
    pub(crate) fn take_file_bytes(&mut self, bytes: &[u8], client: &mut Connection) {
        let State::Receiving(receiving) = &mut self.state else { return };
        match receiving.take(bytes) {
            Ok(false) => {}
            Ok(true) => self.start(client),
            Err(failed) => self.fail(&failed, client),
        }
    }

    fn fail(&mut self, failed: &AgentError, client: &mut Connection) {
        self.state = State::Over;
        client.queue(FrameKind::Error, self.id, failed);
    }

    fn start(&mut self, client: &mut Connection) {
        let State::Receiving(receiving) = std::mem::replace(&mut self.state, State::Over) else { return };
        match receiving.start() {
            Ok(running) => {
                client.queue(FrameKind::Started, self.id, &Started { pid: running.pid_number() });
                self.state = State::Running(Box::new(running));
            }
            Err(not_started) => {
                let max = receiving.max_output_bytes();
                match not_started.report(max, &mut Sink::Client(client, self.id)) {
                    Ok(report) => client.queue(FrameKind::Exit, self.id, &report),
                    Err(failed) => client.queue(FrameKind::Error, self.id, &failed),
                }
            }
        }
    }

    /// Takes in standard input.
    pub(crate) fn take_stdin(&mut self, bytes: &[u8]) {
        if let State::Running(running) = &mut self.state {
            running.take_stdin(bytes);
        }
    }

    /// Takes in the end of standard input.
    pub(crate) fn end_stdin(&mut self) {
        if let State::Running(running) = &mut self.state {
            running.end_stdin();
        }
    }

    /// Its connection is gone: it ends by itself in the time that it was given for that, or is killed.
    pub(crate) fn abandon(&mut self) {
        match (&mut self.state, self.finish_within) {
            (State::Running(running), Some(time)) => running.finish_within(time),
            _ => self.cancel(None),
        }
    }

    /// Kills everything it started. Its end is reported when its process has ended.
    pub(crate) fn cancel(&mut self, client: Option<&mut Connection>) {
        match &mut self.state {
            State::Running(running) => running.cancel(),
            State::Receiving(_) => {
                self.state = State::Over;
                if let Some(client) = client {
                    let report =
                        ExitReport { signal: Some(libc::SIGKILL), cancelled: true, ..ExitReport::default() };
                    client.queue(FrameKind::Exit, self.id, &report);
                }
            }
            State::Over => {}
        }
    }

    /// Its process has ended: what is left in its pipes, and its report.
    pub(crate) fn finish(
        &mut self,
        status: WaitStatus,
        buffer: &mut Vec<u8>,
        client: Option<&mut Connection>,
    ) {
        let State::Running(mut running) = std::mem::replace(&mut self.state, State::Over) else { return };
        running.end(status);
        let mut sink = client.map_or(Sink::Nowhere, |client| Sink::Client(client, self.id));
        if let (Some(report), Sink::Client(client, id)) = (running.finish(buffer, &mut sink, |_| true), sink)
        {
            client.queue(FrameKind::Exit, id, &report);
        }
    }
}
