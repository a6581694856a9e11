//! One line in the log for each request: at `info`, or at `debug` where only a monitor asks, and nothing is built for a
//! level that is off. Never a body, a query, an environment or a secret.

use std::time::Instant;

use axum::http::{Method, StatusCode};
use faas_types::RequestId;
use tracing::Span;

/// Routes that are asked again and again by monitors.
const MONITORED: [&str; 4] = ["/livez", "/readyz", "/health", "/version"];

/// The span of one request; what is logged within it has its id.
pub(crate) fn span(request_id: &RequestId, method: &Method, path: &str) -> Span {
    if MONITORED.contains(&path) {
        tracing::debug_span!("request", %request_id, %method, path)
    } else {
        tracing::info_span!("request", %request_id, %method, path)
    }
}

/// Writes the line when the request ends: answered, or dropped because the client went away.
pub(crate) struct AccessLog {
    span: Span,
    begun: Instant,
    status: Option<StatusCode>,
}

impl AccessLog {
    pub(crate) fn begin(span: Span) -> Self {
        Self { span, begun: Instant::now(), status: None }
    }

    pub(crate) fn answered(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        if self.span.is_disabled() {
            return;
        }
        let latency_us = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let monitored = self.span.metadata().is_some_and(|span| *span.level() == tracing::Level::DEBUG);
        let _entered = self.span.enter();
        match self.status.map(|status| status.as_u16()) {
            Some(status) if monitored => tracing::debug!(status, latency_us, "answered"),
            Some(status) => tracing::info!(status, latency_us, "answered"),
            None => tracing::info!(latency_us, "the client went away"),
        }
    }
}
