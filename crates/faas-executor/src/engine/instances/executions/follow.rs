//! The task that follows a lasting execution: from its agent to the disk, until its end is written down.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use faas_guest_protocol::{AgentErrorKind, ExitReport, OutputStream};
use faas_types::ExecutionKind;

use super::super::Instances;
use super::super::data::now_ms;
use super::super::exec::awake_for;
use super::super::live::Live;
use super::data::{ExecutionEnd, ExecutionInfo, HowEnded};
use super::start::ANSWERED_WITHIN;
use super::{MAX_ENDED, Running};
use crate::engine::execute::{AGENT_GRACE, HURRY_AFTER};
use crate::guest::{Attachment, GuestError, LastingEvent};
use crate::output_log::OutputWriter;
use crate::state::InstanceState;
use crate::store::{Position, Store as _};

/// Between two attempts to reach an agent, at first and at most.
const AGAIN_FIRST: Duration = Duration::from_millis(10);
const AGAIN_MOST: Duration = Duration::from_secs(1);

/// After how long an end that could not be written down is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// How long those who follow executions of a sandbox that is gone have to find out.
const LOST_WITHIN: Duration = Duration::from_secs(3);

/// How long the output of an instance that is being deleted is there for those who are reading it.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// How an execution stands with its agent.
enum Reached {
    Attached(Attachment),
    Lost(String),
    Closing,
}

impl Instances {
    /// Follows an execution in a task of its own, which ends with it or with the server.
    pub(super) fn follow(
        &self,
        live: &Arc<Live>,
        running: &Arc<Running>,
        writer: OutputWriter,
        attachment: Option<Attachment>,
    ) {
        let (this, live, running) = (self.clone(), Arc::clone(live), Arc::clone(running));
        self.inner.background.spawn(async move {
            if let Some(how) = this.followed(&live, &running, writer, attachment).await {
                this.ended(&live, &running, how).await;
                this.main_ended(&live, &running).await;
            }
        });
    }

    /// How it ended. None: the server ends, and it goes on.
    async fn followed(
        &self,
        live: &Arc<Live>,
        running: &Arc<Running>,
        writer: OutputWriter,
        mut attachment: Option<Attachment>,
    ) -> Option<HowEnded> {
        let mut sink = Sink { writer: Some(writer), is_broken: false };
        let mut said = [0u64; 2];
        let most = running.info.max_output_bytes.unwrap_or(u64::MAX);
        // Its agent keeps the time, and is not to be waited for where it does not.
        let limit = running
            .info
            .timeout_ms
            .map(|ms| Duration::from_millis(ms).saturating_add(HURRY_AFTER).saturating_add(AGENT_GRACE));
        let (mut frozen, started) = (live.frozen.subscribe(), Instant::now());
        let overdue = async {
            match limit {
                Some(limit) => awake_for(&mut frozen, started, limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(overdue);
        loop {
            let mut attached = match attachment.take() {
                Some(attached) => attached,
                None => match self.attach(live, running).await {
                    Reached::Attached(attached) => attached,
                    Reached::Lost(reason) => return Some(HowEnded::Lost { reason }),
                    Reached::Closing => return None,
                },
            };
            loop {
                let event = tokio::select! {
                    biased;
                    () = self.inner.closed.cancelled() => return None,
                    () = &mut overdue => return Some(HowEnded::overdue(started.elapsed())),
                    event = attached.next() => event,
                };
                match event {
                    Some(Ok(LastingEvent::Output { stream, offset, bytes })) => {
                        let next = offset + bytes.len() as u64;
                        said[stream as usize] += bytes.len() as u64;
                        if said[stream as usize] > most {
                            let reason = "its agent passed on more output than was asked for";
                            return Some(HowEnded::Lost { reason: reason.to_owned() });
                        }
                        sink.append(running, stream, offset, bytes).await;
                        running.progress.send_modify(|progress| progress.next = next);
                    }
                    Some(Ok(LastingEvent::Gap { to, .. })) => {
                        sink.skip_to(to);
                        running.progress.send_modify(|progress| progress.next = to);
                    }
                    Some(Ok(LastingEvent::Exit(report))) => {
                        return Some(self.exited(live, running, report).await);
                    }
                    Some(Err(error)) => {
                        tracing::debug!(execution = %running.info.id, %error, "an execution is out of sight");
                        break;
                    }
                    None => break,
                }
            }
        }
    }

    /// Attaches where the output ends. As long as its sandbox lives it is tried again and again.
    async fn attach(&self, live: &Arc<Live>, running: &Running) -> Reached {
        let Some(wire) = running.wire else { return Reached::Lost("it is not a lasting one".to_owned()) };
        let mut pause = AGAIN_FIRST;
        loop {
            if self.inner.is_closed() {
                return Reached::Closing;
            }
            if live.doomed.is_cancelled() {
                return Reached::Lost("the instance was deleted".to_owned());
            }
            let is_there = {
                let place = live.place.read().await;
                place.count == running.count && place.sandbox.is_some()
            };
            if !is_there {
                return Reached::Lost(self.why_gone(live).await);
            }
            // A stopped agent would not answer.
            if live.info().state != InstanceState::Paused
                && let Ok((client, count)) = self.client(live).await
                && count == running.count
            {
                if client.boot_id() != running.info.boot_id {
                    let reason = "its agent ended under it, and another one serves the instance now";
                    return Reached::Lost(reason.to_owned());
                }
                let next = running.progress.borrow().next;
                match self.in_time(live, ANSWERED_WITHIN, client.attach(wire, next, true)).await {
                    Ok(attached) => return Reached::Attached(attached),
                    Err(GuestError::Agent(error)) if error.kind == AgentErrorKind::NoExecution => {
                        let reason =
                            "its agent does not know it: the server ended while it was being started";
                        return Reached::Lost(reason.to_owned());
                    }
                    Err(GuestError::Agent(error)) => return Reached::Lost(error.message),
                    Err(error) => {
                        tracing::debug!(execution = %running.info.id, %error, "an execution cannot be reached yet");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.inner.closed.cancelled() => {}
                () = live.doomed.cancelled() => {}
            }
            pause = (pause * 2).min(AGAIN_MOST);
        }
    }

    /// Why the sandbox of an instance is not there any more.
    async fn why_gone(&self, live: &Arc<Live>) -> String {
        // Whoever took it away is about to write what it has become.
        drop(live.turn.lock().await);
        let info = live.info();
        match (info.state, info.reason) {
            (InstanceState::Deleting, _) => "the instance was deleted".to_owned(),
            (state, Some(reason)) => format!("the instance is {}: {reason}", state.shown()),
            (InstanceState::Running, None) => "the instance was stopped and started again".to_owned(),
            (state, None) => format!("the instance is {}", state.shown()),
        }
    }

    /// Waits until all that ran in an instance whose sandbox is gone has been told so; what that was.
    pub(in crate::engine::instances) async fn lose_executions(&self, live: &Live) -> Vec<Arc<Running>> {
        let lost = self.inner.executions.of(&live.info().id);
        for running in &lost {
            let mut progress = running.progress.subscribe();
            let ended = progress.wait_for(|progress| progress.end.is_some());
            if tokio::time::timeout(LOST_WITHIN, ended).await.is_err() {
                tracing::warn!(execution = %running.info.id, "an execution is still followed");
            }
        }
        lost
    }

    /// Waits until whoever was reading what these have said has read all of it or has gone, but not for long.
    pub(in crate::engine::instances) async fn let_read(&self, lost: &[Arc<Running>]) {
        let all_gone = async {
            for running in lost {
                running.progress.closed().await;
            }
        };
        if tokio::time::timeout(READ_WITHIN, all_gone).await.is_err() {
            tracing::debug!("output is removed that somebody had not read yet");
        }
    }

    /// Removes the output of all executions of an instance.
    pub(in crate::engine::instances) async fn remove_outputs(&self, id: &faas_types::InstanceId) {
        let (logs, instance) = (self.inner.outputs.clone(), id.as_str().to_owned());
        let removed = tokio::task::spawn_blocking(move || logs.remove(&instance, None)).await;
        if let Err(error) = removed.map_err(std::io::Error::other).flatten() {
            // The next start removes what no row leads to.
            tracing::warn!(instance = %id, %error, "its output could not be removed");
        }
    }

    async fn exited(&self, live: &Live, running: &Running, report: ExitReport) -> HowEnded {
        let after = {
            let place = live.place.read().await;
            match (&place.sandbox, self.backend(running.info.runtime)) {
                (Some(sandbox), Ok(backend)) if place.count == running.count => {
                    backend.account(sandbox).await.ok()
                }
                _ => None,
            }
        };
        let after = after.and_then(|after| after.oom_kills).or(report.oom_kills);
        let oom_killed = match (running.info.oom_kills_before, after) {
            (Some(before), Some(after)) => after > before,
            _ => false,
        };
        HowEnded::Exit { report, oom_killed }
    }

    /// Tells everybody that it has ended, and writes it down.
    pub(super) async fn ended(&self, live: &Live, running: &Arc<Running>, how: HowEnded) {
        let next_offset = running.progress.borrow().next;
        let end = ExecutionEnd { at_ms: now_ms(), next_offset, how };
        let info = ExecutionInfo { end: Some(end.clone()), ..running.info.clone() };
        tracing::debug!(execution = %info.id, status = info.status().as_str(), "an execution has ended");
        running.progress.send_modify(|progress| progress.end = Some(Arc::new(end)));
        if self.write_end(live, &info).await {
            if let (Some(wire), Some(client)) = (running.wire, live.client(running.count)) {
                // It keeps some that have ended, and lets go of the oldest by itself.
                if let Err(error) = self.in_time(live, ANSWERED_WITHIN, client.forget(wire)).await {
                    tracing::debug!(execution = %info.id, %error, "an agent keeps an execution that has ended");
                }
            }
            self.inner.executions.remove(&info.id);
            if self.inner.executions.of(&info.instance).is_empty() {
                live.drop_client(running.count);
            }
            self.forget_the_oldest(&info).await;
        }
    }

    /// Whether it was written before the server ends.
    async fn write_end(&self, live: &Live, info: &ExecutionInfo) -> bool {
        loop {
            let written = async {
                let event = info.event();
                self.inner.store.update_execution(&info.to_row()?, Some(&event)).await
            };
            match written.await {
                // Not there: it was deleted with its instance.
                Ok(_was_there) => return true,
                Err(error) => {
                    tracing::warn!(execution = %info.id, %error, "the end of an execution could not be written");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(WRITE_AGAIN) => {}
                () = self.inner.closed.cancelled() => return false,
                () = live.doomed.cancelled() => {
                    self.inner.executions.remove(&info.id);
                    return false;
                }
            }
        }
    }

    /// Removes executions of an instance that ended long ago, beyond so many.
    async fn forget_the_oldest(&self, info: &ExecutionInfo) {
        let (tenant, instance) = (info.tenant.as_str(), info.instance.as_str());
        let most = u32::try_from(MAX_ENDED + super::MAX_RUNNING).unwrap_or(u32::MAX);
        let newest = Position { created_at_ms: i64::MAX, id: String::new() };
        let forgotten = async {
            let rows = self.inner.store.executions(tenant, instance, Some(&newest), most).await?;
            // What a main command's last run was says whether there is to be another.
            let main = self.inner.instances.get(&info.instance).and_then(|live| live.info().main_run);
            let may_go = |id: &str| main.as_ref().is_none_or(|run| run.execution.as_str() != id);
            let old = rows.into_iter().filter(|row| row.ended_at_ms.is_some()).skip(MAX_ENDED);
            for row in old.filter(|row| may_go(&row.id)) {
                self.inner.store.delete_execution(tenant, &row.id).await?;
                let (logs, instance) = (self.inner.outputs.clone(), instance.to_owned());
                tokio::task::spawn_blocking(move || logs.remove(&instance, Some(&row.id)))
                    .await
                    .map_err(std::io::Error::other)??;
            }
            Ok::<_, crate::error::EngineError>(())
        };
        if let Err(error) = forgotten.await {
            tracing::warn!(instance, %error, "old executions could not be removed");
        }
    }

    /// Whether a main command is to be run again is decided where one has ended.
    async fn main_ended(&self, live: &Arc<Live>, running: &Running) {
        if running.info.kind == ExecutionKind::Main && !live.doomed.is_cancelled() {
            let (info, _) = running.now();
            self.run_main_again(live, info, running.count);
        }
    }
}

/// Where output goes. A disk that takes nothing costs output, not the execution.
struct Sink {
    writer: Option<OutputWriter>,
    is_broken: bool,
}

impl Sink {
    async fn append(&mut self, running: &Running, stream: OutputStream, offset: u64, bytes: Vec<u8>) {
        let Some(mut writer) = self.writer.take() else { return };
        let appended = tokio::task::spawn_blocking(move || {
            let appended = writer.append(offset, now_ms(), stream, &bytes);
            (writer, appended)
        });
        match appended.await {
            Ok((writer, appended)) => {
                self.writer = Some(writer);
                if let Err(error) = &appended
                    && !self.is_broken
                {
                    tracing::warn!(execution = %running.info.id, %error, "output could not be kept");
                }
                self.is_broken = appended.is_err();
            }
            Err(error) => tracing::error!(%error, "output could not be kept"),
        }
    }

    fn skip_to(&mut self, offset: u64) {
        if let Some(writer) = &mut self.writer {
            writer.skip_to(offset);
        }
    }
}

/// Whether somebody has still to be told of an instance before it is asked for its main command.
pub(super) fn is_settled(live: &Live) -> bool {
    !live.unseen.load(Ordering::Acquire) && live.info().state == InstanceState::Running
}
