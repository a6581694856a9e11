//! What the store holds, as values.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::StoreError;

/// An instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// A name that no other instance of the tenant has.
    pub name: Option<String>,
    /// Its state.
    pub status: String,
    /// Why it is in that state.
    pub status_reason: Option<String>,
    /// The runtime.
    pub runtime: String,
    /// The image.
    pub image: String,
    /// What it was made from; the store does not look into it.
    pub spec: Value,
    /// How its backend finds it again; the store does not look into it.
    pub record: Option<Value>,
    /// The caller's own words.
    pub labels: BTreeMap<String, String>,
    /// When it was asked for.
    pub created_at_ms: i64,
    /// When it was last written.
    pub updated_at_ms: i64,
    /// When it ends by itself.
    pub expires_at_ms: Option<i64>,
    /// When it was last used.
    pub last_active_at_ms: i64,
    /// The instance it was branched from.
    pub parent_id: Option<String>,
    /// The snapshot it was made from.
    pub snapshot_id: Option<String>,
    /// Counts its writes, from 1.
    pub revision: i64,
}

/// Which instances of a list. All that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceFilter {
    /// One of these states; any, where it is empty.
    pub status: Vec<String>,
    /// Each of these labels.
    pub labels: BTreeMap<String, String>,
}

/// A place in a list that is sorted by the time of creation, the newest first: that of a page's last entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// When that was created.
    pub created_at_ms: i64,
    /// Its id.
    pub id: String,
}

/// An execution.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// The instance it runs in.
    pub instance_id: Option<String>,
    /// Its state.
    pub state: String,
    /// What was asked for; the store does not look into it.
    pub spec: Value,
    /// What came of it; the store does not look into it.
    pub result: Option<Value>,
    /// When it was asked for.
    pub created_at_ms: i64,
    /// When it ended.
    pub ended_at_ms: Option<i64>,
}

/// An event that is about to be kept.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// Whose it is.
    pub tenant: String,
    /// When it happened.
    pub at_ms: i64,
    /// What happened.
    pub kind: String,
    /// The id of what it happened to.
    pub subject: String,
    /// More about it.
    pub data: Value,
}

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its number.
    pub seq: i64,
    /// The rest of it.
    pub event: NewEvent,
}

/// Which events of a tenant. All that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of a kind that begins with one of these; any, where it is empty.
    pub kinds: Vec<String>,
    /// Of what has this id.
    pub subject: Option<String>,
}

impl EventFilter {
    /// Whether it lets an event through, as the store does.
    #[must_use]
    pub fn lets_through(&self, event: &NewEvent) -> bool {
        (self.kinds.is_empty() || self.kinds.iter().any(|kind| event.kind.starts_with(kind.as_str())))
            && self.subject.as_ref().is_none_or(|subject| event.subject == *subject)
    }
}

/// Which events are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventBounds {
    /// The number of the oldest one; where none is kept, that of the next to come.
    pub oldest: i64,
    /// The number of the last one that there was; 0 before the first.
    pub newest: i64,
}

/// A request that wants an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyClaim {
    /// Whose it is.
    pub tenant: String,
    /// The key.
    pub key: String,
    /// The route.
    pub route: String,
    /// The digest of all that makes two requests the same.
    pub fingerprint: Vec<u8>,
    /// Now.
    pub at_ms: i64,
    /// Whether a request that was interrupted by the end of its server is simply run again.
    pub rerun_interrupted: bool,
}

/// What a request that wants an idempotency key finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The key is this request's now.
    New,
    /// The first request with it still runs.
    Running,
    /// The first request was answered.
    Done(KeptAnswer),
    /// The key was used for something else.
    Mismatch,
    /// How far the first request came is not known: its server ended while it ran, or it could not be followed to the
    /// end of what it began.
    Interrupted,
}

/// The answer to a request with an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The headers that belong to it.
    pub headers: Vec<(String, String)>,
    /// The body; none where it was too large to be kept.
    pub body: Option<Vec<u8>>,
}

/// Text that both databases hold.
pub(super) fn text(text: &str) -> Result<&str, StoreError> {
    if text.contains('\0') { Err(StoreError::Text) } else { Ok(text) }
}

/// The same of text that may not be there.
pub(super) fn optional(given: Option<&String>) -> Result<Option<&str>, StoreError> {
    given.map(|given| text(given)).transpose()
}
