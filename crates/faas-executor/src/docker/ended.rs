//! Tells when a container has ended, and why.

use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::InspectContainerOptions;

use super::client::{CallError, QUICK};
use super::executor::DockerHandle;
use super::halt;
use super::shared::Shared;
use super::state::{Condition, condition, ending};
use crate::sandbox::{Ended, SandboxError};

/// How long the engine may need for the reason. Who waits for the end should not wait for that.
const REASON_WITHIN: Duration = Duration::from_secs(5);

/// How long one question to the engine may be under way.
const ASK_AGAIN: Duration = Duration::from_secs(10 * 60);

/// How long it is waited for an engine that is not there.
const STEP: Duration = Duration::from_secs(1);

/// What tells that `handle`'s container has ended.
pub(super) fn ended(shared: &Arc<Shared>, handle: &DockerHandle) -> Result<Ended, SandboxError> {
    let (shared, container) = (Arc::clone(shared), handle.container.clone());
    #[cfg(target_os = "linux")]
    if let Some(init) = &handle.init {
        let end = init.end().map_err(|source| SandboxError::Create {
            step: "watch a container's first process".to_owned(),
            source,
        })?;
        return Ok(Box::pin(async move {
            match end.await {
                Ok(()) => match tokio::time::timeout(REASON_WITHIN, reason(&shared, &container)).await {
                    Ok(reason) => reason,
                    Err(_elapsed) => {
                        unknown(&format!("it has not said why within {} s", REASON_WITHIN.as_secs()))
                    }
                },
                Err(error) => {
                    tracing::warn!(container, %error, "a container is watched by the engine alone");
                    by_the_engine(&shared, &container).await
                }
            }
        }));
    }
    Ok(Box::pin(async move { by_the_engine(&shared, &container).await }))
}

fn unknown(why: &str) -> String {
    format!("its first process has ended; the engine was asked for the reason, and {why}")
}

/// What the engine says of a container whose first process has ended.
async fn reason(shared: &Shared, container: &str) -> String {
    loop {
        match ask(shared, container).await {
            Ok(Some(reason)) => return reason,
            // It has not noticed yet.
            Ok(None) => match wait(shared, container, REASON_WITHIN).await {
                Ok(()) => {}
                Err(error) => return unknown(&error),
            },
            Err(error) => return unknown(&error),
        }
    }
}

/// Waits until the engine says that a container has ended. An engine that cannot be asked is asked again: its own end
/// is not the container's.
async fn by_the_engine(shared: &Shared, container: &str) -> String {
    loop {
        match ask(shared, container).await {
            Ok(Some(reason)) => return reason,
            Ok(None) => match wait(shared, container, ASK_AGAIN).await {
                Ok(()) => {}
                Err(error) => tracing::debug!(container, error, "a container is waited for again"),
            },
            Err(_away) => tokio::time::sleep(STEP).await,
        }
    }
}

/// How a container has ended, if it has.
async fn ask(shared: &Shared, container: &str) -> Result<Option<String>, String> {
    let live = shared.probe.for_work().await?;
    let inspected = live.client.docker.inspect_container(container, None::<InspectContainerOptions>);
    let state = match live.client.call("tell of a container", QUICK, inspected).await {
        Ok(inspected) => inspected.state.unwrap_or_default(),
        Err(error) if error.is_not_found() => return Ok(Some("somebody removed its container".to_owned())),
        Err(error) => return Err(noted(shared, &error)),
    };
    Ok(match condition(&state) {
        Condition::Runs { .. } => None,
        Condition::Ended => Some(ending(&state)),
        Condition::Going => Some("its container is being removed".to_owned()),
    })
}

async fn wait(shared: &Shared, container: &str, within: Duration) -> Result<(), String> {
    let live = shared.probe.for_work().await?;
    halt::wait(&live.client, container, within).await.map_err(|error| noted(shared, &error))
}

fn noted(shared: &Shared, error: &CallError) -> String {
    shared.probe.note(error);
    error.to_string()
}
