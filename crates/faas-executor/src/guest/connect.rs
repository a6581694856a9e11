//! A new connection to a guest agent, from outside, past everything that the sandbox's root may have put in its way.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::AgentStream;
use super::stream::take_no_descriptors;
use crate::sandbox::SandboxError;

/// The agent's socket, from the sandbox's root.
const SOCKET: &str = ".faas/run/agent.sock";

/// Connects to the agent's socket below `root`, a descriptor of the sandbox's root directory.
///
/// connect(2) with a path would follow a symbolic link that the sandbox's root put there, to a socket of the host or
/// of another sandbox. So the path is resolved first, without links and never outside of `root`, to a descriptor that
/// must be a socket; the connection is made to just that. It is never waited for: whoever listens may take no
/// connections, and then connect(2) would sleep for as long as its sandbox is there.
fn connect_below(root: impl AsFd) -> io::Result<UnixStream> {
    let socket = rustix::fs::openat2(
        root,
        SOCKET,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    let stat = rustix::fs::fstat(&socket)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("/{SOCKET} is no socket")));
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let ours = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    take_no_descriptors(ours.as_fd())?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", socket.as_raw_fd()))?;
    rustix::net::connect(&ours, &address)?;
    Ok(ours.into())
}

/// Connects to the agent in the sandbox whose `init` is `pid`. The caller checks by a pidfd, afterwards, that the PID
/// was still that `init`'s.
fn connect(pid: u32) -> io::Result<UnixStream> {
    let path = format!("/proc/{pid}/root");
    let root = rustix::fs::open(
        Path::new(&path),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    connect_below(root)
}

/// Whether an agent may be about to listen or to take what waits there: its socket is not there yet, is the one of an
/// agent before it, or has as many connections as fit.
fn is_early(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound, WouldBlock};
    matches!(error.kind(), NotFound | ConnectionRefused | WouldBlock)
}

/// How long it is waited at least between two attempts.
const STEP: Duration = Duration::from_millis(1);

/// Connects to the agent in the sandbox whose `init` is `pid`, for at most `within`; `has_ended` tells, of a pidfd,
/// whether that process has.
///
/// # Errors
/// [`SandboxError::Lost`].
pub(crate) async fn reach(
    pid: u32,
    within: Duration,
    has_ended: impl Fn() -> io::Result<bool>,
) -> Result<AgentStream, SandboxError> {
    let lost = |reason: String| SandboxError::Lost { reason };
    let begun = Instant::now();
    loop {
        let connected = tokio::task::spawn_blocking(move || connect(pid)).await;
        let connected = connected.map_err(|error| lost(error.to_string()))?;
        // Asked afterwards, so that it is no when the PID may have been somebody else's.
        if has_ended().map_err(|error| lost(error.to_string()))? {
            return Err(lost("its first process has ended".to_owned()));
        }
        match connected {
            Ok(socket) => return AgentStream::from_socket(socket).map_err(|error| lost(error.to_string())),
            Err(error) if is_early(&error) && begun.elapsed() < within => {
                // It comes at once, or it takes long.
                tokio::time::sleep(STEP.max(begun.elapsed() / 8)).await;
            }
            Err(error) => return Err(lost(format!("its agent cannot be reached: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::connect_below;

    fn sandbox_root() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("connect-{}", uuid::Uuid::now_v7().simple()));
        fs::create_dir_all(dir.join("root/.faas/run")).unwrap();
        dir
    }

    fn try_connect(dir: &std::path::Path) -> std::io::Result<std::os::unix::net::UnixStream> {
        connect_below(fs::File::open(dir.join("root")).unwrap())
    }

    #[test]
    fn the_agents_own_socket_is_reached() {
        let dir = sandbox_root();
        let _listener = UnixListener::bind(dir.join("root/.faas/run/agent.sock")).unwrap();
        try_connect(&dir).unwrap();
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn whoever_takes_no_connections_holds_up_nobody() {
        let dir = sandbox_root();
        let listener = UnixListener::bind(dir.join("root/.faas/run/agent.sock")).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match try_connect(&dir) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        assert!(super::is_early(&error) && !waiting.is_empty());
        drop(listener.accept().unwrap());
        try_connect(&dir).unwrap();
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_link_in_place_of_the_socket_is_not_followed() {
        let dir = sandbox_root();
        let _outside = UnixListener::bind(dir.join("outside.sock")).unwrap();
        symlink(dir.join("outside.sock"), dir.join("root/.faas/run/agent.sock")).unwrap();
        assert!(try_connect(&dir).is_err());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_link_in_place_of_a_directory_is_not_followed() {
        let dir = sandbox_root();
        fs::create_dir(dir.join("elsewhere")).unwrap();
        let _outside = UnixListener::bind(dir.join("elsewhere/agent.sock")).unwrap();
        fs::remove_dir(dir.join("root/.faas/run")).unwrap();
        symlink("../../elsewhere", dir.join("root/.faas/run")).unwrap();
        assert!(try_connect(&dir).is_err());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_in_place_of_the_socket_is_refused() {
        let dir = sandbox_root();
        fs::write(dir.join("root/.faas/run/agent.sock"), "").unwrap();
        let error = try_connect(&dir).unwrap_err();
        assert!(error.to_string().contains("no socket"), "{error}");
        fs::remove_dir_all(dir).unwrap();
    }
}
