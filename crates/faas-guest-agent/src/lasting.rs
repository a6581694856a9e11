//! A lasting execution: it has a log, and belongs to no connection.

use faas_guest_protocol::lasting::{
    DEFAULT_LOG_BYTES, ListedExecution, MAX_LOG_BYTES, MIN_LOG_BYTES, STDIN_WINDOW_BYTES,
};
use faas_guest_protocol::{
    AgentError, AgentErrorKind, ExecRequest, ExitReport, FrameKind, Lasting, LastingId, Log, Started, TtySize,
};
use rustix::process::WaitStatus;

use crate::connection::{Closed, Connection};
use crate::execution::State;
use crate::output::Sink;
use crate::receiving::{Receiving, error};
use crate::running::{Running, Taken};
use crate::{pty, sys};

/// One lasting execution.
#[derive(Debug)]
pub(crate) struct LastingExecution {
    id: LastingId,
    /// The connection that sends its files and is told whether it started.
    starter: u64,
    pub(crate) state: State,
    pub(crate) log: Log,
    pid: u32,
    exit: Option<ExitReport>,
}

fn ended() -> AgentError {
    error(AgentErrorKind::Ended, 0, "the execution has ended")
}

impl LastingExecution {
    /// Begins an execution; without files its program starts at once. None where it was refused.
    pub(crate) fn begin(
        id: LastingId,
        request: ExecRequest,
        lasting: Lasting,
        client: &mut Connection,
    ) -> Option<Self> {
        let log_bytes = lasting.log_bytes.unwrap_or(DEFAULT_LOG_BYTES).clamp(MIN_LOG_BYTES, MAX_LOG_BYTES);
        let log = Log::new(usize::try_from(log_bytes).unwrap_or(usize::MAX));
        match Receiving::new(request) {
            Err(failed) => {
                client.queue(FrameKind::Error, id.to_wire(), &failed);
                None
            }
            Ok(receiving) => {
                let state = State::Receiving(Box::new(receiving));
                let mut execution = Self { id, starter: client.id, state, log, pid: 0, exit: None };
                execution.take_file_bytes(&[], client).then_some(execution)
            }
        }
    }

    /// Takes in bytes of its files from the connection that started it; when the last is whole the program starts.
    /// Whether the execution still is.
    pub(crate) fn take_file_bytes(&mut self, bytes: &[u8], client: &mut Connection) -> bool {
        let State::Receiving(receiving) = &mut self.state else { return true };
        if client.id != self.starter {
            return true;
        }
        let failed = match receiving.take(bytes) {
            Ok(false) => return true,
            Ok(true) => match receiving.start() {
                Ok(running) => {
                    self.pid = running.pid_number();
                    self.state = State::Running(Box::new(running));
                    None
                }
                Err(not_started) => {
                    let report =
                        not_started.report(receiving.max_output_bytes(), &mut Sink::Log(&mut self.log));
                    self.state = State::Over;
                    report.map(|report| self.exit = Some(report)).err()
                }
            },
            Err(failed) => Some(failed),
        };
        match failed {
            None => client.queue(FrameKind::Started, self.id.to_wire(), &Started { pid: self.pid }),
            Some(failed) => {
                client.queue(FrameKind::Error, self.id.to_wire(), &failed);
                return false;
            }
        }
        true
    }

    /// Whether it can never begin, since the connection that had its files is gone.
    pub(crate) fn is_abandoned_by(&self, client: u64) -> bool {
        matches!(self.state, State::Receiving(_)) && self.starter == client
    }

    /// Its process, as long as it lives.
    fn living(&mut self) -> Result<&mut Running, AgentError> {
        match &mut self.state {
            State::Running(running) if !running.has_ended() => Ok(running),
            State::Running(_) | State::Over => Err(ended()),
            State::Receiving(_) => Err(error(AgentErrorKind::NoExecution, 0, "the execution has not begun")),
        }
    }

    /// Its process, from its start until its end was reported.
    pub(crate) fn running(&mut self) -> Option<&mut Running> {
        match &mut self.state {
            State::Running(running) => Some(running),
            State::Receiving(_) | State::Over => None,
        }
    }

    /// Takes in standard input. A client that sends more than its window is not to be served any more.
    pub(crate) fn take_stdin(&mut self, client: u64, bytes: &[u8]) -> Result<Vec<Taken>, Closed> {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        match self.living() {
            Ok(running) if running.pending_stdin_of(client).saturating_add(size) > STDIN_WINDOW_BYTES => {
                Err(Closed)
            }
            Ok(running) => Ok(running.take_stdin_of(client, bytes)),
            Err(_) => Ok(vec![Taken { client, bytes: size, taken: false }]),
        }
    }

    pub(crate) fn end_stdin(&mut self) -> Result<Vec<Taken>, AgentError> {
        Ok(self.living()?.end_stdin())
    }

    pub(crate) fn signal(&mut self, signal: i32) -> Result<(), AgentError> {
        let pid = self.living()?.pid;
        if sys::signal_group(pid, signal) {
            Ok(())
        } else {
            Err(error(AgentErrorKind::BadRequest, libc::EINVAL, format!("{signal} is no signal")))
        }
    }

    pub(crate) fn cancel(&mut self) -> Result<(), AgentError> {
        self.living()?.cancel();
        Ok(())
    }

    pub(crate) fn resize(&mut self, size: TtySize) -> Result<(), AgentError> {
        let Some(tty) = &self.living()?.tty else {
            return Err(error(AgentErrorKind::BadRequest, libc::ENOTTY, "the execution has no terminal"));
        };
        pty::resize(tty, size)
            .map_err(|failed| error(AgentErrorKind::Internal, failed.raw_os_error(), failed.to_string()))
    }

    /// Its process has ended.
    pub(crate) fn end(&mut self, status: WaitStatus) -> Vec<Taken> {
        self.running().map(|running| running.end(status)).unwrap_or_default()
    }

    /// Reads once from one of its streams.
    pub(crate) fn read_output(&mut self, which: usize, buffer: &mut Vec<u8>) {
        if let State::Running(running) = &mut self.state {
            running.outputs[which].read(buffer, &mut Sink::Log(&mut self.log));
        }
    }

    /// Reads what is left after its end, as long as the log has room for it behind the offset `held`. Whether it is over
    /// by that.
    pub(crate) fn finish(&mut self, buffer: &mut Vec<u8>, held: Option<u64>) -> bool {
        let State::Running(running) = &mut self.state else { return false };
        let most = buffer.capacity();
        let may_read = |sink: &Sink<'_>| match (sink, held) {
            (Sink::Log(log), Some(held)) => log.room_behind(held) >= most,
            _ => true,
        };
        let Some(report) = running.finish(buffer, &mut Sink::Log(&mut self.log), may_read) else {
            return false;
        };
        self.exit = Some(report);
        self.state = State::Over;
        true
    }

    /// How it ended.
    pub(crate) fn exit(&self) -> Option<&ExitReport> {
        self.exit.as_ref()
    }

    /// As it is listed; not before it has begun.
    pub(crate) fn listed(&self) -> Option<ListedExecution> {
        (!matches!(self.state, State::Receiving(_))).then(|| ListedExecution {
            id: self.id.get(),
            pid: self.pid,
            first_offset: self.log.first(),
            next_offset: self.log.next(),
            exit: self.exit.clone(),
        })
    }
}
