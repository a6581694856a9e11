//! What can be asked of an execution that is there.

use std::sync::Arc;

use faas_guest_protocol::{AgentErrorKind, LastingId, TtySize};
use faas_types::{ExecutionId, InstanceId, TenantId, TerminalSize};

use super::super::Instances;
use super::super::data::signed;
use super::super::live::Live;
use super::Running;
use super::data::ExecutionInfo;
use super::start::ANSWERED_WITHIN;
use crate::error::EngineError;
use crate::guest::{AgentClient, GuestError};
use crate::sandbox::SandboxError;
use crate::store::{Position, Store as _};

/// An execution and what of its output is held.
#[derive(Clone, Debug)]
pub struct ExecutionView {
    /// It.
    pub info: ExecutionInfo,
    /// The offset of the first byte that is held.
    pub first_offset: u64,
    /// The offset after the last byte so far.
    pub next_offset: u64,
}

/// A page of a list of executions.
#[derive(Debug)]
pub struct ExecutionPage {
    /// The newest first.
    pub executions: Vec<ExecutionView>,
    /// Where the next page begins, where there is one.
    pub next: Option<Position>,
}

/// A running lasting execution, its instance, and a connection to the agent there.
struct Reached {
    running: Arc<Running>,
    live: Arc<Live>,
    wire: LastingId,
    client: AgentClient,
}

fn missing(id: &ExecutionId) -> EngineError {
    EngineError::NotFound { what: format!("execution {id}") }
}

/// What an agent said of a question about a lasting execution.
pub(super) fn from_guest(error: GuestError) -> EngineError {
    match error {
        GuestError::Agent(error) if error.kind == AgentErrorKind::BadRequest => {
            EngineError::Conflict { reason: error.message }
        }
        GuestError::Agent(error)
            if matches!(error.kind, AgentErrorKind::Ended | AgentErrorKind::NoExecution) =>
        {
            EngineError::Conflict { reason: "the execution has ended".to_owned() }
        }
        GuestError::Agent(error) => error.into(),
        GuestError::TooLarge => crate::engine::execute::too_large(),
        error => SandboxError::Lost { reason: error.to_string() }.into(),
    }
}

impl Instances {
    /// One execution: lasting, or one that somebody waits for now.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] where the tenant has none of that id.
    pub async fn execution(&self, tenant: &TenantId, id: &ExecutionId) -> Result<ExecutionView, EngineError> {
        if let Some(running) = self.inner.executions.get(id).filter(|one| one.info.tenant == *tenant) {
            return self.view_of(&running).await;
        }
        let row = self.inner.store.execution(tenant.as_str(), id.as_str()).await?;
        let info = ExecutionInfo::from_row(row.ok_or_else(|| missing(id))?)?;
        let next = info.end.as_ref().map_or(0, |end| end.next_offset);
        self.view(info, next).await
    }

    pub(super) async fn view_of(&self, running: &Running) -> Result<ExecutionView, EngineError> {
        let (info, next) = running.now();
        self.view(info, next).await
    }

    async fn view(&self, info: ExecutionInfo, next_offset: u64) -> Result<ExecutionView, EngineError> {
        if info.wire == 0 {
            return Ok(ExecutionView { info, first_offset: 0, next_offset });
        }
        let (logs, instance, id) =
            (self.inner.outputs.clone(), info.instance.as_str().to_owned(), info.id.as_str().to_owned());
        let first = tokio::task::spawn_blocking(move || logs.first(&instance, &id, next_offset));
        let first_offset = first.await.map_err(std::io::Error::other)??;
        Ok(ExecutionView { info, first_offset, next_offset })
    }

    /// The lasting executions of an instance, the newest first.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn executions(
        &self,
        tenant: &TenantId,
        instance: &InstanceId,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<ExecutionPage, EngineError> {
        self.live(tenant, instance)?;
        // Those that end while the rows are read are shown as they are here.
        let running = self.inner.executions.of(instance);
        let one_more = u32::try_from(limit).unwrap_or(u32::MAX).saturating_add(1);
        let rows = self.inner.store.executions(tenant.as_str(), instance.as_str(), after, one_more).await?;
        let more = rows.len() > limit;
        let mut executions = Vec::new();
        for row in rows.into_iter().take(limit) {
            let stored = ExecutionInfo::from_row(row)?;
            let (info, next) = match running.iter().find(|one| one.info.id == stored.id) {
                Some(running) => running.now(),
                None => {
                    let next = stored.end.as_ref().map_or(0, |end| end.next_offset);
                    (stored, next)
                }
            };
            executions.push(self.view(info, next).await?);
        }
        let next = executions.last().filter(|_| more).map(|last| Position {
            created_at_ms: signed(last.info.created_at_ms),
            id: last.info.id.as_str().to_owned(),
        });
        Ok(ExecutionPage { executions, next })
    }

    /// Writes to its standard input and, with `eof`, ends that; returns when the program's pipe or terminal has taken
    /// all of it. When the future is dropped what was sent until then stays sent.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] where it has ended, or reads no more.
    pub async fn input(
        &self,
        tenant: &TenantId,
        id: &ExecutionId,
        bytes: &[u8],
        eof: bool,
    ) -> Result<(), EngineError> {
        let Reached { running, wire, client, .. } = self.reach(tenant, id).await?;
        let conflict = |reason: &str| EngineError::Conflict { reason: reason.to_owned() };
        if !running.info.stdin_open {
            return Err(conflict("its standard input is not open: stdin_open was not asked for"));
        }
        let _turn = running.stdin.lock().await;
        if !bytes.is_empty() && !client.stdin(wire, bytes).await.map_err(from_guest)? {
            return Err(conflict("it does not read its standard input any more"));
        }
        if eof {
            client.stdin_eof(wire).await.map_err(from_guest)?;
        }
        Ok(())
    }

    /// Sends a signal to the process group that it began with.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] where it has ended.
    pub async fn signal(&self, tenant: &TenantId, id: &ExecutionId, signal: i32) -> Result<(), EngineError> {
        let Reached { live, wire, client, .. } = self.reach(tenant, id).await?;
        self.answered(&live, client.signal(wire, signal)).await
    }

    /// Changes the size of its terminal.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] where it has ended, or has no terminal.
    pub async fn resize(
        &self,
        tenant: &TenantId,
        id: &ExecutionId,
        size: TerminalSize,
    ) -> Result<(), EngineError> {
        let Reached { live, wire, client, .. } = self.reach(tenant, id).await?;
        self.answered(&live, client.resize(wire, TtySize { rows: size.rows, cols: size.cols })).await
    }

    /// Kills everything that it started and returns when it has ended; one that has ended stays as it is.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn cancel(&self, tenant: &TenantId, id: &ExecutionId) -> Result<(), EngineError> {
        let running = self.inner.executions.get(id).filter(|one| one.info.tenant == *tenant);
        let Some(running) = running else {
            // It has ended, or never was.
            return self.execution(tenant, id).await.map(drop);
        };
        if running.wire.is_none() {
            running.unwanted.cancel();
            return self.seen_to_end(&running).await;
        }
        match self.reach(tenant, id).await {
            Ok(Reached { live, wire, client, .. }) => match self.answered(&live, client.cancel(wire)).await {
                // It has ended meanwhile.
                Ok(()) | Err(EngineError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            },
            Err(EngineError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
        self.seen_to_end(&running).await
    }

    /// Returns when it has ended, or nobody waits for it any more; it is not long now.
    async fn seen_to_end(&self, running: &Running) -> Result<(), EngineError> {
        let mut progress = running.progress.subscribe();
        let ended = async {
            tokio::select! {
                ended = progress.wait_for(|progress| progress.end.is_some()) => ended.is_ok(),
                () = running.given_up.cancelled() => true,
            }
        };
        tokio::select! {
            ended = tokio::time::timeout(ANSWERED_WITHIN, ended) => match ended {
                Ok(true) => Ok(()),
                Ok(false) => Err(EngineError::ShuttingDown),
                Err(_elapsed) => {
                    let reason = "its agent was told to end it, and does not say that it has".to_owned();
                    Err(SandboxError::Lost { reason }.into())
                }
            },
            () = self.inner.closed.cancelled() => Err(EngineError::ShuttingDown),
        }
    }

    /// What its agent answers, which must be soon.
    async fn answered(
        &self,
        live: &Live,
        asked: impl Future<Output = Result<(), GuestError>>,
    ) -> Result<(), EngineError> {
        self.in_time(live, ANSWERED_WITHIN, asked).await.map_err(from_guest)
    }

    /// A running lasting execution and a connection to its agent. Its instance is awake.
    async fn reach(&self, tenant: &TenantId, id: &ExecutionId) -> Result<Reached, EngineError> {
        let running = self.inner.executions.get(id).filter(|one| one.info.tenant == *tenant);
        let Some(running) = running else {
            self.execution(tenant, id).await?;
            return Err(EngineError::Conflict { reason: "the execution has ended".to_owned() });
        };
        let wire = running.wire.ok_or(EngineError::NotLasting)?;
        let live = self.live(tenant, &running.info.instance)?;
        let _in_use = live.use_it();
        self.wake(&live).await?;
        let (client, _count) = self.client(&live).await?;
        Ok(Reached { running, live, wire, client })
    }
}
