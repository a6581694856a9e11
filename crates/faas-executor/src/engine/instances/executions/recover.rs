//! Lasting executions that an earlier server left.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use faas_guest_protocol::LastingId;
use faas_types::ExecutionKind;

use super::super::Instances;
use super::super::live::Live;
use super::Running;
use super::data::{ExecutionInfo, HowEnded, MainRun};
use crate::error::EngineError;
use crate::output_log::{OutputBudget, OutputLogs};
use crate::store::{AnyStore, Position, Store as _, StoreError};

/// How many rows are read at once.
const PAGE: u32 = 500;

/// Opens the output that is kept: what no row of the store leads to is removed.
pub(in crate::engine) async fn open_outputs(
    store: &AnyStore,
    dir: &Path,
    budget: OutputBudget,
) -> Result<OutputLogs, EngineError> {
    let known: BTreeSet<(String, String)> = store.execution_ids().await?.into_iter().collect();
    let dir = dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        OutputLogs::open(&dir, budget, |instance, id| known.contains(&(instance.to_owned(), id.to_owned())))
    });
    Ok(opened.await.map_err(std::io::Error::other)??)
}

/// After how long it is tried again.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

impl Instances {
    /// Finds the executions of an instance; where the store cannot be reached, in the background. Only for who has the
    /// turn.
    pub(in crate::engine::instances) async fn recover_executions_or_later(&self, live: &Arc<Live>) {
        let Err(error) = self.recover_executions(live).await else { return };
        tracing::warn!(instance = %live.info().id, %error, "what became of its executions is not known yet");
        let (this, live) = (self.clone(), Arc::clone(live));
        self.inner.background.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = this.inner.closed.cancelled() => return,
                    () = live.doomed.cancelled() => return,
                }
                let _turn = live.turn.lock().await;
                match this.recover_executions(&live).await {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(%error, "executions cannot be found yet"),
                }
            }
        });
    }

    /// Follows the executions of an instance that was found again, and ends those whose sandbox is not there. Only for
    /// who has the turn.
    async fn recover_executions(&self, live: &Arc<Live>) -> Result<(), EngineError> {
        let info = live.info();
        let count = {
            let place = live.place.read().await;
            place.sandbox.is_some().then_some(place.count)
        };
        let mut newest_main: Option<ExecutionInfo> = None;
        for execution in self.all_executions(&info.tenant, &info.id).await? {
            if execution.kind == ExecutionKind::Main && newest_main.is_none() {
                newest_main = Some(execution.clone());
            }
            if execution.end.is_some() || self.inner.executions.get(&execution.id).is_some() {
                continue;
            }
            let (logs, instance, id) =
                (self.inner.outputs.clone(), info.id.as_str().to_owned(), execution.id.as_str().to_owned());
            let writer = tokio::task::spawn_blocking(move || logs.writer(&instance, &id));
            let writer = writer.await.map_err(std::io::Error::other)??;
            let wire = LastingId::new(execution.wire);
            let running = Running::new(execution, wire, count.unwrap_or_default(), writer.next());
            self.inner.executions.insert(&running);
            if count.is_some() {
                self.follow(live, &running, writer, None);
            } else {
                drop(writer);
                let reason = match info.reason.clone() {
                    Some(reason) => format!("the instance is {}: {reason}", info.state.shown()),
                    None => format!("the instance is {}", info.state.shown()),
                };
                self.ended(live, &running, HowEnded::Lost { reason }).await;
            }
        }
        self.recover_main(live, newest_main, count);
        Ok(())
    }

    /// The server may have ended between the end of a main command and its next run. Before the first there was no
    /// instance that runs.
    fn recover_main(&self, live: &Arc<Live>, newest: Option<ExecutionInfo>, count: Option<u64>) {
        let (Some(count), Some(last)) = (count.filter(|_| live.info().main.is_some()), newest) else {
            return;
        };
        live.set_main_run(Some(MainRun { execution: last.id.clone(), restarts: last.restarts }));
        if last.end.is_some() {
            self.run_main_again(live, last, count);
        }
    }

    /// All lasting executions of an instance as the store has them, the newest first.
    pub(in crate::engine::instances) async fn all_executions(
        &self,
        tenant: &faas_types::TenantId,
        instance: &faas_types::InstanceId,
    ) -> Result<Vec<ExecutionInfo>, StoreError> {
        let mut all = Vec::new();
        let mut after: Option<Position> = None;
        loop {
            let rows =
                self.inner.store.executions(tenant.as_str(), instance.as_str(), after.as_ref(), PAGE).await?;
            let Some(last) = rows.last() else { return Ok(all) };
            after = Some(Position { created_at_ms: last.created_at_ms, id: last.id.clone() });
            for row in rows {
                all.push(ExecutionInfo::from_row(row)?);
            }
        }
    }
}
