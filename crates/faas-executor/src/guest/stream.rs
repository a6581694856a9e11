//! A connection to an agent as bytes both ways, whatever carries them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// Bytes to and from an agent: a Unix socket, a container's attached input and output, a VM's vsock.
pub struct AgentStream(Box<dyn Duplex>);

impl AgentStream {
    /// Wraps a stream.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static) -> Self {
        Self(Box::new(stream))
    }

    /// Wraps a connected Unix socket. Must be called within a Tokio runtime, and before whoever is at the other end of a
    /// pair has that.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn from_socket(socket: std::os::unix::net::UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        #[cfg(target_os = "linux")]
        take_no_descriptors(std::os::fd::AsFd::as_fd(&socket))?;
        Ok(Self::new(tokio::net::UnixStream::from_std(socket)?))
    }
}

/// Has a Unix socket take no descriptors: the last one of a TCP connection that lingers would hold up whichever thread
/// of this process closes it, for as long as the sender likes. Kernels before 6.16 know no such option (unix(7),
/// `SO_PASSRIGHTS`).
#[cfg(target_os = "linux")]
pub(super) fn take_no_descriptors(socket: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    /// include/uapi/asm-generic/socket.h
    const SO_PASSRIGHTS: libc::c_int = 83;
    let no: libc::c_int = 0;
    let size = libc::socklen_t::try_from(size_of_val(&no)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads `size` bytes of `no`.
    let set = unsafe {
        let value = std::ptr::from_ref(&no).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, value, size)
    };
    match (set, io::Error::last_os_error()) {
        (0, _) => Ok(()),
        (_, error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        (_, error) => Err(error),
    }
}

impl std::fmt::Debug for AgentStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentStream")
    }
}

impl AsyncRead for AgentStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for AgentStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
