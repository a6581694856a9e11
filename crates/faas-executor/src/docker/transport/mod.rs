//! The two ways to a container's guest agent.
//!
//! By its socket, as with a native sandbox: nothing of the engine lies between. Or attached to the container's standard
//! input and output, through the engine, wherever the engine's processes and files are not this host's.

pub(super) mod attach;
#[cfg(target_os = "linux")]
pub(super) mod socket;

use std::path::Path;

use super::facts::Facts;

/// How a container's agent is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Socket,
    Attach,
}

/// Why containers of the engine at `path` have no processes that this server can see and enter, if so.
#[cfg(target_os = "linux")]
pub(super) async fn obstacle_to_socket(path: &Path, facts: &Facts) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("the server is not root".to_owned());
    }
    let uname = rustix::system::uname();
    let (name, kernel) = (uname.nodename().to_string_lossy(), uname.release().to_string_lossy());
    if let Some(reason) = facts.elsewhere(&name, &kernel) {
        return Some(reason);
    }
    match peer_namespaces(path).await {
        Ok(true) => None,
        Ok(false) => Some("the engine runs in namespaces of its own".to_owned()),
        Err(error) => Some(format!("the engine's process cannot be looked at: {error}")),
    }
}

/// Without Linux there are no processes to be entered.
#[cfg(not(target_os = "linux"))]
pub(super) async fn obstacle_to_socket(_path: &Path, _facts: &Facts) -> Option<String> {
    Some("the server does not run on Linux".to_owned())
}

/// Whether the process that listens at `path` has this one's PIDs and files. Not so where the server is in a container
/// that the engine's socket was mounted into.
#[cfg(target_os = "linux")]
async fn peer_namespaces(path: &Path) -> std::io::Result<bool> {
    let stream = tokio::net::UnixStream::connect(path).await?;
    // A process outside of this PID namespace has no PID in it.
    let Some(pid) = stream.peer_cred()?.pid().filter(|pid| *pid > 0) else { return Ok(false) };
    for namespace in ["pid", "mnt"] {
        let theirs = std::fs::read_link(format!("/proc/{pid}/ns/{namespace}"))?;
        if theirs != std::fs::read_link(format!("/proc/self/ns/{namespace}"))? {
            return Ok(false);
        }
    }
    Ok(true)
}
