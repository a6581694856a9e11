//! `/api/v1/events`: what has happened to instances and executions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Problem;

/// Something that has happened to an instance or an execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LifecycleEvent {
    /// Its number. Numbers grow in the order in which events become visible.
    pub seq: u64,
    /// When it happened (RFC 3339).
    pub at: String,
    /// What happened: `instance.running`, for example.
    pub kind: String,
    /// The id of the instance or execution that it happened to.
    pub subject: String,
    /// More about it, by its kind.
    pub data: serde_json::Value,
}

/// What a stream of events says.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum EventMessage {
    /// Something has happened.
    Event(LifecycleEvent),
    /// The last thing that is said of what could not go on.
    End(EventsEnd),
}

/// Why a stream of events could not go on.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventsEnd {
    /// What is the matter.
    Error(Problem),
}
