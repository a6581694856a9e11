//! What all requests share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use faas_executor::store::AnyStore;
use tokio_util::sync::CancellationToken;

use crate::answer_budget::AnswerBudget;
use crate::body_budget::BodyBudget;
use crate::config::LimitRules;
use crate::executions::Executions;
use crate::idempotency::Keys;

/// The server's state. One, behind an `Arc`.
pub(crate) struct State {
    pub(crate) engine: Box<dyn Executions>,
    pub(crate) instances: faas_executor::Instances,
    pub(crate) events: faas_executor::Events,
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
    /// Cancelled when the server begins to shut down.
    pub(crate) draining: CancellationToken,
}

/// [`State`] as handlers get it.
pub(crate) type Shared = Arc<State>;

impl State {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    pub(crate) fn set_draining(&self) {
        self.draining.cancel();
    }
}
