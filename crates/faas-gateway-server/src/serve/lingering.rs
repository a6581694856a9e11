//! A stream whose close does not destroy the last answer.
//!
//! When a server closes a socket that holds bytes it has not read, the kernel sends a reset, and the client may lose the
//! answer that says why (RFC 9112, 9.6). So where a request was not read to its end, closing means: send the end of the
//! stream, then read and drop what still comes, for a short while.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// For how long bytes are read and dropped.
const LINGER: Duration = Duration::from_secs(2);
/// How many bytes are read at once.
const CHUNK_BYTES: usize = 16 << 10;

/// A TCP stream with a close that waits for the client where that is needed, and with an end to waiting for a client
/// that takes in nothing.
pub(super) struct Lingering {
    stream: TcpStream,
    unread: Arc<AtomicBool>,
    until: Option<Pin<Box<Sleep>>>,
    stalled_after: Duration,
    /// Runs while the client takes in nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Lingering {
    /// `unread` says at the time of the close whether the client may still be sending.
    pub(super) fn new(stream: TcpStream, unread: Arc<AtomicBool>, stalled_after: Duration) -> Self {
        Self { stream, unread, until: None, stalled_after, stalled: None }
    }

    /// What a write gave, or an error when nothing was taken in for too long.
    fn watch_stall(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let after = self.stalled_after;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(after)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes in nothing")))
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch_stall(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch_stall(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.until.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.unread.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let until = this.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        if until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut dropped = [0; CHUNK_BYTES];
        let mut buf = ReadBuf::new(&mut dropped);
        loop {
            buf.clear();
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if buf.filled().is_empty() => return Poll::Ready(Ok(())),
                Ok(()) => {}
                // The client closed in its turn: the answer was its to read.
                Err(_reset) => return Poll::Ready(Ok(())),
            }
        }
    }
}
