//! How the backend is set up. Read nowhere else than in the server's configuration.

use std::path::PathBuf;
use std::str::FromStr;

/// Where the engine is and how it is used.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    /// Where the engine listens.
    pub host: EngineAddress,
    /// How the guest agents are reached.
    pub transport: TransportChoice,
    /// The engine's runtime for the containers (`runsc` for example); the engine's default when not given.
    pub runtime: Option<String>,
    /// Docker's own `config.json` with the credentials for registries, where there is one.
    pub auth_file: Option<PathBuf>,
}

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineAddress {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port, without encryption: `HOST:PORT`.
    Tcp(String),
    /// A TCP port, with TLS.
    Tls {
        /// `HOST:PORT`.
        address: String,
        /// The directory with `ca.pem`, which has to have signed the engine's certificate, and with `cert.pem` and
        /// `key.pem` where the engine wants to know its clients.
        certs: PathBuf,
    },
}

impl EngineAddress {
    /// The same with TLS, where it is a TCP port.
    #[must_use]
    pub fn with_tls(self, certs: PathBuf) -> Self {
        match self {
            Self::Tcp(address) | Self::Tls { address, .. } => Self::Tls { address, certs },
            unix @ Self::Unix(_) => unix,
        }
    }
}

/// Text that is no address of an engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is neither unix:///PATH nor tcp://HOST:PORT{}", hint(text))]
pub struct AddressError {
    text: String,
}

fn hint(text: &str) -> &'static str {
    match text.split_once("://") {
        Some(("ssh", _)) => "; SSH is not spoken: forward the engine's socket to this host instead",
        Some(("http" | "https", _)) => "; with DOCKER_TLS_VERIFY=1 in the environment tcp:// means TLS",
        Some(("npipe", _)) => "; named pipes are not supported",
        _ => "",
    }
}

impl FromStr for EngineAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || AddressError { text: text.to_owned() };
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(PathBuf::from(path))),
            Some(("tcp", rest)) => {
                let rest = rest.trim_end_matches('/');
                let (host, port) = rest.rsplit_once(':').ok_or_else(bad)?;
                if host.is_empty() || host.contains(['/', '@', '?']) || port.parse::<u16>().is_err() {
                    return Err(bad());
                }
                Ok(Self::Tcp(rest.to_owned()))
            }
            _ => Err(bad()),
        }
    }
}

impl std::fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) | Self::Tls { address, .. } => write!(f, "tcp://{address}"),
        }
    }
}

/// How the guest agent of a container is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportChoice {
    /// By its socket where the engine is this host's and the server is root, otherwise attached.
    #[default]
    Auto,
    /// By its socket, through the container's root directory.
    Socket,
    /// By the container's standard input and output, through the engine.
    Attach,
}

#[cfg(test)]
mod tests {
    use super::EngineAddress;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in ["unix:///var/run/docker.sock", "tcp://127.0.0.1:2375", "tcp://[::1]:2375"] {
            assert_eq!(text.parse::<EngineAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_way_out() {
        for text in ["", "/var/run/docker.sock", "unix://relative", "tcp://host", "tcp://:1", "tcp://a@b:1"] {
            assert!(text.parse::<EngineAddress>().is_err(), "{text}");
        }
        let error = "ssh://host".parse::<EngineAddress>().unwrap_err().to_string();
        assert!(error.contains("SSH is not spoken"), "{error}");
    }
}
