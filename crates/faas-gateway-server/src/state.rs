//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use faas_executor::store::AnyStore;

use crate::answer_budget::AnswerBudget;
use crate::body_budget::BodyBudget;
use crate::config::LimitRules;
use crate::executions::Executions;
use crate::idempotency::Keys;

/// The server's state. One, behind an `Arc`.
pub(crate) struct State {
    pub(crate) engine: Box<dyn Executions>,
    pub(crate) instances: faas_executor::Instances,
    #[cfg(all(target_os = "linux", feature = "native"))]
    pub(crate) images: faas_executor::images::ImageStore,
    pub(crate) store: AnyStore,
    pub(crate) keys: Keys,
    pub(crate) limits: LimitRules,
    pub(crate) bodies: BodyBudget,
    pub(crate) answers: AnswerBudget,
    /// How long a body may take to arrive.
    pub(crate) body_timeout: Duration,
    pub(crate) started: Instant,
    /// Whether the server is shutting down.
    pub(crate) draining: AtomicBool,
}

/// [`State`] as handlers get it.
pub(crate) type Shared = Arc<State>;

impl State {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}
