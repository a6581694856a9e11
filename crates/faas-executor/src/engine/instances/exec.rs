//! One command in an instance.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use faas_guest_protocol::{ExitReport, Program};
use faas_types::{ExecutionId, ExecutionKind, InstanceId, RequestId, TenantId, Timings, Usage};

use super::Instances;
use super::create::deleted_meanwhile;
use super::data::{InstanceInfo, now_ms};
use super::executions::{self, ExecutionInfo, new_id};
use super::live::{Frozen, Live};
use crate::engine::execute::{self, AGENT_GRACE, Call, Destination, HURRY_AFTER};
use crate::engine::{ExecutionOutcome, InputFile, LiveOutput};
use crate::error::EngineError;
use crate::guest::{AgentConnection, GuestError, Held};
use crate::sandbox::{Account, SandboxError};
use crate::state::{Illegal, InstanceState, Operation};

/// One command, validated.
#[derive(Debug)]
pub struct ExecSpec {
    /// The request it belongs to.
    pub request_id: RequestId,
    /// What to run.
    pub program: Program,
    /// Environment variables beyond the instance's.
    pub env: Vec<(String, String)>,
    /// The working directory, or the instance's.
    pub working_dir: Option<String>,
    /// The user, or the instance's.
    pub user: Option<String>,
    /// Standard input, or none.
    pub stdin: Option<Vec<u8>>,
    /// Files, secrets among them.
    pub files: Vec<InputFile>,
    /// Wall time for the program, while the instance is not paused.
    pub timeout: Duration,
    /// How many bytes of each of stdout and stderr are kept.
    pub max_output_bytes: u64,
    /// The caller's own words, for the log.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Dropped when files and standard input have been passed on.
    pub held: Option<Held>,
}

impl Instances {
    /// Runs one command in an instance and returns when it has ended. When the future is dropped the command is
    /// cancelled: everything that it started is killed, and the instance stays. With `live_output` the outcome has no
    /// output: it went there.
    ///
    /// # Errors
    /// [`EngineError`]; a command that fails is no error.
    pub async fn exec(
        &self,
        tenant: &TenantId,
        id: &InstanceId,
        spec: ExecSpec,
        live_output: Option<&mut dyn LiveOutput>,
    ) -> Result<ExecutionOutcome, EngineError> {
        let live = self.live(tenant, id)?;
        let _in_use = live.use_it();
        self.wake(&live).await?;
        let execution_id = new_id();
        tracing::debug!(instance = %id, execution = %execution_id, labels = ?spec.labels, "exec");
        let info = live.info();
        let (timeout, memory_mb) = (spec.timeout, info.limits.memory_bytes >> 20);
        let waiting = self.inner.executions.wait_for(waited_for(&info, &execution_id, &spec));
        let backend = self.backend(info.runtime)?;
        let (count, mut connection, call, before) = {
            let place = live.place.read().await;
            // Between the look at its state and now it may have ended.
            let Some(sandbox) = &place.sandbox else {
                drop(place);
                return Err(lost(&live, "its sandbox is gone", false, memory_mb).await);
            };
            let connection = match live.take_connection(place.count) {
                Some(connection) => connection,
                None => tokio::select! {
                    reached = backend.connect(sandbox) => AgentConnection::new(reached?),
                    // Whoever removes it waits for the place.
                    () = live.doomed.cancelled() => return Err(deleted_meanwhile()),
                },
            };
            let before = backend.account(sandbox).await.unwrap_or_default();
            let mut env = info.defaults.env.clone();
            env.extend(spec.env);
            let call = Call {
                program: spec.program,
                env,
                working_dir: spec.working_dir.or_else(|| info.defaults.working_dir.clone()),
                user: spec.user.or_else(|| info.defaults.user.clone()),
                stdin: spec.stdin,
                files: spec.files,
                timeout,
                max_output_bytes: spec.max_output_bytes,
                held: spec.held,
            };
            (place.count, connection, call.for_image(&sandbox.image), before)
        };
        let started = Instant::now();
        let mut output = Destination::new(execution_id.clone(), live_output);
        let result = {
            let ended = connection.exec(call, &mut output);
            tokio::pin!(ended);
            let mut frozen = live.frozen.subscribe();
            let limit = timeout.saturating_add(HURRY_AFTER).saturating_add(AGENT_GRACE);
            tokio::select! {
                biased;
                // First: a flood of frames leaves what comes after it no turn.
                () = awake_for(&mut frozen, started, limit) => None,
                result = &mut ended => Some(result),
                () = self.inner.closed.cancelled() => return Err(EngineError::ShuttingDown),
                () = waiting.cancelled() => Some(Ok(cancelled(started))),
            }
        };
        let after = {
            let place = live.place.read().await;
            match &place.sandbox {
                Some(sandbox) if place.count == count => backend.account(sandbox).await.ok(),
                _ => None,
            }
        };
        let collected = output.collected;
        let killed = was_killed(&before, after.as_ref());
        let outcome = |exit: ExitReport| ExecutionOutcome {
            execution_id,
            timings: Timings { queue_us: 0, create_us: 0, exec_us: exit.duration_us },
            oom_killed: killed,
            exit,
            stdout: collected.stdout,
            stderr: collected.stderr,
            // What the kernel counts it counts for all that runs in the instance.
            usage: Usage::default(),
            runtime: info.runtime,
            image: info.image,
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        match result {
            Some(Ok(exit)) => {
                if !exit.cancelled {
                    live.keep_connection(count, connection);
                }
                if exit.timed_out {
                    return Err(EngineError::Timeout { outcome: Box::new(outcome(exit)) });
                }
                Ok(outcome(exit))
            }
            Some(Err(GuestError::Agent(error))) => {
                live.keep_connection(count, connection);
                Err(EngineError::Agent(error))
            }
            Some(Err(GuestError::TooLarge)) => Err(execute::too_large()),
            Some(Err(error)) => Err(lost(&live, error, killed, memory_mb).await),
            // Its agent says nothing. The command is given up; what becomes of the instance is its owner's to say.
            None => Err(EngineError::Timeout {
                outcome: Box::new(outcome(ExitReport {
                    signal: Some(execute::SIGKILL),
                    timed_out: true,
                    duration_us: execute::micros(started.elapsed()),
                    ..ExitReport::default()
                })),
            }),
        }
    }

    /// Sees to it that commands can be run: one that is paused is resumed where it was made so.
    pub(super) async fn wake(&self, live: &Arc<Live>) -> Result<(), EngineError> {
        let info = live.info();
        match info.state {
            InstanceState::Running if !live.unseen.load(Ordering::Acquire) => Ok(()),
            InstanceState::Running | InstanceState::Paused if live.unseen.load(Ordering::Acquire) => {
                Err(super::unseen(&info))
            }
            InstanceState::Paused if info.times.auto_resume => self.resume_live(live).await.map(drop),
            _ => Err(illegal(live)),
        }
    }
}

/// How one is known that somebody waits for.
fn waited_for(info: &InstanceInfo, id: &ExecutionId, spec: &ExecSpec) -> ExecutionInfo {
    ExecutionInfo {
        id: id.clone(),
        tenant: info.tenant.clone(),
        instance: info.id.clone(),
        runtime: info.runtime,
        image: info.image.clone(),
        kind: ExecutionKind::Command,
        command: executions::shown(&spec.program),
        background: false,
        tty: None,
        stdin_open: false,
        labels: spec.labels.clone(),
        timeout_ms: Some(execute::millis(spec.timeout)),
        max_output_bytes: Some(spec.max_output_bytes),
        created_at_ms: now_ms(),
        restarts: 0,
        end: None,
        wire: 0,
        boot_id: 0,
        oom_kills_before: None,
    }
}

/// The end of one that somebody else cancelled: with its connection, everything that it started is killed.
fn cancelled(started: Instant) -> ExitReport {
    ExitReport {
        signal: Some(execute::SIGKILL),
        cancelled: true,
        duration_us: execute::micros(started.elapsed()),
        ..ExitReport::default()
    }
}

/// Resolves when the instance has been awake for `limit` since `started`.
pub(super) async fn awake_for(
    frozen: &mut tokio::sync::watch::Receiver<Frozen>,
    started: Instant,
    limit: Duration,
) {
    let at_start = frozen.borrow().total(started);
    loop {
        let seen = *frozen.borrow_and_update();
        let now = Instant::now();
        let slept = seen.total(now).saturating_sub(at_start);
        let awake = now.saturating_duration_since(started).saturating_sub(slept);
        let Some(left) = limit.checked_sub(awake).filter(|left| !left.is_zero()) else { return };
        let changed = frozen.changed();
        if seen.since.is_some() {
            // Nothing runs. The sender lives as long as the instance.
            if changed.await.is_err() {
                return;
            }
        } else {
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                changed = changed => if changed.is_err() { return },
            }
        }
    }
}

fn illegal(live: &Live) -> EngineError {
    let info = live.info();
    Illegal::new(info.state, info.reason, Operation::Exec).into()
}

/// Whether the kernel killed a process of the instance while the command ran.
fn was_killed(before: &Account, after: Option<&Account>) -> bool {
    match (before.oom_kills, after.and_then(|after| after.oom_kills)) {
        (Some(before), Some(after)) => after > before,
        _ => false,
    }
}

/// How long an instance whose agent went silent is waited for, to be able to say why.
const WHY_WITHIN: Duration = Duration::from_millis(500);
const WHY_STEP: Duration = Duration::from_millis(10);

pub(super) async fn lost(
    live: &Live,
    error: impl std::fmt::Display,
    killed: bool,
    memory_mb: u64,
) -> EngineError {
    let begun = Instant::now();
    let mut info = live.info();
    // Whoever watches the sandbox finds out at about the same time.
    while info.state == InstanceState::Running && begun.elapsed() < WHY_WITHIN {
        tokio::time::sleep(WHY_STEP).await;
        info = live.info();
    }
    let reason = match (info.state, info.reason) {
        (InstanceState::Running, _) if killed => format!(
            "the instance ran out of memory (its limit is {memory_mb} MiB) and the kernel killed its agent: {error}"
        ),
        (InstanceState::Running, _) => {
            format!("its agent was lost, and another one serves the instance now: {error}")
        }
        (state, Some(reason)) => format!("the instance is {}: {reason}", state.shown()),
        (state, None) => format!("the instance is {}", state.shown()),
    };
    SandboxError::Lost { reason }.into()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio::sync::watch;

    use super::{Frozen, awake_for};

    #[tokio::test]
    async fn time_in_which_an_instance_is_paused_does_not_count() {
        let begun = Instant::now();
        let paused_for = Duration::from_millis(300);
        let sender = watch::Sender::new(Frozen { before: Duration::ZERO, since: Some(begun) });
        let mut receiver = sender.subscribe();
        let resumed = async {
            tokio::time::sleep(paused_for).await;
            sender.send_replace(Frozen { before: begun.elapsed(), since: None });
        };
        tokio::join!(awake_for(&mut receiver, begun, Duration::from_millis(50)), resumed);
        assert!(begun.elapsed() >= paused_for + Duration::from_millis(50));
    }
}
