//! The end of a container, whatever its state: killed, removed with its volumes, gone.

use std::time::{Duration, Instant};

use bollard::query_parameters::RemoveContainerOptionsBuilder;

use super::client::{CallError, Client, SLOW};

/// How long an engine may need in all, its refusals included.
const WITHIN: Duration = Duration::from_secs(90);

/// How long it is waited after a refusal: the container is just being made, or removed by somebody else, or something
/// still holds its file system.
const STEP: Duration = Duration::from_millis(100);

/// Removes a container by id or name; whether there was one.
pub(super) async fn remove(client: &Client, container: &str) -> Result<bool, CallError> {
    let begun = Instant::now();
    loop {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let removed = client.docker.remove_container(container, Some(options));
        match client.call("remove a container", SLOW, removed).await {
            Ok(()) => return Ok(true),
            Err(error) if error.is_not_found() => return Ok(false),
            Err(CallError::Refused { .. }) if begun.elapsed() < WITHIN => tokio::time::sleep(STEP).await,
            Err(error) => return Err(error),
        }
    }
}
