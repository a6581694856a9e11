//! The output of an execution, for whoever wants it.

use std::sync::Arc;

use faas_guest_protocol::OutputStream;
use faas_types::{ExecutionId, TenantId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::live::InUse;
use super::super::{Instances, unseen};
use super::data::{ExecutionEnd, ExecutionInfo};
use super::{Progress, Running};
use crate::error::EngineError;
use crate::output_log::{OutputReader, Read};

/// What comes of an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputEvent {
    /// It said this.
    Output {
        /// Which of its streams.
        stream: OutputStream,
        /// Where its first byte is in the output of both.
        offset: u64,
        /// When it was read, in milliseconds since 1970.
        at_ms: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// What it said there is not held any more.
    Gap {
        /// The offset of the first byte of that.
        from: u64,
        /// The offset after the last.
        to: u64,
    },
    /// It has ended so. The last event.
    End(Arc<ExecutionEnd>),
}

/// The output of an execution from an offset on, and then its end. Dropping it ends nothing.
#[derive(Debug)]
pub struct ExecutionOutput {
    info: ExecutionInfo,
    reader: Option<OutputReader>,
    progress: watch::Receiver<Progress>,
    closed: CancellationToken,
    /// Its instance is not idle as long as somebody reads what runs there.
    _in_use: Option<InUse>,
}

impl ExecutionOutput {
    pub(super) fn of(
        instances: &Instances,
        running: &Arc<Running>,
        offset: u64,
        in_use: Option<InUse>,
    ) -> Self {
        Self::new(instances, running.info.clone(), running.progress.subscribe(), offset, in_use)
    }

    fn new(
        instances: &Instances,
        info: ExecutionInfo,
        progress: watch::Receiver<Progress>,
        offset: u64,
        in_use: Option<InUse>,
    ) -> Self {
        let logs = &instances.inner.outputs;
        let reader = Some(logs.reader(info.instance.as_str(), info.id.as_str(), offset));
        Self { info, reader, progress, closed: instances.inner.closed.clone(), _in_use: in_use }
    }

    /// The execution as it stands now.
    #[must_use]
    pub fn info(&self) -> ExecutionInfo {
        let end = self.progress.borrow().end.as_ref().map(|end| ExecutionEnd::clone(end));
        ExecutionInfo { end, ..self.info.clone() }
    }

    /// The offset of what comes next.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.reader.as_ref().map_or(0, OutputReader::offset)
    }

    /// What is there next, without waiting for more; none where that was all so far.
    ///
    /// # Errors
    /// [`EngineError::Output`] where the disk cannot be read.
    pub async fn next_now(&mut self) -> Result<Option<OutputEvent>, EngineError> {
        let (next, end) = {
            let progress = self.progress.borrow_and_update();
            (progress.next, progress.end.clone())
        };
        let from = self.offset();
        if from < next {
            return match self.read(next).await? {
                Read::Record(record) => Ok(Some(OutputEvent::Output {
                    stream: record.stream,
                    offset: record.offset,
                    at_ms: record.at_ms,
                    bytes: record.bytes,
                })),
                Read::Gap { to } => Ok(Some(OutputEvent::Gap { from, to })),
                Read::End => Ok(end.map(OutputEvent::End)),
            };
        }
        Ok(end.map(OutputEvent::End))
    }

    /// What comes next. Dropping the future may lose what was about to come: for a caller who then drops this, too.
    ///
    /// # Errors
    /// [`EngineError::Output`] where the disk cannot be read, [`EngineError::ShuttingDown`].
    pub async fn next(&mut self) -> Result<OutputEvent, EngineError> {
        loop {
            if let Some(event) = self.next_now().await? {
                return Ok(event);
            }
            self.more().await?;
        }
    }

    /// Resolves when there may be more. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`EngineError::ShuttingDown`] where nobody follows the execution any more.
    pub async fn more(&mut self) -> Result<(), EngineError> {
        if let Some(reader) = &mut self.reader {
            // Many wait, and for long.
            reader.rest();
        }
        tokio::select! {
            changed = self.progress.changed() => changed.map_err(|_| EngineError::ShuttingDown),
            () = self.closed.cancelled() => Err(EngineError::ShuttingDown),
        }
    }

    async fn read(&mut self, next: u64) -> Result<Read, EngineError> {
        let lost = || std::io::Error::other("a reader was interrupted");
        let mut reader = self.reader.take().ok_or_else(lost)?;
        let read = tokio::task::spawn_blocking(move || {
            let read = reader.read(next);
            (reader, read)
        });
        let (reader, read) = read.await.map_err(std::io::Error::other)?;
        self.reader = Some(reader);
        Ok(read?)
    }
}

impl Instances {
    /// The output of a lasting execution from an offset on, or from the first byte that is held.
    ///
    /// # Errors
    /// [`EngineError::OutputGone`] where the offset is not held any more, [`EngineError::OutputBeyond`] where it lies
    /// behind the end, [`EngineError::NotLasting`] for one that somebody waits for.
    pub async fn output(
        &self,
        tenant: &TenantId,
        id: &ExecutionId,
        offset: Option<u64>,
    ) -> Result<ExecutionOutput, EngineError> {
        // One that ends meanwhile is told of its end all the same.
        let registered = || self.inner.executions.get(id).filter(|one| one.info.tenant == *tenant);
        let running = registered();
        let view = match &running {
            Some(running) => self.view_of(running).await?,
            None => self.execution(tenant, id).await?,
        };
        if running.as_ref().is_some_and(|running| running.wire.is_none()) {
            return Err(EngineError::NotLasting);
        }
        let running = running.or_else(registered);
        if running.is_none() && view.info.end.is_none() {
            // An earlier server began it, and nobody has found it again yet.
            return Err(unseen(&self.get(tenant, &view.info.instance)?));
        }
        match offset {
            Some(offset) if offset > view.next_offset => {
                return Err(EngineError::OutputBeyond { next: view.next_offset });
            }
            Some(offset) if offset < view.first_offset => {
                return Err(EngineError::OutputGone { first: view.first_offset });
            }
            _ => {}
        }
        let offset = offset.unwrap_or(view.first_offset);
        let in_use = self.live(tenant, &view.info.instance).ok().map(|live| live.use_it());
        Ok(match running {
            Some(running) => ExecutionOutput::of(self, &running, offset, in_use),
            None => {
                let end = view.info.end.clone().map(Arc::new);
                let (_, progress) = watch::channel(Progress { next: view.next_offset, end });
                ExecutionOutput::new(self, view.info, progress, offset, None)
            }
        })
    }
}
