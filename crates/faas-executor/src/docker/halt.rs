//! The end of a container's processes, whatever its state. Its files stay.

use std::time::{Duration, Instant};

use bollard::errors::Error;
use bollard::query_parameters::{InspectContainerOptions, KillContainerOptions, WaitContainerOptions};
use futures_util::StreamExt as _;

use super::client::{CallError, Client, QUICK, SLOW};
use super::state::{Condition, condition};

/// How long an engine may need in all, its refusals included.
const WITHIN: Duration = Duration::from_secs(60);

/// How long it is waited after a refusal: the container is just being started, or ends.
const STEP: Duration = Duration::from_millis(100);

/// Kills what runs in a container; whether anything did. Returns when the engine says that it has ended.
pub(super) async fn end(client: &Client, container: &str) -> Result<bool, CallError> {
    let begun = Instant::now();
    let mut ran = false;
    loop {
        let inspected = client.docker.inspect_container(container, None::<InspectContainerOptions>);
        let inspected = client.call("tell of a container", QUICK, inspected).await?;
        match condition(&inspected.state.unwrap_or_default()) {
            Condition::Ended | Condition::Going => return Ok(ran),
            Condition::Runs { .. } => ran = true,
        }
        if begun.elapsed() >= WITHIN {
            let message = format!("it still runs after {} s", WITHIN.as_secs());
            return Err(CallError::Refused { step: "end a container", status: 500, message });
        }
        // A paused one is let go on by the engine, with the signal waiting for it.
        let killed = client.docker.kill_container(container, Some(KillContainerOptions::default()));
        match client.call("kill a container", SLOW, killed).await {
            Ok(()) => wait(client, container, SLOW).await?,
            // It has ended meanwhile, or is about to.
            Err(CallError::Refused { .. }) => tokio::time::sleep(STEP).await,
            Err(error) => return Err(error),
        }
    }
}

/// Waits until the engine says that a container does not run.
pub(super) async fn wait(client: &Client, container: &str, within: Duration) -> Result<(), CallError> {
    let ended = async {
        let mut words =
            std::pin::pin!(client.docker.wait_container(container, Some(WaitContainerOptions::default())));
        match words.next().await {
            // Any exit code but 0 is an error to bollard.
            None | Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => Ok(()),
            Some(Err(error)) => Err(error),
        }
    };
    client.call("wait for a container", within, ended).await
}
