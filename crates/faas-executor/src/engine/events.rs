//! Lifecycle events for whoever reads along: the newest from memory, since all who follow want the same ones, older ones
//! from the store. A reader is a number, that of the last event it has seen, and nothing else: it costs nothing here, and
//! one that is slow holds up nobody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Inner;
use crate::store::{Event, EventBounds, EventFilter, Store as _, StoreError};

/// How many events are in memory.
const KEPT: u32 = 256;

/// How often followers look without having been woken: an event whose writer was dropped wakes nobody.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why there are no events for a reader.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// Some of those that come next are not kept any more.
    #[error("events before number {oldest} are no longer kept")]
    Gone {
        /// The number of the oldest that is.
        oldest: i64,
    },
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Some events, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct EventPage {
    /// They.
    pub events: Vec<Arc<Event>>,
    /// The number after which a reader of these goes on.
    pub next: i64,
}

/// The lifecycle events of an engine. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Events {
    pub(super) inner: Arc<Inner>,
}

/// The newest events of all tenants, without a hole.
#[derive(Debug, Default)]
pub(super) struct Tail {
    kept: Mutex<Kept>,
    /// Held by the one who reads on in the store.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Arc<Event>>,
    /// All events after this number are here, up to `newest`.
    before: i64,
    newest: i64,
    /// When the store was last read, and how often it had said by then that there may be more.
    read: Option<(Instant, u64)>,
}

impl Kept {
    fn is_fresh(&self, told: u64) -> bool {
        self.read.is_some_and(|(at, then)| then == told && at.elapsed() < LOOK_EVERY)
    }

    /// Adds what was found in the store after `from`.
    fn add(&mut self, from: i64, found: Vec<Event>, bounds: EventBounds) {
        let begins = found.first().map_or(bounds.newest, |first| first.seq - 1);
        if begins != self.newest || from != self.newest {
            self.events.clear();
            self.before = begins.max(from);
        }
        self.newest = found.last().map_or(bounds.newest, |last| last.seq.max(bounds.newest));
        self.events.extend(found.into_iter().map(Arc::new));
        let spare = self.events.len().saturating_sub(KEPT as usize);
        if let Some(last) = self.events.drain(..spare).next_back() {
            self.before = last.seq;
        }
    }

    /// A page, unless it begins before what is here.
    fn page(&self, tenant: &str, filter: &EventFilter, after: i64, limit: u32) -> Option<EventPage> {
        if after < self.before {
            return None;
        }
        let begin = self.events.partition_point(|event| event.seq <= after);
        let wanted = |event: &&Arc<Event>| event.event.tenant == tenant && filter.lets_through(&event.event);
        let events: Vec<_> =
            self.events.range(begin..).filter(wanted).take(limit as usize).cloned().collect();
        let next = match events.last() {
            Some(last) if events.len() == limit as usize => last.seq,
            _ => self.newest.max(after),
        };
        Some(EventPage { events, next })
    }
}

impl Tail {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // No code panics while it holds the lock halfway through a change.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events {
    /// Which events are kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn bounds(&self) -> Result<EventBounds, StoreError> {
        self.inner.store.event_bounds().await
    }

    /// Those of a tenant after the number `after` that the filter lets through, at most `limit` (at least 1); none where
    /// there are none yet.
    ///
    /// # Errors
    /// [`EventsError::Gone`] where some after `after` are not kept any more, and others.
    pub async fn page(
        &self,
        tenant: &str,
        filter: &EventFilter,
        after: i64,
        limit: u32,
    ) -> Result<EventPage, EventsError> {
        let newest = self.read_on().await?;
        if let Some(page) = self.inner.tail.kept().page(tenant, filter, after, limit) {
            return Ok(page);
        }
        let found = self.inner.store.filtered_events(tenant, filter, after, limit).await?;
        // Asked for afterwards: what was removed while the page was read is missed.
        let bounds = self.bounds().await?;
        let follows = found.first().is_some_and(|first| first.seq == after + 1);
        if after < bounds.oldest - 1 && !follows {
            return Err(EventsError::Gone { oldest: bounds.oldest });
        }
        let next = match found.last() {
            Some(last) if found.len() == limit as usize => last.seq,
            // Whatever there was up to `newest` has been looked at.
            last => last.map_or(newest, |last| last.seq.max(newest)).max(after),
        };
        Ok(EventPage { events: found.into_iter().map(Arc::new).collect(), next })
    }

    /// As [`page`](Self::page), for a reader that wants whatever is kept: where events after `after` are removed before they
    /// are read, it begins with the oldest that is left.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn page_of_kept(
        &self,
        tenant: &str,
        filter: &EventFilter,
        mut after: i64,
        limit: u32,
    ) -> Result<EventPage, StoreError> {
        loop {
            match self.page(tenant, filter, after, limit).await {
                Ok(page) => return Ok(page),
                Err(EventsError::Gone { oldest }) => after = oldest - 1,
                Err(EventsError::Store(error)) => return Err(error),
            }
        }
    }

    /// Resolves when there is an event after the number `after`, whatever it is about. Dropping it is no loss.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn more(&self, after: i64) -> Result<(), StoreError> {
        let mut told = self.inner.store.appended();
        loop {
            told.mark_unchanged();
            if self.read_on().await? > after {
                return Ok(());
            }
            // Whether it was woken or not, it looks again; the store, which wakes it, is there as long as this is.
            let _woken = tokio::time::timeout(LOOK_EVERY, told.changed()).await;
        }
    }

    /// Takes what is new in the store into memory, unless that was just done; the number of the newest event.
    async fn read_on(&self) -> Result<i64, StoreError> {
        let Inner { store, tail, .. } = &*self.inner;
        let told = || *store.appended().borrow();
        let fresh = |kept: &Kept| kept.is_fresh(told()).then_some(kept.newest);
        if let Some(newest) = fresh(&tail.kept()) {
            return Ok(newest);
        }
        let _turn = tail.turn.lock().await;
        // Somebody may have been faster.
        if let Some(newest) = fresh(&tail.kept()) {
            return Ok(newest);
        }
        let read = (Instant::now(), told());
        let bounds = store.event_bounds().await?;
        let from = tail.kept().newest.max(bounds.newest - i64::from(KEPT));
        let found = if bounds.newest > from { store.all_events(from, KEPT).await? } else { Vec::new() };
        let mut kept = tail.kept();
        if bounds.newest > kept.newest || kept.read.is_none() {
            kept.add(from, found, bounds);
        }
        kept.read = Some(read);
        Ok(kept.newest)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use faas_types::RuntimeChoice;

    use super::{EventsError, KEPT, Kept};
    use crate::store::{Event, EventBounds, EventFilter, NewEvent, Store as _};
    use crate::{Engine, EngineConfig, EventRetention, PullPolicy};

    fn events(numbers: std::ops::RangeInclusive<i64>) -> Vec<Event> {
        let event = |seq: i64| Event {
            seq,
            event: NewEvent {
                tenant: if seq % 10 == 0 { "other" } else { "default" }.to_owned(),
                at_ms: seq,
                kind: if seq % 2 == 0 { "instance.running" } else { "execution.ended" }.to_owned(),
                subject: format!("s{}", seq % 3),
                data: serde_json::Value::Null,
            },
        };
        numbers.map(event).collect()
    }

    fn read(kept: &Kept, filter: &EventFilter, after: i64, limit: u32) -> Option<(Vec<i64>, i64)> {
        let page = kept.page("default", filter, after, limit)?;
        Some((page.events.iter().map(|event| event.seq).collect(), page.next))
    }

    #[test]
    fn what_is_new_follows_what_is_there_and_the_oldest_go() {
        let most = i64::from(KEPT);
        let (all, mut kept) = (EventFilter::default(), Kept::default());
        kept.add(0, events(1..=3), EventBounds { oldest: 1, newest: 3 });
        assert_eq!(read(&kept, &all, 0, 10), Some((vec![1, 2, 3], 3)));
        assert_eq!(read(&kept, &all, 0, 2), Some((vec![1, 2], 2)));
        assert_eq!(read(&kept, &all, 3, 2), Some((vec![], 3)));
        // One more than the store had said has come meanwhile.
        kept.add(3, events(4..=6), EventBounds { oldest: 1, newest: 5 });
        assert_eq!(read(&kept, &all, 2, 10), Some((vec![3, 4, 5, 6], 6)));
        kept.add(6, events(7..=most + 2), EventBounds { oldest: 1, newest: most + 2 });
        assert_eq!(kept.events.len(), KEPT as usize);
        assert_eq!(read(&kept, &all, 1, 10), None);
        assert_eq!(read(&kept, &all, 2, 2), Some((vec![3, 4], 4)));
    }

    #[test]
    fn a_hole_makes_it_begin_anew() {
        let (all, mut kept) = (EventFilter::default(), Kept::default());
        kept.add(0, events(1..=3), EventBounds { oldest: 1, newest: 3 });
        kept.add(500, events(501..=503), EventBounds { oldest: 400, newest: 503 });
        assert_eq!(read(&kept, &all, 499, 10), None);
        assert_eq!(read(&kept, &all, 500, 10).unwrap().0, [501, 502, 503]);
        // The first of those that came were removed before they were read, then all of them.
        kept.add(503, events(506..=507), EventBounds { oldest: 504, newest: 507 });
        assert_eq!(read(&kept, &all, 504, 10), None);
        assert_eq!(read(&kept, &all, 505, 10).unwrap().0, [506, 507]);
        kept.add(507, Vec::new(), EventBounds { oldest: 510, newest: 509 });
        assert_eq!(read(&kept, &all, 508, 10), None);
        assert_eq!(read(&kept, &all, 509, 10), Some((vec![], 509)));
    }

    #[test]
    fn a_filtered_reader_goes_on_after_what_it_does_not_see() {
        let mut kept = Kept::default();
        kept.add(0, events(1..=12), EventBounds { oldest: 1, newest: 12 });
        let kinds = EventFilter { kinds: vec!["execution.".to_owned()], subject: None };
        assert_eq!(read(&kept, &kinds, 0, 3), Some((vec![1, 3, 5], 5)));
        assert_eq!(read(&kept, &kinds, 8, 10), Some((vec![9, 11], 12)));
        let both = EventFilter { kinds: vec!["instance.r".to_owned()], subject: Some("s2".to_owned()) };
        assert_eq!(read(&kept, &both, 0, 10), Some((vec![2, 8], 12)));
        let none = EventFilter { kinds: Vec::new(), subject: Some("else".to_owned()) };
        assert_eq!(read(&kept, &none, 0, 10), Some((vec![], 12)));
    }

    /// An engine without a runtime.
    async fn engine(data_dir: &std::path::Path) -> Engine {
        Engine::start(EngineConfig {
            data_dir: data_dir.to_owned(),
            database_url: None,
            #[cfg(feature = "docker")]
            docker: None,
            #[cfg(all(target_os = "linux", feature = "native"))]
            launcher_exe: "/bin/false".into(),
            #[cfg(all(target_os = "linux", feature = "native"))]
            native_slots: 1,
            #[cfg(all(target_os = "linux", feature = "native"))]
            images: crate::images::ImageStoreConfig::new("/bin/false".into()),
            pull: PullPolicy::Never,
            default_runtime: RuntimeChoice::Auto,
            default_image: "host".to_owned(),
            max_concurrent: 1,
            max_queued: 1,
            max_instances: 1,
            outputs: crate::OutputBudget::default(),
            events: EventRetention { max_events: 1000, ttl: Duration::from_secs(3600) },
        })
        .await
        .unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_kept_can_be_read_whatever_was_removed_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path()).await;
        let (store, reader, all) = (&engine.inner.store, engine.events(), EventFilter::default());
        for told in events(1..=8) {
            store.append_event(&told.event).await.unwrap();
        }
        let begin = reader.bounds().await.unwrap().oldest - 1;
        store.prune_events(0, 3).await.unwrap();
        let refused = reader.page("default", &all, begin, 10).await;
        assert!(matches!(refused, Err(EventsError::Gone { oldest: 6 })), "{refused:?}");
        let page = reader.page_of_kept("default", &all, begin, 2).await.unwrap();
        assert_eq!((page.events.iter().map(|event| event.seq).collect(), page.next), (vec![6, 7], 7));
        engine.shutdown(Duration::from_secs(10)).await;
    }
}
