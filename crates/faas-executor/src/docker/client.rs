//! A client of one engine: the connection, the version that both speak, and calls that always come to an end.

use std::io;
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, Docker};
use faas_types::Runtime;

use super::config::EngineAddress;
use super::tls;
use crate::sandbox::SandboxError;

/// How long a call may take that the engine answers from its memory.
pub(super) const QUICK: Duration = Duration::from_secs(10);

/// How long a call may take that makes or ends something. Engines do several at once slowly.
pub(super) const SLOW: Duration = Duration::from_secs(30);

/// bollard's own limit is for whole seconds and for the head of an answer alone; [`Client::call`] limits the whole.
const BOLLARDS_LIMIT_S: u64 = 24 * 60 * 60;

/// A call of the engine that gave no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The engine cannot be reached, or went away during the call. The text says what can be done.
    #[error("{0}")]
    Unreachable(String),
    /// It did not answer.
    #[error("the engine at {address} did not {step} within {} s", within.as_secs())]
    Timeout { address: String, step: &'static str, within: Duration },
    /// It said no.
    #[error("the engine refused to {step}: {message}")]
    Refused { step: &'static str, status: u16, message: String },
    /// Its answer cannot be understood.
    #[error("the engine's answer to {step} cannot be read: {source}")]
    Answer { step: &'static str, source: Box<Error> },
}

impl CallError {
    /// Whether it means that there is no engine to be used now.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Timeout { .. })
    }

    /// Whether the engine does not know what the call was about.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether the engine said no with these words in it.
    pub(super) fn says(&self, words: &str) -> bool {
        matches!(self, Self::Refused { message, .. } if message.contains(words))
    }

    /// What it is where nothing more is known of it.
    pub(super) fn into_sandbox_error(self) -> SandboxError {
        match self {
            Self::Unreachable(_) | Self::Timeout { .. } => unavailable(self.to_string()),
            Self::Refused { step, .. } if self.says("no space left on device") => no_space(step, &self),
            Self::Refused { step, .. } | Self::Answer { step, .. } => {
                SandboxError::Create { step: step.to_owned(), source: io::Error::other(self.to_string()) }
            }
        }
    }
}

/// The engine's disk is full. Where exactly is the operator's to know, not the caller's.
pub(super) fn no_space(step: &str, error: &CallError) -> SandboxError {
    tracing::error!(%error, "the engine's disk is full");
    SandboxError::NoSpace {
        reason: format!("the engine's disk has no room left to {step}; free some, or remove images"),
    }
}

/// The runtime cannot be used now.
pub(super) fn unavailable(reason: String) -> SandboxError {
    SandboxError::RuntimeUnavailable { runtime: Runtime::Docker, reason }
}

/// An engine that has answered.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) docker: Docker,
    address: EngineAddress,
}

impl Client {
    /// Connects and agrees on a version of the API: the engine's, or the newest of this client's where that is older.
    ///
    /// An engine refuses a path with a version that it does not speak, so the question goes without one.
    pub(super) async fn connect(address: &EngineAddress) -> Result<Self, CallError> {
        let step = "tell its version";
        let connected = match address {
            EngineAddress::Unix(path) => {
                let path = path.to_string_lossy();
                Docker::connect_with_unix(&path, BOLLARDS_LIMIT_S, API_DEFAULT_VERSION)
            }
            EngineAddress::Tcp(address) => {
                Docker::connect_with_http(&format!("tcp://{address}"), BOLLARDS_LIMIT_S, API_DEFAULT_VERSION)
            }
            EngineAddress::Tls { address: host, certs } => {
                let connected = tls::connect(host, certs, BOLLARDS_LIMIT_S).await;
                Ok(connected.map_err(|reason| {
                    CallError::Unreachable(format!("the engine at {address} cannot be reached: {reason}"))
                })?)
            }
        };
        let docker = connected.map_err(|error| call_error(address, step, error))?;
        let client = Self { docker, address: address.clone() };
        let versioned = format!("/v{API_DEFAULT_VERSION}/");
        let asking = client.docker.clone().with_request_modifier(move |mut request| {
            // Where this fails the engine is asked as it is, and says what it does not like.
            if let Ok(uri) = request.uri().to_string().replacen(&versioned, "/", 1).parse() {
                *request.uri_mut() = uri;
            }
            request
        });
        // The clone shares the version with the client.
        client.call(step, QUICK, asking.negotiate_version()).await?;
        Ok(client)
    }

    /// Makes a call with a limit on its time. `step` completes the words "the engine did not ...".
    pub(super) async fn call<T>(
        &self,
        step: &'static str,
        within: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, CallError> {
        match tokio::time::timeout(within, call).await {
            Ok(answer) => answer.map_err(|error| self.error(step, error)),
            Err(_elapsed) => Err(CallError::Timeout { address: self.address.to_string(), step, within }),
        }
    }

    /// What an error of bollard's is.
    pub(super) fn error(&self, step: &'static str, error: Error) -> CallError {
        call_error(&self.address, step, error)
    }
}

fn call_error(address: &EngineAddress, step: &'static str, error: Error) -> CallError {
    match error {
        // What Go's HTTP server says to a client without TLS.
        Error::DockerResponseServerError { status_code: 400, message }
            if matches!(address, EngineAddress::Tcp(_))
                && message.contains("HTTP request to an HTTPS server") =>
        {
            CallError::Unreachable(format!(
                "the engine at {address} speaks TLS alone: set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the \
                 directory with ca.pem, cert.pem and key.pem"
            ))
        }
        Error::DockerResponseServerError { status_code, message } => {
            CallError::Refused { step, status: status_code, message: message.trim().to_owned() }
        }
        // In the middle of a stream that began well.
        Error::DockerStreamError { error } => {
            CallError::Refused { step, status: 500, message: error.trim().to_owned() }
        }
        Error::JsonDataError { .. } | Error::JsonSerdeError { .. } | Error::APIVersionParseError {} => {
            CallError::Answer { step, source: Box::new(error) }
        }
        Error::SocketNotFoundError(_) => {
            CallError::Unreachable(unreachable_reason(address, Some(io::ErrorKind::NotFound), &error))
        }
        error => CallError::Unreachable(unreachable_reason(address, io_kind(&error), &error)),
    }
}

/// What an error came from. An I/O error around another error has that one's sources, not that one, for its own.
pub(super) fn below<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a (dyn std::error::Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// The kind of the I/O error that an error came from.
fn io_kind(error: &Error) -> Option<io::ErrorKind> {
    let mut kind = None;
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = at {
        kind = error.downcast_ref().map(io::Error::kind).or(kind);
        at = below(error);
    }
    kind
}

/// The last cause of an error, which is the one that says something.
fn root_cause(error: &Error) -> String {
    let mut last: &(dyn std::error::Error + 'static) = error;
    while let Some(error) = below(last) {
        last = error;
    }
    last.to_string()
}

fn unreachable_reason(address: &EngineAddress, kind: Option<io::ErrorKind>, error: &Error) -> String {
    match (address, kind) {
        (EngineAddress::Unix(path), Some(io::ErrorKind::NotFound)) => format!(
            "there is no socket {}: install and start the Docker engine, or set docker_host",
            path.display()
        ),
        (EngineAddress::Unix(path), Some(io::ErrorKind::PermissionDenied)) => format!(
            "permission denied for {}: run the server as root or as a member of the socket's group",
            path.display()
        ),
        (_, Some(io::ErrorKind::ConnectionRefused)) => {
            format!("nobody listens at {address}: start the Docker engine, or set docker_host")
        }
        (EngineAddress::Tls { certs, .. }, kind) => {
            let closed = matches!(
                kind,
                Some(
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
                )
            );
            let reason = tls::reason(error, certs).unwrap_or_else(|| match closed {
                // With TLS 1.3 its word of refusal can be lost behind what this side was still sending.
                true => format!(
                    "it closed the connection; it may not accept the certificate in {}",
                    certs.display()
                ),
                false => root_cause(error),
            });
            format!("the connection to the engine at {address} failed: {reason}")
        }
        _ => format!("the connection to the engine at {address} failed: {}", root_cause(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::{CallError, Client, EngineAddress};
    use crate::sandbox::SandboxError;

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_told_with_what_to_do() {
        let missing = EngineAddress::Unix("/no/such/docker.sock".into());
        let error = Client::connect(&missing).await.unwrap_err();
        assert!(error.is_outage() && error.to_string().contains("install and start"), "{error}");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = Client::connect(&EngineAddress::Tcp(address)).await.unwrap_err();
        assert!(error.to_string().contains("nobody listens"), "{error}");
    }

    #[tokio::test]
    async fn something_else_that_listens_is_no_engine() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let other = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-x\r\n").await.unwrap();
        });
        let error = Client::connect(&EngineAddress::Tcp(address)).await.unwrap_err();
        assert!(error.is_outage(), "{error}");
        other.await.unwrap();
    }

    #[test]
    fn a_full_disk_is_known_by_its_words() {
        let error = CallError::Refused {
            step: "start a container",
            status: 500,
            message: "write /x: no space left on device".to_owned(),
        };
        assert!(matches!(error.into_sandbox_error(), SandboxError::NoSpace { .. }));
    }
}
