//! The server's end of a seqpacket socket to the launcher or a slot.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;

use super::launcher::message;

/// Registers a descriptor with the runtime.
pub(super) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and the same for as long as it lives, and `AsyncFd` owns it.
    unsafe { AsyncFd::register(fd) }.map_err(|error| error.into_parts().1)
}

/// A socket that waits without blocking a thread.
#[derive(Debug)]
pub(crate) struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    /// A connected pair: one end for the server, the other, which blocks, for a process of ours.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (here, there) = message::socket_pair()?;
        rustix::io::ioctl_fionbio(&here, true)?;
        Ok((Self(watch(here)?), there))
    }

    /// Sends one message.
    pub(crate) async fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|socket| message::send(socket.get_ref().as_fd(), message, fds)) {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Receives one message, or `None` when the other side is gone.
    pub(super) async fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|socket| message::receive(socket.get_ref().as_fd())) {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Whether the other side has closed its end.
    pub(super) fn is_closed(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec};
        let mut fds = [PollFd::new(self.0.get_ref(), PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // What cannot be asked is of no use either.
        !matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(0))
    }

    /// Tells the other side that nothing more will come.
    pub(super) fn end(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self.0.get_ref(), rustix::net::Shutdown::Write)?)
    }
}
