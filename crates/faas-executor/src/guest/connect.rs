//! A new connection to a guest agent, from outside, past everything that the sandbox's root may have put in its way.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// The agent's socket, from the sandbox's root.
const SOCKET: &str = ".faas/run/agent.sock";

/// Connects to the agent's socket below `root`, a descriptor of the sandbox's root directory.
///
/// connect(2) with a path would follow a symbolic link that the sandbox's root put there, to a socket of the host or
/// of another sandbox. So the path is resolved first, without links and never outside of `root`, to a descriptor that
/// must be a socket; the connection is made to just that.
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
    UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd()))
}

/// Connects to the agent in the sandbox whose `init` is `pid`. The caller checks by a pidfd, afterwards, that the PID
/// was still that `init`'s.
pub(crate) fn connect(pid: u32) -> io::Result<UnixStream> {
    let path = format!("/proc/{pid}/root");
    let root = rustix::fs::open(
        Path::new(&path),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    connect_below(root)
}

/// Whether an agent may be about to listen: its socket is not there yet, or is the one of an agent before it.
pub(crate) fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
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
