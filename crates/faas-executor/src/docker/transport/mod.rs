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

/// The process that listens at `path`, told from any later one; none where it is not this PID namespace's.
#[cfg(target_os = "linux")]
pub(super) async fn engine_process(path: &Path) -> Option<String> {
    let stream = tokio::net::UnixStream::connect(path).await.ok()?;
    let pid = stream.peer_cred().ok()?.pid().filter(|pid| *pid > 0)?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(format!("{pid} {}", start_time(&stat)?))
}

/// The time that a process was started at, in clock ticks since the boot (proc_pid_stat(5)); its name may have blanks
/// and parentheses of its own.
#[cfg(target_os = "linux")]
fn start_time(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)
}

/// Without Linux there are no processes to be looked at.
#[cfg(not(target_os = "linux"))]
pub(super) async fn engine_process(_path: &Path) -> Option<String> {
    None
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{engine_process, start_time};

    #[test]
    fn a_start_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1";
        assert_eq!(start_time(stat), Some("4711"));
        assert_eq!(start_time("7 (x"), None);
    }

    #[tokio::test]
    async fn the_process_that_listens_is_told() {
        let path = std::env::temp_dir().join(format!("peer-{}.sock", uuid::Uuid::now_v7().simple()));
        assert_eq!(engine_process(&path).await, None);
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        let told = engine_process(&path).await.unwrap();
        assert!(told.starts_with(&format!("{} ", std::process::id())), "{told}");
        std::fs::remove_file(path).unwrap();
    }
}
