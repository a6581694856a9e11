//! The agent's loop, continued: lasting executions and who is attached to them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Instant;

use faas_guest_protocol::lasting::{
    Attach, Attached, Done, LISTED_AT_ONCE, List, Listed, MAX_ENDED, MAX_ENDED_LOG_BYTES, MIN_CREDIT_BYTES,
};
use faas_guest_protocol::{
    AgentError, AgentErrorKind, ExecRequest, ExecSignal, Frame, FrameKind, LastingId, TtySize,
};

use crate::agent::{Agent, bad_request};
use crate::attachment::{Attachment, Step};
use crate::connection::Closed;
use crate::lasting::LastingExecution;
use crate::receiving::error;

/// How far a program may go on for those who hold it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// What they have all been sent.
    pub(crate) offset: u64,
    /// When the patience with one of them ends that is waited for.
    pub(crate) until: Option<Instant>,
}

impl Held {
    /// Whether so much more output would drop some that they have not been sent.
    pub(crate) fn is_full(&self, execution: &LastingExecution, bytes: usize) -> bool {
        execution.log.room_behind(self.offset) < bytes
    }
}

fn no_execution() -> AgentError {
    error(AgentErrorKind::NoExecution, 0, "there is no such execution")
}

fn read<T: serde::de::DeserializeOwned>(frame: &Frame) -> Result<T, AgentError> {
    serde_json::from_slice(&frame.payload).map_err(|failed| bad_request(failed.to_string()))
}

impl Agent {
    /// The lasting executions that are held by somebody.
    pub(crate) fn held(&self, now: Instant) -> BTreeMap<u64, Held> {
        let mut held: BTreeMap<u64, Held> = BTreeMap::new();
        for attachment in &self.attachments {
            let Some(until) = attachment.holds_until(now) else { continue };
            let until = attachment.is_stalled().then_some(until);
            held.entry(attachment.execution)
                .and_modify(|held| {
                    held.offset = held.offset.min(attachment.cursor);
                    held.until = held.until.into_iter().chain(until).min();
                })
                .or_insert(Held { offset: attachment.cursor, until });
        }
        held
    }

    /// Ends those whose processes have ended and whose output is all read. Whether there was one.
    pub(crate) fn finish_lasting(&mut self, now: Instant) -> bool {
        let ending =
            |execution: &mut LastingExecution| execution.running().is_some_and(|running| running.has_ended());
        if !self.lasting.values_mut().any(ending) {
            return false;
        }
        let held = self.held(now);
        let mut some = false;
        for (id, execution) in &mut self.lasting {
            if execution.finish(&mut self.buffer, held.get(id).map(|held| held.offset)) {
                self.ended.push_back(*id);
                some = true;
            }
        }
        if some {
            self.let_go_of_the_oldest();
        }
        some
    }

    fn let_go_of_the_oldest(&mut self) {
        while self.ended.len() > MAX_ENDED {
            let Some(oldest) = self.ended.pop_front() else { break };
            self.remove(oldest);
        }
        let mut bytes: u64 =
            self.ended.iter().filter_map(|id| self.lasting.get(id)).map(|e| e.log.held_bytes()).sum();
        for id in &self.ended {
            if bytes <= MAX_ENDED_LOG_BYTES {
                break;
            }
            if let Some(execution) = self.lasting.get_mut(id) {
                bytes -= execution.log.held_bytes();
                execution.log.drop_all();
            }
        }
    }

    /// Whoever is attached is told that it is no more.
    fn remove(&mut self, id: u64) {
        self.lasting.remove(&id);
        let (of_it, others) = std::mem::take(&mut self.attachments)
            .into_iter()
            .partition::<Vec<_>, _>(|attachment| attachment.execution == id);
        self.attachments = others;
        for attachment in of_it {
            self.queue(attachment.client, FrameKind::Error, attachment.id, &no_execution());
        }
    }

    /// Queues one frame for each attachment that can be sent one. Whether there was any.
    pub(crate) fn feed_attachments(&mut self, now: Instant) -> bool {
        let Self { attachments, lasting, clients, .. } = self;
        let mut queued = false;
        attachments.retain_mut(|attachment| {
            let (Some(execution), Some(client)) =
                (lasting.get(&attachment.execution), clients.get_mut(&attachment.client))
            else {
                return false;
            };
            let step = attachment.step(&execution.log, execution.exit(), client, now);
            queued |= step != Step::Waiting;
            step != Step::Over
        });
        queued
    }

    pub(crate) fn attach(&mut self, client: u64, id: u64, asked: &Attach) {
        let attached = self.attached(asked);
        match attached {
            Err(failed) => self.queue(client, FrameKind::Error, id, &failed),
            Ok((execution, attached)) => {
                self.queue(client, FrameKind::Attached, id, &attached);
                self.attachments.push(Attachment::new(client, id, execution, asked));
            }
        }
    }

    fn attached(&self, asked: &Attach) -> Result<(u64, Attached), AgentError> {
        if asked.credit < MIN_CREDIT_BYTES {
            return Err(bad_request("an attachment begins with more credit"));
        }
        let id = LastingId::new(asked.execution).ok_or_else(no_execution)?.to_wire();
        let is = self.lasting.get(&id).and_then(LastingExecution::listed).ok_or_else(no_execution)?;
        if asked.offset > is.next_offset {
            let message = format!("the output ends at {}, before offset {}", is.next_offset, asked.offset);
            return Err(error(AgentErrorKind::Offset, 0, message));
        }
        let attached = Attached { pid: is.pid, first_offset: is.first_offset, next_offset: is.next_offset };
        Ok((id, attached))
    }

    pub(crate) fn list(&mut self, client: u64, id: u64, asked: List) {
        let after = LastingId::new(asked.after).map_or(Bound::Unbounded, |id| Bound::Excluded(id.to_wire()));
        let mut rest = self.lasting.range((after, Bound::Unbounded)).filter_map(|(_, e)| e.listed());
        let executions = rest.by_ref().take(LISTED_AT_ONCE).collect();
        let listed = Listed { executions, more: rest.next().is_some() };
        self.queue(client, FrameKind::Listed, id, &listed);
    }

    /// Takes in a frame for a lasting execution.
    pub(crate) fn handle_lasting(&mut self, client: u64, frame: &Frame) {
        let id = frame.exec_id;
        let execution = self.lasting.get_mut(&id);
        match FrameKind::from_byte(frame.kind) {
            Some(FrameKind::Exec) => {
                if let Err(failed) = self.begin_lasting(client, frame) {
                    self.queue(client, FrameKind::Error, id, &failed);
                }
            }
            Some(FrameKind::FileData) => {
                let (Some(execution), Some(client)) = (execution, self.clients.get_mut(&client)) else {
                    return;
                };
                let had_begun = execution.exit().is_some();
                if !execution.take_file_bytes(&frame.payload, client) {
                    self.lasting.remove(&id);
                } else if !had_begun && execution.exit().is_some() {
                    self.ended.push_back(id);
                    self.let_go_of_the_oldest();
                }
            }
            Some(FrameKind::Stdin) => {
                let size = u64::try_from(frame.payload.len()).unwrap_or(u64::MAX);
                let taken = execution.map_or_else(
                    || Ok(vec![crate::running::Taken { client, bytes: size, taken: false }]),
                    |execution| execution.take_stdin(client, &frame.payload),
                );
                match taken {
                    Ok(taken) => self.tell_taken(id, taken),
                    Err(Closed) => self.forget_client(client),
                }
            }
            Some(FrameKind::StdinEof) => {
                let ended = execution.ok_or_else(no_execution).and_then(LastingExecution::end_stdin);
                let ended = ended.map(|taken| self.tell_taken(id, taken));
                self.done(client, id, ended);
            }
            Some(FrameKind::Signal) => {
                let order = read::<ExecSignal>(frame);
                let done = order.and_then(|order| execution.ok_or_else(no_execution)?.signal(order.signal));
                self.done(client, id, done);
            }
            Some(FrameKind::Cancel) => {
                let done = execution.ok_or_else(no_execution).and_then(LastingExecution::cancel);
                self.done(client, id, done);
            }
            Some(FrameKind::Resize) => {
                let size = read::<TtySize>(frame);
                let done = size.and_then(|size| execution.ok_or_else(no_execution)?.resize(size));
                self.done(client, id, done);
            }
            Some(FrameKind::Forget) => {
                let done = self.forget(id);
                self.done(client, id, done);
            }
            // Of a newer gateway.
            _ => {}
        }
    }

    fn done(&mut self, client: u64, id: u64, done: Result<(), AgentError>) {
        self.queue(client, FrameKind::Done, id, &Done { error: done.err() });
    }

    /// Begins it. An error that is not yet told.
    fn begin_lasting(&mut self, client: u64, frame: &Frame) -> Result<(), AgentError> {
        let id = LastingId::from_wire(frame.exec_id).ok_or_else(no_execution)?;
        let request: ExecRequest = read(frame)?;
        let lasting = request.lasting.ok_or_else(|| bad_request("the id is a lasting execution's"))?;
        if self.lasting.contains_key(&frame.exec_id) {
            return Err(bad_request("there is an execution of this id"));
        }
        if let Some(failed) = self.refuse_more() {
            return Err(failed);
        }
        let Some(client) = self.clients.get_mut(&client) else { return Ok(()) };
        if let Some(execution) = LastingExecution::begin(id, request, lasting, client) {
            if execution.exit().is_some() {
                self.ended.push_back(frame.exec_id);
            }
            self.lasting.insert(frame.exec_id, execution);
            self.let_go_of_the_oldest();
        }
        Ok(())
    }

    fn forget(&mut self, id: u64) -> Result<(), AgentError> {
        let execution = self.lasting.get(&id).ok_or_else(no_execution)?;
        if execution.exit().is_none() {
            return Err(error(AgentErrorKind::StillRunning, 0, "the execution has not ended"));
        }
        self.ended.retain(|other| *other != id);
        self.remove(id);
        Ok(())
    }
}
