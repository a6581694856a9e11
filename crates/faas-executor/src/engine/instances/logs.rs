//! What an instance has to tell: what became of it and what its main command said, in one order.

use std::collections::{BTreeSet, VecDeque};

use faas_guest_protocol::OutputStream;
use faas_types::{ExecutionId, ExecutionKind, InstanceId, TenantId};

use super::Instances;
use super::data::unsigned;
use super::executions::{ExecutionInfo, ExecutionOutput, OutputEvent};
use crate::engine::events::{Events, EventsError};
use crate::error::EngineError;
use crate::store::{Event, EventFilter, Store as _};

/// The most output of a tail, whatever its entries.
const MAX_BYTES: usize = 4 << 20;

/// How many events are read at once.
const PAGE: u32 = 256;

/// What happened or was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogItem {
    /// The instance became something.
    Event {
        /// What: `instance.running`, for example.
        kind: String,
        /// Why, where that does not go without saying.
        reason: Option<String>,
    },
    /// Its main command said something.
    Output {
        /// The run.
        execution: ExecutionId,
        /// The stream.
        stream: OutputStream,
        /// What.
        bytes: Vec<u8>,
    },
}

/// An entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub item: LogItem,
}

/// The newest entries, up to so many and so much.
#[derive(Debug)]
struct Tail {
    entries: VecDeque<LogEntry>,
    most: usize,
    bytes: usize,
}

fn size(entry: &LogEntry) -> usize {
    match &entry.item {
        LogItem::Event { .. } => 0,
        LogItem::Output { bytes, .. } => bytes.len(),
    }
}

impl Tail {
    fn new(most: usize) -> Self {
        Self { entries: VecDeque::new(), most, bytes: 0 }
    }

    fn push(&mut self, entry: LogEntry) {
        self.bytes += size(&entry);
        self.entries.push_back(entry);
        while self.entries.len() > self.most || self.bytes > MAX_BYTES {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= size(&oldest);
        }
    }
}

/// The log of an instance from now on.
#[derive(Debug)]
pub struct LogFollower {
    instances: Instances,
    events: Events,
    tenant: TenantId,
    id: InstanceId,
    /// Up to which number all events have been read.
    after: i64,
    ready: VecDeque<LogEntry>,
    /// Runs of the main command whose output has not been read to its end, the oldest first.
    runs: VecDeque<ExecutionOutput>,
    known: BTreeSet<ExecutionId>,
    is_over: bool,
}

fn of_event(event: &Event) -> LogEntry {
    let reason = event.event.data.get("reason").and_then(|reason| reason.as_str()).map(str::to_owned);
    let item = LogItem::Event { kind: event.event.kind.clone(), reason };
    LogEntry { at_ms: unsigned(event.event.at_ms), item }
}

fn of_output(id: &ExecutionId, event: OutputEvent) -> Option<LogEntry> {
    match event {
        OutputEvent::Output { stream, at_ms, bytes, .. } => {
            Some(LogEntry { at_ms, item: LogItem::Output { execution: id.clone(), stream, bytes } })
        }
        OutputEvent::Gap { .. } | OutputEvent::End(_) => None,
    }
}

impl Instances {
    /// The newest `most` entries of an instance's log, the oldest first, and what comes after them.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn logs(
        &self,
        tenant: &TenantId,
        id: &InstanceId,
        most: usize,
    ) -> Result<(Vec<LogEntry>, LogFollower), EngineError> {
        self.live(tenant, id)?;
        let events = Events { inner: std::sync::Arc::clone(&self.inner) };
        let after = events.bounds().await?.newest;
        let mut tail = Tail::new(most);
        self.events_of(tenant, id, after, &mut tail).await?;
        let mut follower = LogFollower {
            instances: self.clone(),
            events,
            tenant: tenant.clone(),
            id: id.clone(),
            after,
            ready: VecDeque::new(),
            runs: VecDeque::new(),
            known: BTreeSet::new(),
            is_over: false,
        };
        let (mut said, mut bytes) = (Vec::new(), 0);
        // The newest first: what is older than enough is not read.
        for run in self.main_runs(tenant, id).await? {
            follower.known.insert(run.id.clone());
            if run.end.is_some() && (said.len() >= most || bytes >= MAX_BYTES) {
                continue;
            }
            let mut of_run = Tail::new(most);
            let mut output = match self.output(tenant, &run.id, None).await {
                Ok(output) => output,
                // It was the oldest, and has been forgotten meanwhile.
                Err(EngineError::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            let is_over = loop {
                match output.next_now().await? {
                    Some(OutputEvent::End(_)) => break true,
                    None => break false,
                    Some(event) => of_output(&run.id, event).into_iter().for_each(|entry| of_run.push(entry)),
                }
            };
            if !is_over {
                follower.runs.push_front(output);
            }
            bytes += of_run.bytes;
            said.splice(0..0, of_run.entries);
        }
        let mut entries: Vec<_> = tail.entries.into_iter().chain(said).collect();
        // What was said at the same time stays in its order.
        entries.sort_by_key(|entry| entry.at_ms);
        let mut newest = Tail::new(most);
        entries.into_iter().for_each(|entry| newest.push(entry));
        Ok((newest.entries.into(), follower))
    }

    /// Puts the events of an instance up to the number `last` into a tail.
    async fn events_of(
        &self,
        tenant: &TenantId,
        id: &InstanceId,
        last: i64,
        tail: &mut Tail,
    ) -> Result<(), EngineError> {
        let filter = EventFilter { kinds: Vec::new(), subject: Some(id.as_str().to_owned()) };
        let mut after = 0;
        loop {
            let page = self.inner.store.filtered_events(tenant.as_str(), &filter, after, PAGE).await?;
            let Some(newest) = page.last().map(|event| event.seq) else { return Ok(()) };
            page.iter().filter(|event| event.seq <= last).for_each(|event| tail.push(of_event(event)));
            after = newest;
        }
    }

    /// The runs of an instance's main command that are kept, the newest first.
    async fn main_runs(&self, tenant: &TenantId, id: &InstanceId) -> Result<Vec<ExecutionInfo>, EngineError> {
        let mut runs = self.all_executions(tenant, id).await?;
        runs.retain(|run| run.kind == ExecutionKind::Main);
        Ok(runs)
    }
}

impl LogFollower {
    /// The next entry. None after the instance's end. Dropping the future may lose what was about to come: for a caller
    /// who then drops this, too.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn next(&mut self) -> Result<Option<LogEntry>, EngineError> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            if let Some(run) = self.runs.front_mut() {
                let id = run.info().id;
                match run.next_now().await? {
                    Some(OutputEvent::End(_)) => {
                        self.runs.pop_front();
                        continue;
                    }
                    Some(event) => {
                        self.ready.extend(of_output(&id, event));
                        continue;
                    }
                    None => {}
                }
            }
            if self.read_events().await? {
                continue;
            }
            if self.is_over {
                return Ok(None);
            }
            let closed = self.instances.inner.closed.clone();
            let more = async {
                match self.runs.front_mut() {
                    Some(run) => run.more().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                more = more => more?,
                more = self.events.more(self.after) => more?,
                () = closed.cancelled() => return Err(EngineError::ShuttingDown),
            }
        }
    }

    /// Takes in what happened. Whether there was anything.
    async fn read_events(&mut self) -> Result<bool, EngineError> {
        if self.is_over {
            return Ok(false);
        }
        let page = self.events.page(self.tenant.as_str(), &EventFilter::default(), self.after, PAGE).await;
        let page = match page {
            Ok(page) => page,
            Err(EventsError::Gone { oldest }) => {
                // More happened than is kept while this reader was slow; the end of the instance too, perhaps.
                self.after = oldest - 1;
                self.is_over = self.instances.live(&self.tenant, &self.id).is_err();
                return Ok(true);
            }
            Err(EventsError::Store(error)) => return Err(error.into()),
        };
        let was = std::mem::replace(&mut self.after, page.next);
        for event in &page.events {
            let about = &event.event;
            if about.subject == self.id.as_str() {
                self.ready.push_back(of_event(event));
                self.is_over |= about.kind == "instance.deleted";
            }
            let of_main = about.kind == "execution.started"
                && about.data.get("instance_id").and_then(|id| id.as_str()) == Some(self.id.as_str())
                && about.data.get("kind").and_then(|kind| kind.as_str()) == Some("main");
            let run = ExecutionId(about.subject.clone());
            if of_main && self.known.insert(run.clone()) {
                match self.instances.output(&self.tenant, &run, None).await {
                    Ok(output) => self.runs.push_back(output),
                    // It was removed meanwhile, with its instance.
                    Err(EngineError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(self.after > was)
    }
}

#[cfg(test)]
mod tests {
    use faas_guest_protocol::OutputStream;
    use faas_types::ExecutionId;

    use super::{LogEntry, LogItem, MAX_BYTES, Tail};

    #[test]
    fn a_tail_has_the_newest_up_to_so_many_and_so_much() {
        let said = |at_ms, bytes| LogEntry {
            at_ms,
            item: LogItem::Output {
                execution: ExecutionId("e".into()),
                stream: OutputStream::Stdout,
                bytes: vec![0; bytes],
            },
        };
        let mut tail = Tail::new(2);
        (0..5).for_each(|at| tail.push(said(at, 1)));
        assert_eq!(tail.entries.iter().map(|entry| entry.at_ms).collect::<Vec<_>>(), [3, 4]);
        let mut tail = Tail::new(100);
        (0..5).for_each(|at| tail.push(said(at, MAX_BYTES / 2)));
        assert_eq!((tail.entries.len(), tail.bytes), (2, MAX_BYTES));
    }
}
