//! One program in a fresh sandbox.

use std::sync::Arc;
use std::time::{Duration, Instant};

use faas_guest_protocol::{ExecFile, ExecRequest};
use faas_types::{ExecutionId, SandboxId, Timings};
use tokio::sync::OwnedSemaphorePermit;

use super::{ExecuteSpec, ExecutionOutcome, Inner};
use crate::error::EngineError;
use crate::guest::{AgentConnection, ExecCall, ExecResult, GuestError};
use crate::sandbox::{Account, ImageDefaults, SandboxError, SandboxHandle, SandboxSpec};

/// How long after its timeout an execution may go on before its sandbox counts as lost: the agent, which keeps the
/// time, does not answer.
const AGENT_GRACE: Duration = Duration::from_secs(10);

/// A sandbox that is destroyed in the background when this is dropped, its place with it.
struct Running {
    inner: Arc<Inner>,
    runtime: faas_types::RuntimeChoice,
    sandbox: Option<SandboxHandle>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let (Some(sandbox), permit) = (self.sandbox.take(), self.permit.take()) else { return };
        let (inner, runtime) = (Arc::clone(&self.inner), self.runtime);
        self.inner.background.spawn(async move {
            let id = sandbox.id.clone();
            let destroyed = match inner.backends.choose(runtime) {
                Ok(backend) => backend.destroy(sandbox).await.map_err(EngineError::from),
                Err(error) => Err(error),
            };
            if let Err(error) = destroyed {
                tracing::error!(sandbox = %id, %error, "a sandbox could not be destroyed");
            }
            drop(permit);
        });
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(super) async fn execute(inner: &Arc<Inner>, spec: ExecuteSpec) -> Result<ExecutionOutcome, EngineError> {
    let runtime = match spec.runtime {
        faas_types::RuntimeChoice::Auto => inner.config.default_runtime,
        named => named,
    };
    let backend = inner.backends.choose(runtime)?;
    let queued = Instant::now();
    let permit = inner.permits.acquire().await?;
    let queue_us = micros(queued.elapsed());

    let image = spec.image.clone().unwrap_or_else(|| inner.config.default_image.clone());
    let execution_id = ExecutionId(format!("exe-{}", uuid::Uuid::now_v7().simple()));
    let sandbox_spec = SandboxSpec {
        id: new_sandbox_id(),
        image: image.clone(),
        limits: spec.limits,
        network: spec.network,
    };
    let creating = Instant::now();
    let sandbox = backend.create(&sandbox_spec).await?;
    let create_us = micros(creating.elapsed());
    let mut running =
        Running { inner: Arc::clone(inner), runtime, sandbox: Some(sandbox), permit: Some(permit) };
    let sandbox = running.sandbox.as_mut().ok_or_else(|| lost("it is gone before it was used"))?;

    tracing::debug!(sandbox = %sandbox.id, execution = %execution_id, labels = ?spec.labels, "created");
    let timeout_ms = u64::try_from(spec.timeout.as_millis()).unwrap_or(u64::MAX);
    let deadline = spec.timeout.saturating_add(AGENT_GRACE);
    let outcome = |result: ExecResult, account: Account| ExecutionOutcome {
        execution_id,
        timings: Timings { queue_us, create_us, exec_us: result.exit.duration_us },
        exit: result.exit,
        stdout: result.stdout,
        stderr: result.stderr,
        oom_killed: account.oom_killed,
        usage: account.usage,
        runtime: backend.runtime(),
        image: image.clone(),
        timeout_ms,
    };
    let stream = match sandbox.agent.take() {
        Some(stream) => stream,
        None => backend.connect(sandbox).await?,
    };
    let call = exec_call(spec, &sandbox.image);
    let mut agent = AgentConnection::new(stream);
    let result = match tokio::time::timeout(deadline, agent.exec(call)).await {
        Ok(result) => result,
        Err(_elapsed) => return Err(lost("its agent did not answer after the execution's timeout")),
    };
    let sandbox = running.sandbox.as_ref().ok_or_else(|| lost("it is gone while it was used"))?;
    let account = backend.account(sandbox).await?;
    match result {
        Ok(result) if result.exit.timed_out => {
            Err(EngineError::Timeout { outcome: Box::new(outcome(result, account)) })
        }
        Ok(result) => Ok(outcome(result, account)),
        Err(GuestError::Agent(error)) => Err(EngineError::Agent(error)),
        Err(error) if account.oom_killed => Err(lost(&format!(
            "it ran out of memory (its limit is {} MiB) and the kernel killed its agent: {error}",
            sandbox_spec.limits.memory_bytes >> 20
        ))),
        Err(error) => Err(lost(&error.to_string())),
    }
}

fn lost(reason: &str) -> EngineError {
    SandboxError::Lost { reason: reason.to_owned() }.into()
}

/// An id that is a hostname too: short, lower case, random at its end.
fn new_sandbox_id() -> SandboxId {
    let id = uuid::Uuid::now_v7().simple().to_string();
    SandboxId(format!("sb-{}", &id[16..]))
}

fn exec_call(spec: ExecuteSpec, image: &ImageDefaults) -> ExecCall {
    let files: Vec<ExecFile> = spec
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
    env.extend(spec.env);
    ExecCall {
        request: ExecRequest {
            program: spec.program,
            env,
            cwd: spec.working_dir.or_else(|| image.working_dir.clone()),
            user: spec.user.or_else(|| image.user.clone()),
            files,
            stdin: spec.stdin.is_some(),
            timeout_ms: Some(u64::try_from(spec.timeout.as_millis()).unwrap_or(u64::MAX)),
            max_output_bytes: spec.max_output_bytes,
            cpu_time_limit_s: None,
        },
        files: spec.files.into_iter().map(|file| file.content).collect(),
        stdin: spec.stdin,
    }
}
