//! A new lasting execution.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use faas_guest_protocol::{AgentErrorKind, Lasting, LastingId, TtySize};
use faas_types::{ExecutionId, ExecutionKind, InstanceId, TenantId, TerminalSize};

use super::super::Instances;
use super::super::create::deleted_meanwhile;
use super::super::data::{InstanceInfo, now_ms};
use super::super::exec::ExecSpec;
use super::super::live::Live;
use super::data::{ExecutionInfo, HowEnded, shown};
use super::output::ExecutionOutput;
use super::verbs::from_guest;
use super::{MAX_RUNNING, Running};
use crate::engine::execute::{Call, millis};
use crate::error::EngineError;
use crate::guest::{AgentClient, GuestError, LastingCall};
use crate::sandbox::{Account, ImageDefaults};
use crate::store::Store as _;

/// How long an agent has to greet. It does at once, unless its sandbox is stopped or starved.
const GREETED_WITHIN: Duration = Duration::from_secs(10);

/// How long one has to take an order, files and all, and to begin it.
const STARTED_WITHIN: Duration = Duration::from_secs(60);

/// How long it has to answer anything else.
pub(super) const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// What stands for no limit of the output.
const UNLIMITED_BYTES: u64 = u64::MAX >> 1;

/// A lasting execution, validated. What `command` has as its timeout and its most output is not looked at; its standard
/// input is at most [`faas_guest_protocol::lasting::STDIN_WINDOW_BYTES`].
#[derive(Debug)]
pub struct LastingSpec {
    /// The command.
    pub command: ExecSpec,
    /// What it is to its instance.
    pub kind: ExecutionKind,
    /// Its wall time while the instance is not paused, where it has a limit.
    pub timeout: Option<Duration>,
    /// How many bytes of each of stdout and stderr are passed on, where there is a limit.
    pub max_output_bytes: Option<u64>,
    /// A terminal, where it is to have one.
    pub tty: Option<TerminalSize>,
    /// Whether its standard input stays open.
    pub stdin_open: bool,
    /// Whether nobody waits for it.
    pub background: bool,
    /// Whether it may have begun: for a caller to whom an error does not say.
    pub may_have_begun: MayHaveBegun,
}

/// Whether an execution may have begun. It may from just before its agent is ordered to start it, unless that answers that
/// it has not. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct MayHaveBegun(Arc<AtomicBool>);

impl MayHaveBegun {
    /// Whether it may.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Says whether it may.
    pub fn set(&self, may: bool) {
        self.0.store(may, Ordering::Release);
    }
}

impl Instances {
    /// Starts a lasting execution and returns when it runs: with its output from the first byte on. It is started whether
    /// the caller waits for that or not.
    ///
    /// # Errors
    /// [`EngineError`], among them [`EngineError::TooManyExecutions`]; a program that is not there is no error.
    pub async fn start_execution(
        &self,
        tenant: &TenantId,
        id: &InstanceId,
        spec: LastingSpec,
    ) -> Result<ExecutionOutput, EngineError> {
        if self.inner.is_closed() {
            return Err(EngineError::ShuttingDown);
        }
        let live = self.live(tenant, id)?;
        let in_use = live.use_it();
        self.wake(&live).await?;
        let this = self.clone();
        let running = self.to_its_end(async move { this.begin(&live, spec, 0).await }).await?;
        Ok(ExecutionOutput::of(self, &running, 0, Some(in_use)))
    }

    /// Starts one and has it followed.
    pub(super) async fn begin(
        &self,
        live: &Arc<Live>,
        spec: LastingSpec,
        restarts: u32,
    ) -> Result<Arc<Running>, EngineError> {
        let (client, count) = self.client(live).await?;
        let info = live.info();
        let (image, before) = {
            let place = live.place.read().await;
            match &place.sandbox {
                Some(sandbox) if place.count == count => {
                    let before = self.backend(info.runtime)?.account(sandbox).await.unwrap_or_default();
                    (sandbox.image.clone(), before)
                }
                _ => return Err(super::super::lifecycle::gone(live)),
            }
        };
        let wire = new_wire();
        let execution = execution_info(&info, &spec, wire, client.boot_id(), &before, restarts);
        let running = Running::new(execution, Some(wire), count, 0);
        if !self.inner.executions.insert_lasting(&running) {
            return Err(EngineError::TooManyExecutions { most: MAX_RUNNING });
        }
        let writer = {
            let (logs, instance, id) = (
                self.inner.outputs.clone(),
                info.id.as_str().to_owned(),
                running.info.id.as_str().to_owned(),
            );
            tokio::task::spawn_blocking(move || logs.writer(&instance, &id)).await
        };
        let begun = async {
            let writer = writer.map_err(std::io::Error::other)??;
            let event = running.info.event();
            self.inner.store.insert_execution(&running.info.to_row()?, Some(&event)).await?;
            Ok::<_, EngineError>(writer)
        };
        let writer = match begun.await {
            Ok(writer) => writer,
            Err(error) => {
                self.inner.executions.remove(&running.info.id);
                return Err(error);
            }
        };
        let may_have_begun = spec.may_have_begun.clone();
        let (call, stdin) = call(spec, &info, &image);
        may_have_begun.set(true);
        match self.in_time(live, STARTED_WITHIN, client.start_attached(wire, call, true)).await {
            Ok((_started, attachment)) => {
                if let Some((bytes, eof)) = stdin {
                    self.feed(&client, &running, wire, bytes, eof);
                }
                self.follow(live, &running, writer, Some(attachment));
                Ok(running)
            }
            Err(GuestError::Agent(error)) => {
                // Of one that it has begun, and then let go of, an agent says that there is none.
                may_have_begun.set(error.kind == AgentErrorKind::NoExecution);
                self.ended(live, &running, HowEnded::Failed { error: error.clone() }).await;
                Err(EngineError::Agent(error))
            }
            Err(GuestError::TooLarge) => {
                let error = GuestError::TooLarge;
                self.ended(live, &running, HowEnded::Lost { reason: error.to_string() }).await;
                Err(from_guest(error))
            }
            // It may run or not: whoever follows it finds out.
            Err(error) => {
                self.follow(live, &running, writer, None);
                Err(from_guest(error))
            }
        }
    }

    /// What an agent answers, as long as its instance is wanted and the server goes on: it may never.
    pub(super) async fn in_time<T>(
        &self,
        live: &Live,
        within: Duration,
        asked: impl Future<Output = Result<T, GuestError>>,
    ) -> Result<T, GuestError> {
        tokio::select! {
            answered = tokio::time::timeout(within, asked) => answered.unwrap_or(Err(GuestError::Lost)),
            () = live.doomed.cancelled() => Err(GuestError::Lost),
            () = self.inner.closed.cancelled() => Err(GuestError::Lost),
        }
    }

    /// Gives a program its standard input, whether it reads it or not. All of it is with the agent at once: it is no more
    /// than that takes, so the program gets it whatever becomes of the server.
    fn feed(&self, client: &AgentClient, running: &Running, wire: LastingId, bytes: Vec<u8>, eof: bool) {
        let (client, closed) = (client.clone(), self.inner.closed.clone());
        // Nobody else's input comes before it.
        let turn = Arc::clone(&running.stdin).try_lock_owned();
        self.inner.background.spawn(async move {
            let _turn = turn;
            let fed = async {
                let bytes =
                    async { if bytes.is_empty() { Ok(true) } else { client.stdin(wire, &bytes).await } };
                let end = async { if eof { client.stdin_eof(wire).await } else { Ok(()) } };
                // In this order: each is sent when it is first looked at.
                let (bytes, end) = tokio::join!(biased; bytes, end);
                bytes.and(end)
            };
            tokio::select! {
                fed = fed => if let Err(error) = fed {
                    tracing::debug!(%error, "a program ended before it had all of its input");
                },
                () = closed.cancelled() => {}
            }
        });
    }

    /// A connection to an instance's agent for many executions, and which of its sandboxes it is to.
    pub(super) async fn client(&self, live: &Arc<Live>) -> Result<(AgentClient, u64), EngineError> {
        let place = live.place.read().await;
        let Some(sandbox) = &place.sandbox else { return Err(super::super::lifecycle::gone(live)) };
        if let Some(client) = live.client(place.count) {
            return Ok((client, place.count));
        }
        let backend = self.backend(live.info().runtime)?;
        let connecting = async {
            let stream = backend.connect(sandbox).await?;
            AgentClient::connect(stream).await.map_err(from_guest)
        };
        let client = tokio::select! {
            reached = tokio::time::timeout(GREETED_WITHIN, connecting) => match reached {
                Ok(reached) => reached?,
                Err(_elapsed) => {
                    let reason = "its agent does not answer".to_owned();
                    return Err(crate::sandbox::SandboxError::Lost { reason }.into());
                }
            },
            // Whoever removes it waits for the place.
            () = live.doomed.cancelled() => return Err(deleted_meanwhile()),
        };
        live.set_client(place.count, client.clone());
        Ok((client, place.count))
    }
}

/// The id of a new execution.
pub(in crate::engine::instances) fn new_id() -> ExecutionId {
    ExecutionId(format!("exe-{}", uuid::Uuid::now_v7().simple()))
}

/// A number that no other execution of the sandbox has.
fn new_wire() -> LastingId {
    loop {
        let (_, low) = uuid::Uuid::new_v4().as_u64_pair();
        if let Some(id) = LastingId::new(low >> 1) {
            return id;
        }
    }
}

fn execution_info(
    instance: &InstanceInfo,
    spec: &LastingSpec,
    wire: LastingId,
    boot_id: u64,
    before: &Account,
    restarts: u32,
) -> ExecutionInfo {
    ExecutionInfo {
        id: new_id(),
        tenant: instance.tenant.clone(),
        instance: instance.id.clone(),
        runtime: instance.runtime,
        image: instance.image.clone(),
        kind: spec.kind,
        command: shown(&spec.command.program),
        background: spec.background,
        tty: spec.tty,
        stdin_open: spec.stdin_open || spec.tty.is_some(),
        labels: spec.command.labels.clone(),
        timeout_ms: spec.timeout.map(millis),
        max_output_bytes: spec.max_output_bytes,
        created_at_ms: now_ms(),
        restarts,
        end: None,
        wire: wire.get(),
        boot_id,
        oom_kills_before: before.oom_kills,
    }
}

/// What its agent is told, and what it is fed with afterwards: bytes, and whether that is all.
fn call(
    spec: LastingSpec,
    instance: &InstanceInfo,
    image: &ImageDefaults,
) -> (LastingCall, Option<(Vec<u8>, bool)>) {
    let stays_open = spec.stdin_open || spec.tty.is_some();
    let stdin = spec.command.stdin;
    let fed = stdin.map(|bytes| (bytes, !stays_open));
    let mut env = instance.defaults.env.clone();
    env.extend(spec.command.env);
    let call = Call {
        program: spec.command.program,
        env,
        working_dir: spec.command.working_dir.or_else(|| instance.defaults.working_dir.clone()),
        user: spec.command.user.or_else(|| instance.defaults.user.clone()),
        stdin: None,
        files: spec.command.files,
        timeout: Duration::ZERO,
        max_output_bytes: spec.max_output_bytes.unwrap_or(UNLIMITED_BYTES),
        held: spec.command.held,
    };
    let mut call = call.for_image(image);
    call.request.stdin = stays_open || fed.is_some();
    call.request.timeout_ms = spec.timeout.map(millis);
    let tty = spec.tty.map(|size| TtySize { rows: size.rows, cols: size.cols });
    call.request.lasting = Some(Lasting { log_bytes: None, tty });
    (LastingCall { request: call.request, files: call.files, held: call.held }, fed)
}
