//! Other limits for a container that is there.

use bollard::models::{ContainerUpdateBody, HostConfig};
use bollard::query_parameters::InspectContainerOptions;

use super::client::{CallError, Client, QUICK, SLOW};
use super::refuse::unsupported;
use crate::sandbox::{Limits, SandboxError};

/// The three that can be changed, as the engine counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    memory: i64,
    nano_cpus: i64,
    pids: i64,
}

impl Numbers {
    fn of(limits: &Limits) -> Self {
        Self {
            memory: i64::try_from(limits.memory_bytes).unwrap_or(i64::MAX),
            nano_cpus: i64::from(limits.cpu_millicores) * 1_000_000,
            pids: i64::from(limits.pids),
        }
    }

    fn told(host: &HostConfig) -> Self {
        Self {
            memory: host.memory.unwrap_or(0),
            nano_cpus: host.nano_cpus.unwrap_or(0),
            pids: host.pids_limit.unwrap_or(0),
        }
    }

    fn body(self) -> ContainerUpdateBody {
        ContainerUpdateBody {
            memory: Some(self.memory),
            // Memory and swap together, so that there is no swap. An engine refuses either where it does not fit the
            // other, and so both are given.
            memory_swap: Some(self.memory),
            nano_cpus: Some(self.nano_cpus),
            pids_limit: Some(self.pids),
            ..ContainerUpdateBody::default()
        }
    }
}

/// Why limits were not changed.
#[derive(Debug)]
pub(super) enum LimitError {
    Call(CallError),
    Refused(SandboxError),
}

impl From<CallError> for LimitError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// Gives a container these limits where it has others. `held_bytes` is what it cannot do without, where the kernel would
/// kill and not refuse. Where this fails by the engine's word it has the limits that it had.
pub(super) async fn set(
    client: &Client,
    container: &str,
    limits: &Limits,
    held_bytes: Option<u64>,
) -> Result<(), LimitError> {
    let wanted = Numbers::of(limits);
    let host = told(client, container).await?;
    same_disk(&host, limits).map_err(LimitError::Refused)?;
    if Numbers::told(&host) == wanted {
        return Ok(());
    }
    if let Some(held) = held_bytes.filter(|held| *held > limits.memory_bytes) {
        return Err(LimitError::Refused(below_use(limits, &format!("it holds {held} bytes"))));
    }
    let updated = client.docker.update_container(container, wanted.body());
    match client.call("change a container's limits", SLOW, updated).await {
        Ok(()) => {}
        Err(error) if is_below_use(&error) => {
            tracing::debug!(container, %error, "a memory limit is below what is held");
            return Err(LimitError::Refused(below_use(limits, "the kernel cannot take so much from it")));
        }
        Err(CallError::Refused { status: 400, message, .. }) => {
            return Err(LimitError::Refused(unsupported("these limits", message)));
        }
        Err(error) => return Err(error.into()),
    }
    // An engine leaves out what its host cannot do, with a warning at most.
    let has = Numbers::told(&told(client, container).await?);
    if has == wanted {
        return Ok(());
    }
    Err(LimitError::Refused(unsupported(
        "these limits",
        format!("the engine has made {has:?} of {wanted:?}"),
    )))
}

async fn told(client: &Client, container: &str) -> Result<HostConfig, CallError> {
    let inspected = client.docker.inspect_container(container, None::<InspectContainerOptions>);
    let inspected = client.call("tell of a container", QUICK, inspected).await?;
    Ok(inspected.host_config.unwrap_or_default())
}

/// The size of a container's file system is given to it once.
fn same_disk(host: &HostConfig, limits: &Limits) -> Result<(), SandboxError> {
    let has = host.storage_opt.as_ref().and_then(|options| options.get("size"));
    if has.map(String::as_str) == limits.disk_bytes.map(|bytes| bytes.to_string()).as_deref() {
        return Ok(());
    }
    Err(unsupported("another disk_mb", "an engine gives a container its size when it makes it"))
}

fn below_use(limits: &Limits, why: &str) -> SandboxError {
    let operation = format!("a memory limit of {} bytes for this sandbox now", limits.memory_bytes);
    unsupported(&operation, format!("{why}; nothing was changed"))
}

/// Whether the kernel refused a memory limit since it could not free enough (memcg v1: EBUSY), by runc's words.
fn is_below_use(error: &CallError) -> bool {
    error.says("unable to set memory limit") || error.says("device or resource busy")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bollard::models::HostConfig;

    use super::{Numbers, is_below_use, same_disk};
    use crate::docker::client::CallError;
    use crate::sandbox::Limits;

    const LIMITS: Limits =
        Limits { memory_bytes: 64 << 20, cpu_millicores: 1500, pids: 32, disk_bytes: None };

    #[test]
    fn an_update_takes_memory_and_swap_together() {
        let body = Numbers::of(&LIMITS).body();
        assert_eq!((body.memory, body.memory_swap), (Some(64 << 20), Some(64 << 20)));
        assert_eq!((body.nano_cpus, body.pids_limit), (Some(1_500_000_000), Some(32)));
        let host = HostConfig {
            memory: body.memory,
            nano_cpus: body.nano_cpus,
            pids_limit: body.pids_limit,
            ..HostConfig::default()
        };
        assert_eq!(Numbers::told(&host), Numbers::of(&LIMITS));
    }

    #[test]
    fn a_disk_stays_as_it_was_made() {
        let sized = HostConfig {
            storage_opt: Some(HashMap::from([("size".to_owned(), "1048576".to_owned())])),
            ..HostConfig::default()
        };
        same_disk(&HostConfig::default(), &LIMITS).unwrap();
        same_disk(&sized, &Limits { disk_bytes: Some(1 << 20), ..LIMITS }).unwrap();
        same_disk(&sized, &LIMITS).unwrap_err();
        same_disk(&HostConfig::default(), &Limits { disk_bytes: Some(1), ..LIMITS }).unwrap_err();
    }

    #[test]
    fn a_limit_below_use_is_known_by_the_runtimes_words() {
        let refused = |message: &str| CallError::Refused {
            step: "change a container's limits",
            status: 500,
            message: message.to_owned(),
        };
        let words = "runc did not terminate successfully: exit status 1: unable to set memory limit to 8388608 \
                     (current usage: 50331648, peak usage: 50331648)";
        assert!(is_below_use(&refused(words)));
        assert!(!is_below_use(&refused("no such container")));
    }
}
