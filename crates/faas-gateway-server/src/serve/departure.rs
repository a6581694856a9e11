//! Learning that a client has gone away while its request is being served.
//!
//! hyper looks for that only as long as it has nothing unread: one byte after the body, or a second request behind the
//! first, and it does not. So the socket itself is asked for its end.

use std::io;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Whether a request of a connection is being served.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    now: AtomicBool,
    began: Notify,
}

/// Says that a request is being served, until it is dropped.
pub(crate) struct ServingGuard(Arc<Serving>);

impl Serving {
    /// A request begins.
    pub(crate) fn begin(self: &Arc<Self>) -> ServingGuard {
        self.now.store(true, Ordering::Release);
        self.began.notify_one();
        ServingGuard(Arc::clone(self))
    }

    async fn is_under_way(&self) {
        while !self.now.load(Ordering::Acquire) {
            self.began.notified().await;
        }
    }
}

impl ServingGuard {
    /// Until the answer's body is sent or dropped.
    pub(crate) fn until_sent(self, response: Response) -> Response {
        response.map(|body| Body::new(Served { body, _serving: self }))
    }
}

/// A body that is being served.
struct Served {
    body: Body,
    _serving: ServingGuard,
}

impl HttpBody for Served {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl Drop for ServingGuard {
    fn drop(&mut self) {
        self.0.now.store(false, Ordering::Release);
    }
}

/// The end of what a client sends, seen from beside the stream: the same connection by another descriptor.
pub(super) struct Departure(TcpStream);

impl Departure {
    /// Of this connection.
    pub(super) fn of(stream: &TcpStream) -> io::Result<Self> {
        let fd = stream.as_fd().try_clone_to_owned()?;
        Ok(Self(TcpStream::from_std(std::net::TcpStream::from(fd))?))
    }

    /// Resolves when the client has closed its side and a request of it is being served.
    pub(super) async fn during(&self, serving: &Serving) -> io::Result<()> {
        loop {
            if self.0.ready(Interest::READABLE).await?.is_read_closed() {
                serving.is_under_way().await;
                return Ok(());
            }
            // There is something to be read, which is not for us: until there is more.
            let nothing: io::Result<()> =
                self.0.try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
            debug_assert!(nothing.is_err());
        }
    }
}
