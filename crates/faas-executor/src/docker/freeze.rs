//! Pausing a container: a game of chances, where the engine's cgroups are of version 1.

use std::time::Duration;

use super::client::CallError;
use crate::sandbox::SandboxError;

/// For how long it is tried.
const WITHIN: Duration = Duration::from_secs(10);

/// How long the container's processes are left alone between two tries.
const STEP: Duration = Duration::from_millis(50);

/// Pauses a container by `pause`. A freezer of version 1 does not come to an end where a process is being forked or
/// executed at the wrong moment; runc thaws it then, and leaves it to its caller to try again (opencontainers/runc,
/// libcontainer/cgroups/fs/freezer.go). `told` makes of a refusal what it is.
pub(super) async fn freeze<F: Future<Output = Result<(), CallError>>>(
    pause: impl Fn() -> F,
    told: impl Fn(CallError) -> SandboxError,
) -> Result<(), SandboxError> {
    let deadline = tokio::time::Instant::now() + WITHIN;
    loop {
        match pause().await {
            Err(error) if error.says("already paused") => return Ok(()),
            Err(error) if error.says("unable to freeze") => {
                if tokio::time::Instant::now() >= deadline {
                    let reason = "its processes do not come to a stop; try again".to_owned();
                    return Err(SandboxError::Exhausted { reason });
                }
                tracing::debug!(%error, "a container is not frozen yet");
            }
            other => return other.map_err(told),
        }
        tokio::time::sleep(STEP).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::freeze;
    use crate::docker::client::CallError;
    use crate::sandbox::SandboxError;

    fn refused(message: &str) -> CallError {
        let step = "pause a container";
        CallError::Refused { step, status: 500, message: message.to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_until_all_has_come_to_a_stop() {
        let tries = Cell::new(0);
        let pause = || async {
            tries.set(tries.get() + 1);
            if tries.get() < 5 {
                Err(refused("OCI runtime pause failed: unable to freeze: unknown"))
            } else {
                Ok(())
            }
        };
        freeze(pause, CallError::into_sandbox_error).await.unwrap();
        assert_eq!(tries.get(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_stops_is_given_up_and_everything_else_is_told() {
        let never = || async { Err(refused("unable to freeze")) };
        let given_up = freeze(never, CallError::into_sandbox_error).await;
        assert!(matches!(given_up, Err(SandboxError::Exhausted { .. })), "{given_up:?}");
        let paused = || async { Err(refused("Container x is already paused")) };
        freeze(paused, CallError::into_sandbox_error).await.unwrap();
        let gone = || async { Err(refused("No such container")) };
        let told = freeze(gone, CallError::into_sandbox_error).await;
        assert!(matches!(told, Err(SandboxError::Create { .. })), "{told:?}");
    }
}
