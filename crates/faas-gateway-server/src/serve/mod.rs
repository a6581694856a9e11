//! Connections: accepted one by one, served as HTTP/1.1 or HTTP/1.0, counted, and brought to an end in bounded time.
//!
//! A connection whose client goes away is dropped, and with it the future of the request that it was waiting for.

mod departure;
mod lingering;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::app::{App, ConnectionFlags};
use departure::Departure;
pub(crate) use departure::Serving;
use lingering::Lingering;

/// The most that is kept of a request's head, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long to wait after an error of `accept` that another try would meet again, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// How many there are at once.
    pub(crate) connections: usize,
    /// In which time the head of a request must have arrived; also how long a connection may be idle between two, and
    /// how long a client may take in nothing of an answer.
    pub(crate) stalled_after: Duration,
}

/// A connection's place among those that there may be, and in what is waited for at the end. Whoever takes a connection
/// over keeps it as long as that lasts.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionPlace(Arc<Place>);

#[derive(Debug)]
struct Place {
    aborted: CancellationToken,
    _permit: OwnedSemaphorePermit,
    _tracked: TaskTrackerToken,
}

impl ConnectionPlace {
    /// Resolves when the connection has to end at once.
    pub(crate) async fn aborted(&self) {
        self.0.aborted.cancelled().await;
    }
}

/// All connections of one port.
pub(crate) struct Server {
    connections: TaskTracker,
    draining: CancellationToken,
    aborted: CancellationToken,
}

impl Server {
    /// Begins to accept.
    pub(crate) fn start(listener: TcpListener, app: App, limits: ConnectionLimits) -> Self {
        let server = Self {
            connections: TaskTracker::new(),
            draining: CancellationToken::new(),
            aborted: CancellationToken::new(),
        };
        let accepting = Accepting {
            listener,
            app,
            limits,
            connections: server.connections.clone(),
            draining: server.draining.clone(),
            aborted: server.aborted.clone(),
        };
        server.connections.spawn(accepting.run());
        server
    }

    /// Closes the port and asks every connection to end after the request that it is serving.
    pub(crate) fn stop_accepting(&self) {
        self.draining.cancel();
        self.connections.close();
    }

    /// Resolves when no connection is left.
    pub(crate) async fn all_closed(&self) {
        self.connections.wait().await;
    }

    /// Drops every connection, and with it what it was serving.
    pub(crate) fn abort(&self) {
        self.aborted.cancel();
    }
}

struct Accepting {
    listener: TcpListener,
    app: App,
    limits: ConnectionLimits,
    connections: TaskTracker,
    draining: CancellationToken,
    aborted: CancellationToken,
}

impl Accepting {
    async fn run(self) {
        let places = Arc::new(Semaphore::new(self.limits.connections.min(Semaphore::MAX_PERMITS)));
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = self.draining.cancelled() => return,
                next = next => next,
            };
            // The semaphore is never closed.
            let Ok(place) = place else { return };
            match accepted {
                Ok((stream, _)) => self.spawn(stream, place),
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        let (app, aborted) = (self.app.clone(), self.aborted.clone());
        let place = ConnectionPlace(Arc::new(Place {
            aborted: aborted.clone(),
            _permit: permit,
            _tracked: self.connections.token(),
        }));
        let served = serve(stream, app, place, self.draining.clone(), self.limits.stalled_after);
        self.connections.spawn(async move {
            tokio::select! {
                () = aborted.cancelled() => {}
                () = served => {}
            }
        });
    }
}

/// Whether `accept` failed for the connection that it was about, which is gone (accept(2)).
fn is_of_the_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
    )
}

async fn serve(
    stream: TcpStream,
    app: App,
    place: ConnectionPlace,
    draining: CancellationToken,
    stalled_after: Duration,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let flags = ConnectionFlags::default();
    let departure = match Departure::of(&stream) {
        Ok(departure) => departure,
        Err(error) => return tracing::error!(%error, "a connection cannot be watched"),
    };
    let serving = Arc::clone(&flags.serving);
    let stream = Lingering::new(stream, Arc::clone(&flags.unread), stalled_after);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (app, flags) = (app.clone(), flags.clone());
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(place.clone());
        async move { Ok::<_, Infallible>(app.handle(request, &flags).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(stalled_after)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        // What a connection becomes then is its handler's to end.
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        gone = departure.during(&serving) => return tracing::debug!(?gone, "the client went away"),
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                gone = departure.during(&serving) => return tracing::debug!(?gone, "the client went away"),
            }
        }
    };
    if let Err(error) = ended {
        // The client's doing: it went away, sent something that is not HTTP, or nothing in time.
        tracing::debug!(%error, "connection ended");
    }
}
