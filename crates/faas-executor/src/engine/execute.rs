//! One program in a fresh sandbox.

use std::sync::Arc;
use std::time::{Duration, Instant};

use faas_guest_protocol::{
    AgentError, AgentErrorKind, ExecFile, ExecRequest, ExitReport, OutputStream, Program,
};
use faas_types::{ExecutionId, Runtime, RuntimeChoice, SandboxId, Timings};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::backend::{Backend, named};
use super::{ExecuteSpec, ExecutionOutcome, Inner, InputFile, LiveOutput, images};
use crate::error::EngineError;
use crate::guest::{AgentConnection, Collected, ExecCall, GuestError, Held, OutputSink};
use crate::sandbox::{Account, ImageDefaults, SandboxError, SandboxHandle, SandboxSpec};

/// How long after its timeout an execution is given the whole CPU: with little of it the agent, which keeps the time,
/// may not even get to say so.
pub(super) const HURRY_AFTER: Duration = Duration::from_millis(500);

/// How long it has from then on. After that its agent is taken not to answer at all, and the command to run still.
pub(super) const AGENT_GRACE: Duration = Duration::from_secs(10);

/// A sandbox that is destroyed in the background when this is dropped, its place with it.
struct Running {
    inner: Arc<Inner>,
    runtime: Runtime,
    sandbox: Option<SandboxHandle>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let (Some(sandbox), permit) = (self.sandbox.take(), self.permit.take()) else { return };
        let (inner, runtime) = (Arc::clone(&self.inner), self.runtime);
        self.inner.background.spawn(async move {
            let id = sandbox.id.clone();
            let destroyed = match inner.backends.get(runtime) {
                Ok(backend) => backend.destroy(sandbox).await,
                Err(error) => Err(error),
            };
            if let Err(error) = destroyed {
                tracing::error!(sandbox = %id, %error, "a sandbox could not be destroyed");
            }
            drop(permit);
        });
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Makes a sandbox. It is made to its end whether the caller waits for that or not: one that nobody waits for is
/// destroyed like any other, and keeps its place until then, so that callers who come and go cannot have more made than
/// there are places.
async fn create(
    inner: &Arc<Inner>,
    runtime: Runtime,
    spec: SandboxSpec,
    permit: OwnedSemaphorePermit,
) -> Result<Running, EngineError> {
    let (sender, receiver) = oneshot::channel();
    let making = Arc::clone(inner);
    inner.background.spawn(async move {
        let created = match making.backends.get(runtime) {
            Ok(backend) => backend.create(&spec).await.map_err(EngineError::from),
            Err(error) => Err(error.into()),
        };
        let running = created.map(|sandbox| Running {
            inner: making,
            runtime,
            sandbox: Some(sandbox),
            permit: Some(permit),
        });
        // One that comes back is dropped here.
        match sender.send(running) {
            Ok(()) | Err(_) => {}
        }
    });
    receiver.await.unwrap_or_else(|_| Err(lost("making it failed")))
}

/// The backend for a sandbox, its image in place: the one that is named, which refuses by itself what it cannot do; or
/// with `auto` the first, in the order of [`Runtime::ALL`], that can do what is asked.
pub(super) async fn place<'a>(
    inner: &'a Inner,
    choice: RuntimeChoice,
    spec: &mut SandboxSpec,
) -> Result<Backend<'a>, EngineError> {
    if let Some(runtime) = named(choice) {
        return Ok(ready(inner, runtime, spec).await?);
    }
    let mut refusals = Vec::new();
    for runtime in Runtime::ALL {
        match ready(inner, runtime, spec).await {
            Ok(backend) => return Ok(backend),
            Err(refusal) => refusals.push((runtime, refusal)),
        }
    }
    Err(EngineError::NoRuntime { refusals })
}

async fn ready<'a>(
    inner: &'a Inner,
    runtime: Runtime,
    spec: &mut SandboxSpec,
) -> Result<Backend<'a>, SandboxError> {
    let backend = inner.backends.get(runtime)?;
    // What it cannot do is said before anything is fetched for it.
    backend.check(spec).await?;
    images::prepare(inner, backend, spec).await?;
    Ok(backend)
}

/// Where the output goes: to somebody who takes it as it comes, or into the outcome.
pub(super) struct Destination<'a> {
    execution_id: ExecutionId,
    live: Option<&'a mut dyn LiveOutput>,
    has_started: bool,
    pub(super) collected: Collected,
}

impl<'a> Destination<'a> {
    pub(super) fn new(execution_id: ExecutionId, live: Option<&'a mut dyn LiveOutput>) -> Self {
        Self { execution_id, live, has_started: false, collected: Collected::default() }
    }
}

impl OutputSink for Destination<'_> {
    fn started(&mut self) {
        if let (Some(live), false) = (&mut self.live, self.has_started) {
            live.started(&self.execution_id);
        }
        self.has_started = true;
    }

    fn output(&mut self, stream: OutputStream, bytes: &[u8]) {
        // Of a program that cannot be executed there is output alone.
        self.started();
        match &mut self.live {
            Some(live) => live.output(stream, bytes),
            None => self.collected.output(stream, bytes),
        }
    }
}

/// With `live` the outcome has no output: it went there.
pub(super) async fn execute(
    inner: &Arc<Inner>,
    spec: ExecuteSpec,
    live: Option<&mut dyn LiveOutput>,
) -> Result<ExecutionOutcome, EngineError> {
    let runtime = match spec.runtime {
        RuntimeChoice::Auto => inner.config.default_runtime,
        named => named,
    };
    let image = spec.image.clone().unwrap_or_else(|| inner.config.default_image.clone());
    let mut sandbox_spec = SandboxSpec::new(new_sandbox_id(), image.clone(), spec.limits, spec.network);
    // Before there is a place for it: fetching an image can take long.
    let backend = place(inner, runtime, &mut sandbox_spec).await?;
    let queued = Instant::now();
    let permit = inner.permits.acquire().await?;
    let queue_us = micros(queued.elapsed());

    let execution_id = ExecutionId(format!("exe-{}", uuid::Uuid::now_v7().simple()));
    let creating = Instant::now();
    let mut running = create(inner, backend.runtime(), sandbox_spec, permit).await?;
    let create_us = micros(creating.elapsed());
    let sandbox = running.sandbox.as_mut().ok_or_else(|| lost("it is gone before it was used"))?;

    tracing::debug!(sandbox = %sandbox.id, execution = %execution_id, labels = ?spec.labels, "created");
    let (timeout, memory_bytes) = (spec.timeout, spec.limits.memory_bytes);
    let stream = match sandbox.agent.take() {
        Some(stream) => stream,
        None => backend.connect(sandbox).await?,
    };
    let call = Call {
        program: spec.program,
        env: spec.env,
        working_dir: spec.working_dir,
        user: spec.user,
        stdin: spec.stdin,
        files: spec.files,
        timeout,
        max_output_bytes: spec.max_output_bytes,
        held: spec.held,
    };
    let call = call.for_image(&sandbox.image);
    let started = Instant::now();
    let mut output = Destination::new(execution_id.clone(), live);
    let result = {
        let mut agent = AgentConnection::new(stream);
        let ended = agent.exec(call, &mut output);
        tokio::pin!(ended);
        match tokio::time::timeout(timeout.saturating_add(HURRY_AFTER), &mut ended).await {
            Ok(result) => Some(result),
            Err(_elapsed) => {
                if let Err(error) = backend.lift_cpu_limit(sandbox).await {
                    tracing::debug!(sandbox = %sandbox.id, %error, "its CPU limit could not be lifted");
                }
                tokio::time::timeout(AGENT_GRACE, ended).await.ok()
            }
        }
    };
    let collected = output.collected;
    // What was counted is worth less than what the command said.
    let account = backend.account(sandbox).await.unwrap_or_else(|error| {
        tracing::warn!(sandbox = %sandbox.id, %error, "what it used is not known");
        Account::default()
    });
    let outcome = |exit: ExitReport| ExecutionOutcome {
        execution_id,
        timings: Timings { queue_us, create_us, exec_us: exit.duration_us },
        oom_killed: account.oom_kills.or(exit.oom_kills).is_some_and(|kills| kills > 0),
        exit,
        stdout: collected.stdout,
        stderr: collected.stderr,
        usage: account.usage,
        runtime: backend.runtime(),
        image,
        timeout_ms: millis(timeout),
    };
    match result {
        Some(Ok(exit)) if exit.timed_out => Err(EngineError::Timeout { outcome: Box::new(outcome(exit)) }),
        Some(Ok(exit)) => Ok(outcome(exit)),
        Some(Err(GuestError::Agent(error))) => Err(EngineError::Agent(error)),
        Some(Err(GuestError::TooLarge)) => Err(too_large()),
        Some(Err(error)) if account.oom_kills.is_some_and(|kills| kills > 0) => Err(lost(&format!(
            "it ran out of memory (its limit is {} MiB) and the kernel killed its agent: {error}",
            memory_bytes >> 20
        ))),
        Some(Err(error)) => Err(lost(&error.to_string())),
        // Its agent says nothing: stopped by what runs there, or starved by it. The sandbox is killed with both.
        None => Err(EngineError::Timeout {
            outcome: Box::new(outcome(ExitReport {
                signal: Some(SIGKILL),
                timed_out: true,
                duration_us: micros(started.elapsed()),
                ..ExitReport::default()
            })),
        }),
    }
}

/// See signal(7).
pub(super) const SIGKILL: i32 = 9;

/// The refusal of a command that is too large to be told to an agent.
pub(super) fn too_large() -> EngineError {
    let message = GuestError::TooLarge.to_string();
    EngineError::Agent(AgentError { kind: AgentErrorKind::TooLarge, message, errno: 0 })
}

fn lost(reason: &str) -> EngineError {
    SandboxError::Lost { reason: reason.to_owned() }.into()
}

/// An id that is a hostname too: short, lower case, random at its end.
fn new_sandbox_id() -> SandboxId {
    let id = uuid::Uuid::now_v7().simple().to_string();
    SandboxId(format!("sb-{}", &id[16..]))
}

/// What is run, on whatever sandbox.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) program: Program,
    /// Beyond the image's.
    pub(super) env: Vec<(String, String)>,
    pub(super) working_dir: Option<String>,
    pub(super) user: Option<String>,
    pub(super) stdin: Option<Vec<u8>>,
    pub(super) files: Vec<InputFile>,
    pub(super) timeout: Duration,
    pub(super) max_output_bytes: u64,
    pub(super) held: Option<Held>,
}

impl Call {
    /// The same with what the image says where the caller said nothing.
    pub(super) fn for_image(self, image: &ImageDefaults) -> ExecCall {
        let files: Vec<ExecFile> = self
            .files
            .iter()
            .map(|file| ExecFile {
                path: file.path.clone(),
                mode: file.mode,
                size: u64::try_from(file.content.len()).unwrap_or(u64::MAX),
                secret: file.secret,
            })
            .collect();
        let mut env = image.env.clone();
        env.extend(self.env);
        ExecCall {
            request: ExecRequest {
                program: self.program,
                env,
                cwd: self.working_dir.or_else(|| image.working_dir.clone()),
                user: self.user.or_else(|| image.user.clone()),
                files,
                stdin: self.stdin.is_some(),
                timeout_ms: Some(millis(self.timeout)),
                max_output_bytes: self.max_output_bytes,
                cpu_time_limit_s: None,
                finish_ms: None,
                lasting: None,
            },
            files: self.files.into_iter().map(|file| file.content).collect(),
            stdin: self.stdin,
            held: self.held,
        }
    }
}

/// The image of a sandbox as the image store knows it.
#[cfg_attr(
    not(all(target_os = "linux", feature = "native")),
    expect(clippy::missing_const_for_fn, reason = "it is one only where there is no image store")
)]
pub(super) fn image_id(spec: &SandboxSpec) -> Option<String> {
    #[cfg(all(target_os = "linux", feature = "native"))]
    return spec.stored.as_ref().map(|lease| lease.id().to_string());
    #[cfg(not(all(target_os = "linux", feature = "native")))]
    {
        let _ = spec;
        None
    }
}
